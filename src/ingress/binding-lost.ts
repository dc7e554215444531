/** Notices a hop that stops handing proofs on: a gateway that was changed, or somebody who copies requests behind it. */
import type { Clock, Millis } from '../base/clock.ts'
import type { Fault } from '../base/fault.ts'
import { type RawHeaders, valuesOf } from './inbound.ts'

/** How long a hop counts as one that carries proofs. */
const KEEP: Millis = 600_000
const HOPS_LIMIT = 10_000

/** Remembers which hops carried proofs, by route and hop. */
export class ProofCarriers {
  readonly #clock: Clock
  readonly #seen = new Map<string, Millis>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** A proof came over `hop` and held. */
  carried(route: string, hop: string): void {
    const key = JSON.stringify([route, hop])
    this.#seen.delete(key)
    const [oldest] = this.#seen.keys()
    if (this.#seen.size >= HOPS_LIMIT && oldest !== undefined) this.#seen.delete(oldest)
    this.#seen.set(key, this.#clock.monotonic())
  }

  /** Whether `fault` says that a bound token came without its proof over a hop that used to carry proofs. */
  hasLost(route: string, hop: string, fault: Fault, headers: RawHeaders): boolean {
    if (fault.reason !== 'token_downgraded' && fault.reason !== 'proof_missing') return false
    if (valuesOf(headers, 'authorization').length === 0 || valuesOf(headers, 'dpop').length > 0) return false
    const last = this.#seen.get(JSON.stringify([route, hop]))
    return last !== undefined && this.#clock.monotonic() - last < KEEP
  }
}
