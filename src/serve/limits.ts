/** How much one uid, or one pod, may hold: counted before attestation, so that a flood costs the flooder only. */
import type { Owner } from '../attest/owner.ts'
import { Counts } from '../base/counts.ts'
import { Fault, type Reason } from '../base/fault.ts'

/** Counts of one thing (connections, calls) by owner and in all. */
export class OwnerLimits {
  readonly #what: string
  readonly #reason: Reason
  readonly #perOwner: number
  readonly #total: number
  readonly #counts = new Counts<Owner>()
  #all = 0

  /** `what` is in the plural; `reason` is told to an owner at its limit. */
  constructor(what: string, reason: Reason, perOwner: number, total: number) {
    this.#what = what
    this.#reason = reason
    this.#perOwner = perOwner
    this.#total = total
  }

  get all(): number {
    return this.#all
  }

  /** Counts one until the returned function is called; throws the owner's reason, or overloaded. */
  take(owner: Owner): () => void {
    const count = this.#counts.of(owner)
    if (count >= this.#perOwner)
      throw new Fault(this.#reason, `${owner} holds ${count} ${this.#what}, its limit`)
    if (this.#all >= this.#total)
      throw new Fault('overloaded', `${this.#all} ${this.#what} are open, the limit`)
    this.#counts.add(owner, 1)
    this.#all += 1
    let isOpen = true
    return () => {
      if (!isOpen) return
      isOpen = false
      this.#counts.add(owner, -1)
      this.#all -= 1
    }
  }
}
