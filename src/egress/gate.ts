/** How many requests may be open at one authorization server: callers that wait go before renewals. */
import { Fault } from '../base/fault.ts'

export type Urgency = 'caller' | 'renewal'

interface Waiting {
  readonly urgency: Urgency
  readonly enter: () => void
}

const WAITING_LIMIT = 20_000

/** States of one request: waiting -> inside -> left; or it leaves while it waits. */
export class Gate {
  readonly #limit: number
  #inside = 0
  readonly #waiting = new Set<Waiting>()

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Runs `call` when there is room; throws overloaded, and the signal's reason when it aborts before. */
  async run<T>(urgency: Urgency, signal: AbortSignal, call: () => Promise<T>): Promise<T> {
    await this.#enter(urgency, signal)
    try {
      return await call()
    } finally {
      this.#inside -= 1
      this.#admit()
    }
  }

  #enter(urgency: Urgency, signal: AbortSignal): Promise<void> {
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
      const waiting = { urgency, enter }
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
      next.enter()
    }
  }

  #next(): Waiting | undefined {
    let first: Waiting | undefined
    for (const waiting of this.#waiting) {
      if (waiting.urgency === 'caller') return waiting
      first ??= waiting
    }
    return first
  }
}
