/** Parts of the daemon: started in order, stopped in reverse, ready when none is pending. */
import type { Millis } from './clock.ts'

/** One part with a life of its own. `start` resolves when the part is ready; `stop` when it has ended. */
export interface Task {
  readonly name: string
  start(): Promise<void> | void
  /** Ends the part within `deadline`; must not throw for work that was never started. */
  stop(deadline: Millis): Promise<void> | void
}

/** The parts of one daemon and which of them are not ready yet. */
export class Tasks {
  readonly #started: Task[] = []
  readonly #pending = new Set<string>()

  /** Starts `task` after the ones before it; a failure names nothing but itself and stops what was started. */
  async start(task: Task): Promise<void> {
    this.#pending.add(task.name)
    this.#started.unshift(task)
    await task.start()
    this.#pending.delete(task.name)
  }

  /** The parts that are not ready; empty when the daemon is. */
  get pending(): readonly string[] {
    return [...this.#pending]
  }

  /** Stops everything in reverse order; the first failure is thrown after all have been asked. */
  async stop(deadline: Millis): Promise<void> {
    let first: unknown
    for (const task of this.#started.splice(0)) {
      try {
        await task.stop(deadline)
      } catch (error) {
        first ??= error
      }
    }
    if (first !== undefined) throw first
  }
}
