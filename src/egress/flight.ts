/** One request that several callers wait for: it goes on while one of them waits, and ends when all have left. */
import { Fault } from '../base/fault.ts'

/** States: under way -> landed; or under way -> abandoned (nobody waits) or cut off (by its owner). */
export class Flight<T> {
  readonly #controller = new AbortController()
  readonly #landing: Promise<T>
  #waiting = 0

  constructor(run: (signal: AbortSignal) => Promise<T>) {
    const { signal } = this.#controller
    const cutOff = new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(Fault.from(signal.reason, 'canceled')), { once: true })
    })
    this.#landing = Promise.race([run(signal), cutOff])
    this.#landing.catch(() => {})
  }

  get isAbandoned(): boolean {
    return this.#controller.signal.aborted
  }

  /** What it brings; throws `canceled` when `signal` aborts, which ends the flight with the last who waits. */
  join(signal: AbortSignal): Promise<T> {
    if (signal.aborted) return Promise.reject(new Fault('canceled'))
    this.#waiting += 1
    return new Promise<T>((resolve, reject) => {
      const leave = () => {
        this.#waiting -= 1
        if (this.#waiting === 0) this.cutOff(new Fault('canceled'))
        reject(new Fault('canceled'))
      }
      signal.addEventListener('abort', leave, { once: true })
      const stay = () => signal.removeEventListener('abort', leave)
      this.#landing.then(resolve, reject).finally(stay)
    })
  }

  /** Ends it for everyone who waits. */
  cutOff(fault: Fault): void {
    this.#controller.abort(fault)
  }
}
