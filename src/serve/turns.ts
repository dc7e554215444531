/**
 * How many calls of one owner begin in one turn of the event loop: who asks for more waits for later turns, and a call of
 * anybody else waits for no more than that many.
 */
import type { Owner } from '../attest/owner.ts'
import { turn } from '../base/turn.ts'

const IN_A_TURN = 32

/** Of one door. What waits is bounded by the calls that may be open. */
export class Turns {
  #turn = -1
  readonly #begun = new Map<Owner, number>()
  readonly #waiting = new Map<Owner, Set<() => void>>()
  #isArmed = false

  /** Undefined when a call of `owner` may begin now; else resolves when it may. Those of one owner keep their order. */
  enter(owner: Owner): Promise<void> | undefined {
    const now = turn()
    if (now !== this.#turn) this.#begun.clear()
    this.#turn = now
    const begun = this.#begun.get(owner) ?? 0
    const queue = this.#waiting.get(owner)
    if (!queue && begun < IN_A_TURN) {
      this.#begun.set(owner, begun + 1)
      return undefined
    }
    return this.#wait(owner, queue ?? new Set())
  }

  #wait(owner: Owner, queue: Set<() => void>): Promise<void> {
    this.#waiting.set(owner, queue)
    if (!this.#isArmed) this.#arm()
    return new Promise((resolve) => queue.add(resolve))
  }

  #arm(): void {
    this.#isArmed = true
    setImmediate(() => {
      for (const [owner, queue] of this.#waiting) {
        begin(queue)
        if (queue.size === 0) this.#waiting.delete(owner)
      }
      this.#isArmed = false
      if (this.#waiting.size > 0) this.#arm()
    })
  }
}

function begin(queue: Set<() => void>): void {
  let left = IN_A_TURN
  for (const go of queue) {
    queue.delete(go)
    go()
    left -= 1
    if (left === 0) return
  }
}
