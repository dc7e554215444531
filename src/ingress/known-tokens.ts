/** Tokens whose signature was verified a moment ago, by their hash: most tokens come with many requests. */
import type { Clock, Millis } from '../base/clock.ts'
import type { AccessToken, KnownTokens } from './access-token.ts'

interface Kept {
  readonly known: AccessToken
  readonly until: Millis
  /** When it was last made the most recent one. */
  moved: Millis
}

/** A key that its server withdraws counts at most this much longer. */
const KEEP: Millis = 60_000
const LIMIT = 20_000
/** Order is kept this coarsely: moving a token costs as much as hashing it. */
const MOVE: Millis = 1_000

/** The most recently used ones. Claims are checked anew with each request: only the signature is not. */
export class RecentTokens implements KnownTokens {
  readonly #clock: Clock
  readonly #kept = new Map<string, Kept>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get(ath: string): AccessToken | undefined {
    const kept = this.#kept.get(ath)
    if (!kept) return undefined
    const now = this.#clock.monotonic()
    if (now < kept.until && now - kept.moved < MOVE) return kept.known
    this.#kept.delete(ath)
    if (now >= kept.until) return undefined
    kept.moved = now
    this.#kept.set(ath, kept)
    return kept.known
  }

  set(ath: string, known: AccessToken): void {
    this.#kept.delete(ath)
    const [oldest] = this.#kept.keys()
    if (this.#kept.size >= LIMIT && oldest !== undefined) this.#kept.delete(oldest)
    const now = this.#clock.monotonic()
    this.#kept.set(ath, { known, until: now + KEEP, moved: now })
  }

  /** After a change of policy: what is known of servers may have changed. */
  clear(): void {
    this.#kept.clear()
  }
}
