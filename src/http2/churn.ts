/** How often a client may have the agent work for nothing: calls given up (the attack called rapid reset), settings. */
import type { Clock, Millis } from '../base/clock.ts'
import { CODE, ConnectionError } from './frame.ts'

/** A proxy whose own callers give up all at once is no attacker: what each stream costs is bounded elsewhere. */
const AT_ONCE = 10_000
const PER_SECOND = 1_000
const SECOND: Millis = 1_000

/** Of one connection. */
export class Churn {
  readonly #clock: Clock
  #left = AT_ONCE
  #at: Millis | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Throws ConnectionError for one too many. */
  count(): void {
    const now = this.#clock.monotonic()
    const more = ((now - (this.#at ?? now)) * PER_SECOND) / SECOND
    this.#at = now
    this.#left = Math.min(AT_ONCE, this.#left + more) - 1
    if (this.#left < 0) throw new ConnectionError(CODE.calm)
  }
}
