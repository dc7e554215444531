/**
 * What ends a call that has to wait: its lease, its caller, its time. Most calls find all they need in memory, so
 * nothing of it is made before something waits: the signals, listeners and timer of a call took a fifth of the CPU of
 * a signature that waits for nothing.
 */
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { checkLease, type Gone, type Lease, whenOver } from '../sign/over.ts'
import { orAborted } from './lifeline.ts'

export interface WaitOptions extends Lease {
  readonly clock: Clock
  readonly timeout: Millis
  readonly gone: Gone | undefined
}

/** States: idle -> waiting (somebody asked for the signal) -> over. */
export class Wait {
  readonly #options: WaitOptions
  #ending: AbortController | undefined
  #stops: readonly (() => void)[] = []

  constructor(options: WaitOptions) {
    this.#options = options
  }

  /** Aborts with the Fault that says why: lease_ended, canceled, deadline. */
  get signal(): AbortSignal {
    this.#ending ??= this.#open()
    return this.#ending.signal
  }

  /** What `made` resolves to, unless the signal aborts before. */
  async until<T>(made: Promise<T>): Promise<T> {
    const { signal } = this
    const value = await orAborted(made, signal)
    if (signal.aborted) throw signal.reason
    return value
  }

  /** Nothing ends it any more. */
  release(): void {
    for (const stop of this.#stops) stop()
  }

  #open(): AbortController {
    const { clock, gone, instance, timeout, workload } = this.#options
    const ending = new AbortController()
    this.#stops = [
      clock.after(timeout, () => ending.abort(new Fault('deadline'))),
      whenOver({ workload, instance, gone: gone?.() }, (fault) => ending.abort(fault)),
    ]
    return ending
  }
}

/** What `make` gives, at once where it waits for nothing; throws why the call was over before. */
export function whileLeased<T>(options: WaitOptions, make: (wait: Wait) => T | Promise<T>): T | Promise<T> {
  checkLease(options)
  const wait = new Wait(options)
  let made: T | Promise<T>
  try {
    made = make(wait)
  } catch (caught) {
    wait.release()
    throw caught
  }
  if (made instanceof Promise) return wait.until(made).finally(() => wait.release())
  wait.release()
  return made
}
