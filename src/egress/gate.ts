/** How many requests may be open at each authorization server: callers that wait go before renewals. */
import { Fault } from '../base/fault.ts'

export type Urgency = 'caller' | 'renewal'

interface Waiting {
  readonly urgency: Urgency
  readonly who: string
  readonly enter: () => void
}

const WAITING_LIMIT = 20_000

const GATES_LIMIT = 256

/** A gate for each server. */
export class Gates {
  readonly #limit: number
  readonly #gates = new Map<string, Gate>()

  /** With at most `limit` requests at one server. */
  constructor(limit: number) {
    this.#limit = limit
  }

  of(issuer: string): Gate {
    const known = this.#gates.get(issuer)
    if (known) return known
    // A gate that is in use holds its bound, however many servers there are.
    if (this.#gates.size >= GATES_LIMIT)
      for (const [name, gate] of this.#gates) if (gate.isIdle) this.#gates.delete(name)
    const gate = new Gate(this.#limit)
    this.#gates.set(issuer, gate)
    return gate
  }
}

/** States of one request: waiting -> inside -> left; or it leaves while it waits. */
export class Gate {
  readonly #limit: number
  #inside = 0
  /** How many of them are whose. */
  readonly #owners = new Map<string, number>()
  readonly #waiting = new Set<Waiting>()

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Whether nobody waits and nobody is inside. */
  get isIdle(): boolean {
    return this.#inside === 0 && this.#waiting.size === 0
  }

  /**
   * Runs `call` when there is room: of those who wait, whoever of `who` has least inside. Throws overloaded, and the
   * signal's reason when it aborts before.
   */
  async run<T>(urgency: Urgency, signal: AbortSignal, call: () => Promise<T>, who = ''): Promise<T> {
    await this.#enter(urgency, signal, who)
    try {
      return await call()
    } finally {
      this.#inside -= 1
      const left = this.#of(who) - 1
      if (left > 0) this.#owners.set(who, left)
      else this.#owners.delete(who)
      this.#admit()
    }
  }

  #enter(urgency: Urgency, signal: AbortSignal, who: string): Promise<void> {
    if (signal.aborted) throw Fault.from(signal.reason, 'canceled')
    if (this.#waiting.size >= WAITING_LIMIT) throw new Fault('overloaded')
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(waiting)
        reject(Fault.from(signal.reason, 'canceled'))
      }
      const enter = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      const waiting = { urgency, enter, who }
      this.#waiting.add(waiting)
      signal.addEventListener('abort', leave, { once: true })
      this.#admit()
    })
  }

  #admit(): void {
    while (this.#inside < this.#limit) {
      const next = this.#next()
      if (!next) return
      this.#waiting.delete(next)
      this.#inside += 1
      this.#owners.set(next.who, this.#of(next.who) + 1)
      next.enter()
    }
  }

  #next(): Waiting | undefined {
    let first: Waiting | undefined
    for (const waiting of this.#waiting) {
      if (waiting.urgency === 'caller' && this.#of(waiting.who) === 0) return waiting
      if (first === undefined || this.#isBefore(waiting, first)) first = waiting
    }
    return first
  }

  #isBefore(one: Waiting, other: Waiting): boolean {
    if (one.urgency !== other.urgency) return one.urgency === 'caller'
    return this.#of(one.who) < this.#of(other.who)
  }

  #of(who: string): number {
    return this.#owners.get(who) ?? 0
  }
}
