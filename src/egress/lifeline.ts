/** What a request under way hangs on: its lease, its caller, and that something moves. */
import type { Instance, Workload } from '../attest/workload.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { onAbort } from '../base/on-abort.ts'

const GRACE: Millis = 1_000

/** Ends a request when its lease or its caller ends, or nothing has moved for too long. */
export class Lifeline {
  readonly #controller = new AbortController()
  readonly #clock: Clock
  readonly #stops: (() => void)[] = []
  #moved: Millis
  #limit: Millis
  #late: string
  #cancel = () => {}

  constructor(clock: Clock, limit: Millis) {
    this.#clock = clock
    this.#moved = clock.monotonic()
    this.#limit = limit
    this.#late = 'the target does not answer in time'
    this.#arm(limit)
  }

  /** Aborts with the Fault that says why. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Hangs it on the lease: of the connection's workload, and of the instance that keys belong to. */
  bindTo(workload: Workload, instance: Instance): void {
    for (const { signal } of [workload, instance]) {
      this.#stops.push(onAbort(signal, () => this.end(Fault.from(signal.reason, 'lease_ended'))))
    }
  }

  /** Something moved. */
  readonly touch = (): void => {
    this.#moved = this.#clock.monotonic()
  }

  /** From now on `limit` without movement ends it as upstream_unavailable, with the message `late`. */
  wait(limit: Millis, late: string): void {
    this.touch()
    this.#limit = limit
    this.#late = late
    this.#cancel()
    this.#arm(limit)
  }

  /** Somebody else is waited for, who gives up after `limit`. */
  readonly waitFor = (limit: Millis): void => {
    this.wait(limit + GRACE, 'nobody answered in time')
  }

  /** Runs `then` once, when nothing ends it any more. */
  readonly onRelease = (then: () => void): void => {
    this.#stops.push(then)
  }

  end(fault: Fault): void {
    if (!this.signal.aborted) this.#controller.abort(fault)
  }

  /** Nothing ends it any more. */
  release(): void {
    this.#cancel()
    for (const stop of this.#stops.splice(0)) stop()
  }

  /** One timer, set again for what is left: bytes cost it nothing. */
  #arm(delay: Millis): void {
    this.#cancel = this.#clock.after(delay, () => {
      const left = this.#moved + this.#limit - this.#clock.monotonic()
      if (left > 0) this.#arm(left)
      else this.end(new Fault('upstream_unavailable', this.#late))
    })
  }
}

/** `promise`, or the reason of `signal` once it has aborted. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = () => {}
  const aborted = new Promise<never>((_, reject) => {
    const fail = () => reject(signal.reason)
    if (signal.aborted) fail()
    signal.addEventListener('abort', fail, { once: true })
    stop = () => signal.removeEventListener('abort', fail)
  })
  promise.catch(() => {})
  try {
    return await Promise.race([promise, aborted])
  } finally {
    stop()
  }
}
