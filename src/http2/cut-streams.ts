/**
 * Streams that ended here before the client had said its last (RFC 9113 s.5.1): what it still says of them was on its
 * way, and is no mistake.
 */

/** The newest of them; what is said of older ones is taken for a mistake. To find the oldest of 1,000 takes a µs. */
const LIMIT = 256

/** Of one connection. */
export class CutStreams {
  readonly #ids = new Set<number>()

  add(id: number): void {
    this.#ids.add(id)
    if (this.#ids.size <= LIMIT) return
    const [oldest] = this.#ids
    if (oldest !== undefined) this.#ids.delete(oldest)
  }

  has(id: number): boolean {
    return this.#ids.has(id)
  }

  /** The client has said its last; whether `id` was here. */
  delete(id: number): boolean {
    return this.#ids.delete(id)
  }
}
