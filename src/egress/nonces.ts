/** The nonces that targets hand out: one for each key and origin, the newest (RFC 9449 s.8.2, s.9). */
import type { Jkt } from '../proof/signer.ts'

const LIMIT = 16_384

/** A bounded memory; what was learnt first goes first. */
export class Nonces {
  readonly #byKey = new Map<string, string>()

  /** The nonce that `origin` gave to the key. */
  of(jkt: Jkt, origin: string): string | undefined {
    return this.#byKey.get(`${jkt} ${origin}`)
  }

  /** Keeps the nonce that `origin` gave. */
  learn(jkt: Jkt, origin: string, nonce: string): void {
    const key = `${jkt} ${origin}`
    this.#byKey.delete(key)
    this.#byKey.set(key, nonce)
    const [oldest] = this.#byKey.keys()
    if (this.#byKey.size > LIMIT && oldest !== undefined) this.#byKey.delete(oldest)
  }
}
