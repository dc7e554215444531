/**
 * How much one owner has done in one turn of the event loop, over all its connections: who asks for more waits for later
 * turns, and anybody else waits for no more than that. Without it one uid, within all limits, made each call of another
 * last for seconds: what comes on a connection in one go is up to 64 KiB, thousands of requests.
 */
import type { Owner } from '../attest/owner.ts'
import type { Turn } from '../http2/turn.ts'

/** In parts: of a frame that says little, such as PING; a few µs. */
const IN_A_TURN = 256
/** What a request costs, or one message of many: so 32 of them in a turn. */
export const REQUEST = 8
/** For all owners together, so that many of them make nobody wait much longer than two do; each has two requests. */
const FOR_ALL = 2 * IN_A_TURN
const LEAST = 2 * REQUEST
/**
 * So little is counted together although it comes in several turns: to learn of each turn's end costs 12 µs, a
 * twentieth of what a call costs whose caller has one under way at a time.
 */
const LITTLE = IN_A_TURN / 2
const OWNERS = 64

/** Of one door. What waits is bounded by its connections and by the calls that may be open. */
export class Turns {
  readonly #spent = new Map<Owner, number>()
  readonly #waiting = new Map<Owner, (() => void)[]>()
  /** How many waited when this turn began. */
  #sharers = 0
  #isArmed = false

  /** Those of `owner`, as one of its connections takes them. */
  of(owner: Owner): Turn {
    return {
      isOpen: () => this.isOpen(owner),
      spend: (parts) => this.spend(owner, parts),
      later: (then) => this.later(owner, then),
    }
  }

  /** Whether `owner` may do more in this turn. */
  isOpen(owner: Owner): boolean {
    return (this.#spent.get(owner) ?? 0) < this.#share()
  }

  #share(): number {
    const owners = Math.max(1, this.#sharers, this.#spent.size)
    return Math.max(LEAST, Math.min(IN_A_TURN, FOR_ALL / owners))
  }

  /** Counts what `owner` does now, in parts. */
  spend(owner: Owner, parts: number): void {
    const spent = (this.#spent.get(owner) ?? 0) + parts
    this.#spent.set(owner, spent)
    if (spent > LITTLE || this.#spent.size > OWNERS) this.#arm()
  }

  /** Calls `then` in a later turn that is open to `owner`; those of one owner keep their order. */
  later(owner: Owner, then: () => void): void {
    const queue = this.#waiting.get(owner)
    if (queue) queue.push(then)
    else this.#waiting.set(owner, [then])
    this.#arm()
  }

  /** Undefined when a request of `owner` may begin now; else resolves when it may. */
  enter(owner: Owner): Promise<void> | undefined {
    if (this.isOpen(owner) && !this.#waiting.has(owner)) {
      this.spend(owner, REQUEST)
      return undefined
    }
    return new Promise((resolve) =>
      this.later(owner, () => {
        this.spend(owner, REQUEST)
        resolve()
      }),
    )
  }

  /** At the end of this turn. */
  #arm(): void {
    if (this.#isArmed) return
    this.#isArmed = true
    setImmediate(() => {
      this.#isArmed = false
      this.#spent.clear()
      const waiting = [...this.#waiting]
      this.#waiting.clear()
      this.#sharers = waiting.length
      for (const [owner, queue] of waiting) this.#begin(owner, queue)
    })
  }

  /** As many as the turn is open for; the others stay before those that come meanwhile. */
  #begin(owner: Owner, queue: readonly (() => void)[]): void {
    let begun = 0
    for (const go of queue) {
      if (!this.isOpen(owner)) break
      begun += 1
      go()
    }
    if (begun === queue.length) return
    this.#waiting.set(owner, [...queue.slice(begun), ...(this.#waiting.get(owner) ?? [])])
    this.#arm()
  }
}
