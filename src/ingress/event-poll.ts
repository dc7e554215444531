/** Security events that are fetched (RFC 8936): asked for again and again, acknowledged with the next request. */
import { backoff } from '../base/backoff.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Transmitter } from '../policy/transmitter.ts'
import { tokenOf } from './event-senders.ts'
import { isMembers } from './event-subject.ts'
import { SetRefusal } from './event-token.ts'
import type { SecurityEvents } from './events.ts'
import type { HttpAsk } from './http-ask.ts'

export interface EventPollOptions {
  readonly clock: Clock
  /** Those of now with `poll`; asked for with each round. */
  readonly transmitter: () => Transmitter | undefined
  readonly every: Millis
  readonly ask: HttpAsk
  readonly events: Pick<SecurityEvents, 'take'>
  readonly onRefused: (issuer: string | undefined, why: SetRefusal) => void
  /** Why events cannot be had; undefined when they can. */
  readonly onState: (fault: Fault | undefined) => void
}

const AGAIN: Millis = 1_000
const EVENTS_LIMIT = 100
const LIMITS = { maxBytes: 256 * 1024, maxDepth: 4 }

/** Polls one transmitter until stopped, or until policy has it no more. */
export class EventPoll {
  readonly #options: EventPollOptions
  readonly #ending = new AbortController()
  #cancel: () => void = () => {}
  #acks: string[] = []
  #errors: Record<string, { err: string; description: string }> = {}
  #fails = 0

  constructor(options: EventPollOptions) {
    this.#options = options
    void this.#round()
  }

  stop(): void {
    this.#ending.abort(new Fault('canceled'))
    this.#cancel()
  }

  async #round(): Promise<void> {
    const { clock, every, onState } = this.#options
    let hasMore = false
    try {
      const transmitter = this.#options.transmitter()
      if (transmitter?.poll === undefined) return
      hasMore = await this.#ask(transmitter, transmitter.poll)
      this.#fails = 0
      if (!this.#ending.signal.aborted) onState(undefined)
    } catch (error) {
      this.#fails += 1
      if (!this.#ending.signal.aborted) onState(Fault.from(error, 'issuer_unavailable'))
    }
    if (this.#ending.signal.aborted) return
    const owes = this.#acks.length > 0 || Object.keys(this.#errors).length > 0
    const wait = this.#fails > 0 ? backoff(this.#fails, AGAIN, every) : hasMore || owes ? 0 : every
    this.#cancel = clock.after(wait, () => void this.#round())
  }

  /** One request (RFC 8936 s.2.2); whether there is more. */
  async #ask(transmitter: Transmitter, url: string): Promise<boolean> {
    const [ack, setErrs] = [this.#acks, this.#errors]
    const owed = Object.keys(setErrs).length > 0 ? { setErrs } : {}
    const request = { maxEvents: EVENTS_LIMIT, returnImmediately: true, ack, ...owed }
    const headers = {
      authorization: `Bearer ${tokenOf(transmitter)}`,
      'content-type': 'application/json',
      accept: 'application/json',
    }
    const body = JSON.stringify(request)
    const answer = await this.#options.ask(url, { method: 'POST', headers, body }, this.#ending.signal)
    if (answer.status !== 200)
      throw new Fault(
        'issuer_unavailable',
        `the transmitter ${transmitter.issuer} answers with status ${answer.status}`,
      )
    this.#acks = []
    this.#errors = {}
    const { sets, moreAvailable } = parseJsonObject(answer.body, LIMITS)
    if (!isMembers(sets))
      throw new Fault('issuer_unavailable', `the transmitter ${transmitter.issuer} answers without sets`)
    for (const [jti, set] of Object.entries(sets).slice(0, EVENTS_LIMIT))
      await this.#take(transmitter, jti, set)
    return moreAvailable === true && Object.keys(sets).length > 0
  }

  /** A fault of our own is not told the transmitter: it keeps the SET until it is acknowledged. */
  async #take(transmitter: Transmitter, jti: string, set: unknown): Promise<void> {
    try {
      if (typeof set !== 'string') throw new SetRefusal('invalid_request', 'a SET is not a text')
      await this.#options.events.take(set, transmitter)
      this.#acks.push(jti)
    } catch (error) {
      if (!(error instanceof SetRefusal)) throw error
      this.#errors[jti] = { err: error.code, description: 'the SET is not taken' }
      this.#options.onRefused(transmitter.issuer, error)
    }
  }
}
