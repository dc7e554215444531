/** How many requests may be open at each authorization server: callers that wait go before renewals. */
import { Counts } from '../base/counts.ts'
import { Fault } from '../base/fault.ts'
import { Shares } from '../base/shares.ts'

export type Urgency = 'caller' | 'renewal'

/** Who wants to be let in; those without a name are one. */
export interface GateAsk {
  readonly urgency: Urgency
  /** Aborts when it is not wanted any more. */
  readonly signal: AbortSignal
  /** Of all who wait, whoever has least inside is next: an identity, or a route. */
  readonly who?: string
  /** The same among those of one `who`: an instance. */
  readonly within?: string
}

interface Waiting {
  readonly urgency: Urgency
  readonly who: string
  readonly within: string
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
  readonly #whose = new Counts<string>()
  readonly #within = new Counts<string>()
  readonly #waiting = new Set<Waiting>()
  readonly #shares = new Shares('requests that wait for one server', WAITING_LIMIT)

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Whether nobody waits and nobody is inside. */
  get isIdle(): boolean {
    return this.#inside === 0 && this.#waiting.size === 0
  }

  /**
   * Runs `call` when there is room and it is the turn of `ask`. Throws overloaded, and the signal's reason when it aborts
   * before.
   */
  async run<T>(ask: GateAsk, call: () => Promise<T>): Promise<T> {
    const { who = '', within = '' } = ask
    await this.#enter({ ...ask, who, within })
    try {
      return await call()
    } finally {
      this.#inside -= 1
      this.#whose.add(who, -1)
      this.#within.add(within, -1)
      this.#admit()
    }
  }

  #enter({ urgency, signal, who, within }: Required<GateAsk>): Promise<void> {
    if (signal.aborted) throw Fault.from(signal.reason, 'canceled')
    const free = this.#shares.take(who)
    return new Promise((resolve, reject) => {
      const leave = () => {
        free()
        this.#waiting.delete(waiting)
        reject(Fault.from(signal.reason, 'canceled'))
      }
      const enter = () => {
        free()
        signal.removeEventListener('abort', leave)
        resolve()
      }
      const waiting = { urgency, enter, who, within }
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
      this.#whose.add(next.who, 1)
      this.#within.add(next.within, 1)
      next.enter()
    }
  }

  #next(): Waiting | undefined {
    let first: Waiting | undefined
    for (const waiting of this.#waiting) {
      if (waiting.urgency === 'caller' && this.#whose.of(waiting.who) === 0) return waiting
      if (first === undefined || this.#isBefore(waiting, first)) first = waiting
    }
    return first
  }

  #isBefore(one: Waiting, other: Waiting): boolean {
    if (one.urgency !== other.urgency) return one.urgency === 'caller'
    const more = this.#whose.of(one.who) - this.#whose.of(other.who)
    return more === 0 ? this.#within.of(one.within) < this.#within.of(other.within) : more < 0
  }
}
