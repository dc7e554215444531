/** A denylist at an https URL: asked again and again, bounded in size and time; the last good one stays. */
import { backoff } from '../base/backoff.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Denylist } from './denylist.ts'
import { parseDenylist } from './denylist-text.ts'
import type { HttpAsk } from './http-ask.ts'
import { headerOf } from './http-ask.ts'

export interface DenylistUrlOptions {
  readonly clock: Clock
  readonly url: string
  readonly every: Millis
  readonly ask: HttpAsk
  readonly denylist: Denylist
  /** Why the newest list is not in force; undefined when it is. */
  readonly onState: (fault: Fault | undefined) => void
}

const AGAIN: Millis = 1_000

/** Begins to ask at once; `first` resolves when the first list is in force. */
export class DenylistUrl {
  readonly #options: DenylistUrlOptions
  readonly #ending = new AbortController()
  #cancel: () => void = () => {}
  #tag: string | undefined
  #fails = 0
  #onFirst: () => void = () => {}
  readonly first: Promise<void>

  constructor(options: DenylistUrlOptions) {
    this.#options = options
    this.first = new Promise((resolve) => {
      this.#onFirst = resolve
    })
    void this.#ask()
  }

  stop(): void {
    this.#ending.abort(new Fault('canceled'))
    this.#cancel()
  }

  async #ask(): Promise<void> {
    const { clock, every, onState } = this.#options
    try {
      await this.#load()
      this.#fails = 0
      this.#onFirst()
      if (!this.#ending.signal.aborted) onState(undefined)
    } catch (error) {
      this.#fails += 1
      if (!this.#ending.signal.aborted) onState(Fault.from(error, 'issuer_unavailable'))
    }
    if (this.#ending.signal.aborted) return
    const wait = this.#fails === 0 ? every : Math.min(every, backoff(this.#fails, AGAIN, every))
    this.#cancel = clock.after(wait, () => void this.#ask())
  }

  async #load(): Promise<void> {
    const { ask, denylist, url } = this.#options
    const tag = this.#tag === undefined ? {} : { 'if-none-match': this.#tag }
    const headers = { accept: 'application/jsonl, application/yaml', ...tag }
    const answer = await ask(url, { method: 'GET', headers }, this.#ending.signal)
    if (answer.status === 304 && this.#tag !== undefined) return
    if (answer.status !== 200)
      throw new Fault(
        'issuer_unavailable',
        `the denylist at ${new URL(url).host} answers with status ${answer.status}`,
      )
    denylist.replace('url', await parseDenylist(new URL(url).host, answer.body))
    // RFC 9110 s.8.8.3; one that could not be a header again is not kept.
    const found = headerOf(answer, 'etag')
    this.#tag = found !== undefined && /^(?:W\/)?"[!#-~]{0,256}"$/.test(found) ? found : undefined
  }
}
