/** How many connections one uid may hold: counted before attestation, so that a flood costs the flooder only. */
import { Fault } from '../base/fault.ts'

/** Connection counts by uid and in all. */
export class ConnectionLimits {
  readonly #perUid: number
  readonly #total: number
  readonly #counts = new Map<number, number>()
  #all = 0

  constructor(perUid: number, total: number) {
    this.#perUid = perUid
    this.#total = total
  }

  get all(): number {
    return this.#all
  }

  /** Counts one connection until the returned function is called; throws too_many_connections, overloaded. */
  take(uid: number): () => void {
    const count = this.#counts.get(uid) ?? 0
    if (count >= this.#perUid)
      throw new Fault('too_many_connections', `uid ${uid} holds ${count} connections, its limit`)
    if (this.#all >= this.#total)
      throw new Fault('overloaded', `${this.#all} connections are open, the limit`)
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
