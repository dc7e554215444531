/** The nonces that servers hand out: one for each origin, the newest (RFC 9449 s.8.2, s.9). */

// RFC 9449 s.8.1: a nonce is NQCHAR. Two header lines arrive joined by ", ", and a space is none.
const NONCE = /^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/
const ORIGINS_LIMIT = 256

/** A bounded memory; the origin that was not used for longest goes first. */
export class Nonces {
  readonly #byOrigin = new Map<string, string>()

  /** The nonce of `origin`, if it gave one. */
  of(origin: string): string | undefined {
    return this.#byOrigin.get(origin)
  }

  /** Keeps the nonce that `origin` gave and gives it back; undefined, and nothing changes, when it is none. */
  learn(origin: string, nonce: string | null): string | undefined {
    if (nonce === null || !NONCE.test(nonce)) return undefined
    this.#byOrigin.delete(origin)
    this.#byOrigin.set(origin, nonce)
    const [oldest] = this.#byOrigin.keys()
    if (this.#byOrigin.size > ORIGINS_LIMIT && oldest !== undefined) this.#byOrigin.delete(oldest)
    return nonce
  }
}
