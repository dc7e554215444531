/** What failed lately and must not be asked again at once: the Fault is told to callers with the time to wait. */
import { backoff } from '../base/backoff.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'

interface Setback {
  readonly fault: Fault
  readonly attempt: number
  readonly until: Millis
}

const BASE: Millis = 1_000
const MAX: Millis = 60_000

/** Setbacks by key (a server, or one kind of token); the oldest go first. */
export class Setbacks {
  readonly #clock: Clock
  readonly #limit: number
  readonly #random: () => number
  readonly #known = new Map<string, Setback>()

  constructor(clock: Clock, limit: number, random: () => number = Math.random) {
    this.#clock = clock
    this.#limit = limit
    this.#random = random
  }

  /** Throws the last Fault of `key` while it is too early to try again. */
  check(key: string): void {
    const known = this.#known.get(key)
    const wait = known ? known.until - this.#clock.monotonic() : 0
    if (known && wait > 0) throw withWait(known.fault, wait)
  }

  /** How long until `key` may be tried again. */
  waitOf(key: string): Millis {
    const known = this.#known.get(key)
    return known ? Math.max(0, known.until - this.#clock.monotonic()) : 0
  }

  /** Notes a failure; each one in a row doubles the wait, and the server may ask for more. Returns what to throw. */
  add(key: string, fault: Fault): Fault {
    const now = this.#clock.monotonic()
    const known = this.#known.get(key)
    // Failures of requests that were under way together are one.
    if (known && now < known.until) return withWait(known.fault, known.until - now)
    const attempt = known ? known.attempt + 1 : 0
    const asked = (fault.retryAfterSeconds ?? 0) * 1_000
    const wait = Math.max(asked, backoff(attempt, BASE, MAX, this.#random))
    this.#known.delete(key)
    this.#known.set(key, { fault, attempt, until: now + wait })
    const [oldest] = this.#known.keys()
    if (this.#known.size > this.#limit && oldest !== undefined) this.#known.delete(oldest)
    return withWait(fault, wait)
  }

  clear(key: string): void {
    this.#known.delete(key)
  }
}

function withWait({ reason, message, action, owner }: Fault, wait: Millis): Fault {
  return new Fault(reason, message, {
    action,
    owner,
    retryAfterSeconds: Math.max(1, Math.ceil(wait / 1_000)),
  })
}
