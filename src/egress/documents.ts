/** Metadata that others publish, kept for a while: fetched once for all who wait, and kept on while it cannot be had. */
import type { Clock, Millis } from '../base/clock.ts'

const FRESH: Millis = 600_000
const STALE: Millis = 3_600_000
const KEPT_LIMIT = 256

interface Known<T> {
  readonly document: T
  readonly fetched: Millis
}

/** Documents by where they are. */
export class Documents<T> {
  readonly #clock: Clock
  readonly #known = new Map<string, Known<T>>()
  readonly #pending = new Map<string, Promise<T>>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Fresh within ten minutes; while `fetch` fails, the last good one within an hour. Throws what `fetch` throws. */
  async get(key: string, fetch: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const known = this.#known.get(key)
    const age = known ? this.#clock.monotonic() - known.fetched : Number.POSITIVE_INFINITY
    if (known && age < FRESH) return known.document
    try {
      return await this.#fetchOnce(key, fetch)
    } catch (error) {
      if (known && age < STALE) return known.document
      throw error
    }
  }

  /** Who waits for it does not end it by leaving: `fetch` has to be bounded in time. */
  #fetchOnce(key: string, fetch: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const pending = this.#pending.get(key)
    if (pending) return pending
    const fetching = this.#fetch(key, fetch).finally(() => this.#pending.delete(key))
    this.#pending.set(key, fetching)
    return fetching
  }

  async #fetch(key: string, fetch: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const document = await fetch(new AbortController().signal)
    if (this.#known.size >= KEPT_LIMIT) this.#known.clear()
    this.#known.set(key, { document, fetched: this.#clock.monotonic() })
    return document
  }
}
