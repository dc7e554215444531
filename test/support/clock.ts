/** Time that moves only when told to. */
import type { Clock } from '../../src/base/clock.ts'

/** A Clock whose timers run inside `advance`, in order of their time. */
export class ManualClock implements Clock {
  #now: number
  #monotonic = 0
  #timers: { at: number; then: () => void }[] = []

  constructor(start = 1_700_000_000_000) {
    this.#now = start
  }

  now(): number {
    return this.#now
  }

  monotonic(): number {
    return this.#monotonic
  }

  after(delay: number, then: () => void): () => void {
    const timer = { at: this.#monotonic + Math.max(delay, 0), then }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  /** Moves both clocks forward and runs what falls due, including timers set on the way. */
  advance(ms: number): void {
    const end = this.#monotonic + ms
    for (;;) {
      const next = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0]
      if (!next) break
      this.#timers = this.#timers.filter((timer) => timer !== next)
      this.#step(next.at - this.#monotonic)
      next.then()
    }
    this.#step(end - this.#monotonic)
  }

  /** Moves wall time alone, as an operator or NTP would. */
  jump(ms: number): void {
    this.#now += ms
  }

  #step(ms: number): void {
    this.#monotonic += ms
    this.#now += ms
  }
}
