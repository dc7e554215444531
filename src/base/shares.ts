/**
 * A bound that all have in common and nobody can use up: whoever holds as much as is left for all others gets no more.
 * One alone gets half of the whole, and each that comes later half of what is left; `n` that take in turn get the same,
 * and leave as much for the next.
 */
import { Counts } from './counts.ts'
import { Fault } from './fault.ts'
import type { Reason } from './reasons.ts'

/** How much of one thing each owner holds. */
export class Shares {
  readonly #what: string
  readonly #limit: number
  readonly #reason: Reason
  readonly #held = new Counts<string>()
  #all = 0

  /** `what` is in the plural; `reason` is told to an owner who gets no more. */
  constructor(what: string, limit: number, reason: Reason = 'overloaded') {
    this.#what = what
    this.#limit = limit
    this.#reason = reason
  }

  get all(): number {
    return this.#all
  }

  /** Whether `owner` gets no more. */
  isFull(owner: string): boolean {
    return this.of(owner) >= this.#limit - this.#all
  }

  of(owner: string): number {
    return this.#held.of(owner)
  }

  /** Counts one of `owner` until the returned function is called; throws the reason. */
  take(owner: string): () => void {
    if (this.isFull(owner)) throw this.#refusal(owner)
    return this.add(owner)
  }

  /** As take, whatever is held. */
  add(owner: string): () => void {
    this.#held.add(owner, 1)
    this.#all += 1
    let isHeld = true
    return () => {
      if (!isHeld) return
      isHeld = false
      this.#held.add(owner, -1)
      this.#all -= 1
    }
  }

  #refusal(owner: string): Fault {
    const left = this.#limit - this.#all
    return new Fault(
      this.#reason,
      left <= 0
        ? `${this.#limit} ${this.#what}, the limit of the node`
        : `${this.of(owner)} ${this.#what} are of ${owner}, and ${left} are left for all others: it gets no more`,
    )
  }
}
