/** Tokens whose signature was verified a moment ago, by their hash: most tokens come with many requests. */
import type { Clock, Millis } from '../base/clock.ts'
import type { Known, KnownTokens } from './access-token.ts'

interface Kept {
  readonly known: Known
  readonly until: Millis
}

/** A key that its server withdraws counts at most this much longer. */
const KEEP: Millis = 60_000
const LIMIT = 20_000

/** The most recently used ones. Claims are checked anew with each request: only the signature is not. */
export class RecentTokens implements KnownTokens {
  readonly #clock: Clock
  readonly #kept = new Map<string, Kept>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get(ath: string): Known | undefined {
    const kept = this.#kept.get(ath)
    if (!kept) return undefined
    this.#kept.delete(ath)
    if (kept.until <= this.#clock.monotonic()) return undefined
    this.#kept.set(ath, kept)
    return kept.known
  }

  set(ath: string, known: Known): void {
    this.#kept.delete(ath)
    const [oldest] = this.#kept.keys()
    if (this.#kept.size >= LIMIT && oldest !== undefined) this.#kept.delete(oldest)
    this.#kept.set(ath, { known, until: this.#clock.monotonic() + KEEP })
  }

  /** After a change of policy: what is known of servers may have changed. */
  clear(): void {
    this.#kept.clear()
  }
}
