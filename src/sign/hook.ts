/**
 * The decision hook: a service of the operator's that is asked, beside policy, whether a request may go out. Its `no`
 * is policy's; without a clear answer in time the request is refused.
 */
import { createHash } from 'node:crypto'
import type { Clock, Millis, Seconds } from '../base/clock.ts'
import { Counts } from '../base/counts.ts'
import { Fault, printable } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { Shares } from '../base/shares.ts'
import { type Hold, whenOver } from './over.ts'

/** What the hook is told, in the names of the wire: public facts, never a query, body, header or token. */
export interface HookFacts {
  readonly spiffe_id: string
  readonly selectors: readonly string[]
  readonly target: string
  readonly method: string
  /** The granted path as policy writes it, and the canonical path of the request without its query. */
  readonly granted_path: string
  readonly path: string
  /** Which policy has allowed it. */
  readonly policy: string
  readonly subject?: string
  readonly actors?: readonly string[]
  readonly txn?: string
  /** Seconds since 1970. */
  readonly time: Seconds
  readonly session: {
    readonly calls: number
    readonly writes: number
    readonly targets: number
    readonly first_use: boolean
  }
}

/** What came back. */
export interface HookReply {
  readonly status: number
  readonly type: string
  readonly text: string
}

/** Posts a JSON text; rejects when there is no whole answer within ANSWER_BYTES. */
export type HookPost = (body: string, signal: AbortSignal) => Promise<HookReply>

export interface HookOptions {
  readonly post: HookPost
  readonly clock: Clock
  readonly timeout: Millis
  /** How long an answer holds; 0 asks each time. */
  readonly cache: Millis
}

type Verdict = { readonly allow: boolean; readonly reason: string }

export const ANSWER_BYTES = 4096
const REASON_LIMIT = 200
const OPEN_LIMIT = 256
const OPEN_PER_INSTANCE = 64
const KEPT_LIMIT = 10_000

/** Asks the hook, and keeps its answers for a moment under a hash of what they were answers to. */
export class Hook {
  readonly #options: HookOptions
  readonly #kept = new Map<string, { readonly verdict: Verdict; readonly until: Millis }>()
  readonly #open = new Shares('questions to the decision hook', OPEN_LIMIT, 'hook_unavailable')
  readonly #openBy = new Counts<Hold['instance']>()

  constructor(options: HookOptions) {
    this.#options = options
  }

  /** Resolves when the hook allows it; rejects with policy_denied, hook_unavailable, or why `hold` is over. */
  async ask(facts: HookFacts, hold: Hold): Promise<void> {
    const key = keyOf(facts)
    const verdict = this.#find(key) ?? (await this.#askNow(facts, hold))
    if (this.#options.cache > 0) this.#keep(key, verdict)
    refuseUnless(verdict)
  }

  /** As ask, from what is kept alone; throws hook_unavailable when there is nothing. */
  check(facts: HookFacts): void {
    const verdict = this.#find(keyOf(facts))
    if (!verdict) throw cannotWait()
    refuseUnless(verdict)
  }

  #find(key: string): Verdict | undefined {
    const kept = this.#kept.get(key)
    return kept && this.#options.clock.monotonic() < kept.until ? kept.verdict : undefined
  }

  /** An answer that is kept already keeps its time: use does not make it live longer. */
  #keep(key: string, verdict: Verdict): void {
    if (this.#find(key)) return
    this.#kept.delete(key)
    this.#kept.set(key, { verdict, until: this.#options.clock.monotonic() + this.#options.cache })
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > KEPT_LIMIT && oldest !== undefined) this.#kept.delete(oldest)
  }

  async #askNow(facts: HookFacts, hold: Hold): Promise<Verdict> {
    const own = this.#openBy.of(hold.instance)
    if (own >= OPEN_PER_INSTANCE)
      throw new Fault(
        'target_busy',
        `${own} questions about this workload are open at the decision hook, its limit`,
      )
    const leave = this.#open.take(facts.spiffe_id)
    const ending = new AbortController()
    const late = () =>
      ending.abort(new Fault('hook_unavailable', 'the decision hook does not answer in time'))
    const stops = [
      leave,
      this.#options.clock.after(this.#options.timeout, late),
      whenOver(hold, (fault) => ending.abort(fault)),
    ]
    this.#openBy.add(hold.instance, 1)
    try {
      return verdictOf(await this.#options.post(JSON.stringify(facts), ending.signal))
    } catch (caught) {
      const { aborted, reason } = ending.signal
      throw Fault.from(aborted ? reason : caught, 'hook_unavailable')
    } finally {
      this.#openBy.add(hold.instance, -1)
      for (const stop of stops) stop()
    }
  }
}

/** Time and counts change from request to request: an answer holds for all that is else the same. */
function keyOf({ time: _time, session: _session, ...facts }: HookFacts): string {
  return createHash('sha256').update(JSON.stringify(facts)).digest('base64url')
}

function verdictOf({ status, type, text }: HookReply): Verdict {
  if (status !== 200) throw malformed(`answers with status ${status}`)
  if (!/^application\/json(?:\s*;|$)/i.test(type)) throw malformed('does not answer with application/json')
  const { allow, reason = '', ...rest } = membersOf(text)
  if (typeof allow !== 'boolean') throw malformed('says neither allow: true nor allow: false')
  if (typeof reason !== 'string' || reason.length > REASON_LIMIT)
    throw malformed(`gives a reason that is no text of at most ${REASON_LIMIT} characters`)
  if (Object.keys(rest).length > 0) throw malformed('says more than allow and reason')
  return { allow, reason: printable(reason) }
}

function membersOf(text: string): Record<string, unknown> {
  try {
    return parseJsonObject(text, { maxBytes: ANSWER_BYTES, maxDepth: 2 })
  } catch {
    throw malformed('does not answer with a JSON object')
  }
}

function malformed(what: string): Fault {
  return new Fault('hook_unavailable', `the decision hook ${what}`)
}

function refuseUnless({ allow, reason }: Verdict): void {
  if (allow) return
  throw new Fault('policy_denied', `the decision hook refuses${reason === '' ? '' : `: ${reason}`}`, {
    owner: 'application',
    action: 'Ask whoever runs the decision hook of this agent.',
  })
}

/** Where no hook can be asked: its grant stays closed. */
export function cannotWait(): Fault {
  return new Fault(
    'hook_unavailable',
    'the decision hook has to be asked, and this door cannot wait for it',
    {
      action: 'Use the egress door, or ask for headers (RequestHeaders, POST /v1/headers), which wait.',
    },
  )
}
