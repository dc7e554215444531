/** Ends of many things that all may last equally long. A timer for each would cost a signed request some µs. */
import type { Clock, Millis } from './clock.ts'

/** What is waited for, the oldest first. */
export class Deadlines<T> {
  readonly #clock: Clock
  readonly #length: Millis
  readonly #onEnd: (item: T) => void
  readonly #since = new Map<T, Millis>()
  #isArmed = false

  /** `onEnd` hears of each item that is still here `length` ms after it was added. */
  constructor(clock: Clock, length: Millis, onEnd: (item: T) => void) {
    this.#clock = clock
    this.#length = length
    this.#onEnd = onEnd
  }

  /** Begins its time; anew, where it is here already. */
  add(item: T): void {
    this.#since.delete(item)
    this.#since.set(item, this.#clock.monotonic())
    if (!this.#isArmed) this.#arm(this.#length)
  }

  delete(item: T): void {
    this.#since.delete(item)
  }

  /** Those that are here now. */
  get items(): readonly T[] {
    return [...this.#since.keys()]
  }

  #arm(delay: Millis): void {
    this.#isArmed = true
    this.#clock.after(delay, () => this.#sweep())
  }

  #sweep(): void {
    const due = this.#clock.monotonic() - this.#length
    for (const [item, since] of this.#since) {
      if (since > due) break
      this.#since.delete(item)
      this.#onEnd(item)
    }
    this.#isArmed = false
    const [oldest] = this.#since.values()
    if (oldest !== undefined) this.#arm(oldest - due)
  }
}
