/** How much one uid may hold: counted before attestation, so that a flood costs the flooder only. */
import { Fault, type Reason } from '../base/fault.ts'

/** Counts of one thing (connections, calls) by uid and in all. */
export class UidLimits {
  readonly #what: string
  readonly #reason: Reason
  readonly #perUid: number
  readonly #total: number
  readonly #counts = new Map<number, number>()
  #all = 0

  /** `what` is in the plural; `reason` is told to a uid at its limit. */
  constructor(what: string, reason: Reason, perUid: number, total: number) {
    this.#what = what
    this.#reason = reason
    this.#perUid = perUid
    this.#total = total
  }

  get all(): number {
    return this.#all
  }

  /** Counts one until the returned function is called; throws the uid's reason, or overloaded. */
  take(uid: number): () => void {
    const count = this.#counts.get(uid) ?? 0
    if (count >= this.#perUid)
      throw new Fault(
        this.#reason,
        `${uid < 0 ? 'the SPIFFE ID' : `uid ${uid}`} holds ${count} ${this.#what}, its limit`,
      )
    if (this.#all >= this.#total)
      throw new Fault('overloaded', `${this.#all} ${this.#what} are open, the limit`)
    this.#counts.set(uid, count + 1)
    this.#all += 1
    let isOpen = true
    return () => {
      if (!isOpen) return
      isOpen = false
      this.#give(uid)
    }
  }

  #give(uid: number): void {
    const left = (this.#counts.get(uid) ?? 1) - 1
    if (left > 0) this.#counts.set(uid, left)
    else this.#counts.delete(uid)
    this.#all -= 1
  }
}
