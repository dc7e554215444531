/**
 * How many calls of one owner begin in one turn of the event loop: who asks for more waits for later turns, and a call of
 * anybody else waits for no more than that many.
 */
import type { Owner } from '../attest/owner.ts'

const IN_A_TURN = 32
/**
 * So few calls of an owner are counted together although they come in several turns: to learn of each turn's end costs
 * 12 µs, a twentieth of what a call costs whose caller has one under way at a time.
 */
const FEW = IN_A_TURN / 2
const OWNERS = 64

/** Of one door. What waits is bounded by the calls that may be open. */
export class Turns {
  readonly #begun = new Map<Owner, number>()
  readonly #waiting = new Map<Owner, Set<() => void>>()
  #isArmed = false

  /** Undefined when a call of `owner` may begin now; else resolves when it may. Those of one owner keep their order. */
  enter(owner: Owner): Promise<void> | undefined {
    const begun = (this.#begun.get(owner) ?? 0) + 1
    const queue = this.#waiting.get(owner)
    if (begun > FEW || this.#begun.size > OWNERS) this.#arm()
    if (!queue && begun <= IN_A_TURN) {
      this.#begun.set(owner, begun)
      return undefined
    }
    return this.#wait(owner, queue ?? new Set())
  }

  #wait(owner: Owner, queue: Set<() => void>): Promise<void> {
    this.#waiting.set(owner, queue)
    this.#arm()
    return new Promise((resolve) => queue.add(resolve))
  }

  /** At the end of this turn. */
  #arm(): void {
    if (this.#isArmed) return
    this.#isArmed = true
    setImmediate(() => {
      this.#isArmed = false
      this.#begun.clear()
      for (const [owner, queue] of this.#waiting) {
        this.#begun.set(owner, begin(queue))
        if (queue.size === 0) this.#waiting.delete(owner)
      }
      if (this.#waiting.size > 0) this.#arm()
    })
  }
}

/** How many there were to begin. */
function begin(queue: Set<() => void>): number {
  let begun = 0
  for (const go of queue) {
    queue.delete(go)
    go()
    begun += 1
    if (begun === IN_A_TURN) break
  }
  return begun
}
