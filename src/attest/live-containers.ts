/** Which containers have a process on this node, by the cgroups of all of them: good enough to doubt a list by. */
import type { Clock, Millis } from '../base/clock.ts'
import type { Kernel } from './kernel.ts'

/** One look costs some 20 us a process. */
const EVERY: Millis = 1_000
const ID = /[0-9a-f]{64}/g

/** See above; what it says is at most a second old, or younger than `since`. */
export class LiveContainers {
  readonly #kernel: Pick<Kernel, 'pids' | 'readCgroups'>
  readonly #clock: Clock
  #ids: ReadonlySet<string> = new Set()
  #looked: Millis = -Infinity

  constructor(kernel: Pick<Kernel, 'pids' | 'readCgroups'>, clock: Clock) {
    this.#kernel = kernel
    this.#clock = clock
  }

  /** Whether it has a process; by a look after `since`, where something is granted by what has none. */
  has(containerId: string, since: Millis = -Infinity): boolean {
    const now = this.#clock.monotonic()
    if (now - this.#looked > EVERY || this.#looked <= since) {
      this.#looked = now
      this.#ids = new Set(this.#kernel.pids().flatMap((pid) => this.#idsOf(pid)))
    }
    return this.#ids.has(containerId)
  }

  #idsOf(pid: number): readonly string[] {
    return this.#kernel.readCgroups(pid).flatMap(({ path }) => path.match(ID) ?? [])
  }
}
