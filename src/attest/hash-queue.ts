/** Who waits to be hashed: owners take turns, each with its own in the order they came, so that none can hold up another for long. */

interface Owned {
  readonly owner: string
}

const LIMIT = 256
const LIMIT_PER_OWNER = 32

/** A bounded queue, fair between owners. */
export class HashQueue<T extends Owned> {
  /** The owner whose turn it is comes first. */
  readonly #owners = new Map<string, Set<T>>()
  #size = 0

  hasRoom(owner: string): boolean {
    return this.#size < LIMIT && (this.#owners.get(owner)?.size ?? 0) < LIMIT_PER_OWNER
  }

  add(waiting: T): void {
    const own = this.#owners.get(waiting.owner)
    if (own) own.add(waiting)
    else this.#owners.set(waiting.owner, new Set([waiting]))
    this.#size += 1
  }

  /** Takes the next one out; undefined when nobody waits. */
  next(): T | undefined {
    for (const [owner, own] of this.#owners) {
      const [waiting] = own
      if (!waiting) continue
      this.delete(waiting)
      if (this.#owners.delete(owner)) this.#owners.set(owner, own)
      return waiting
    }
    return undefined
  }

  delete(waiting: T): void {
    const own = this.#owners.get(waiting.owner)
    if (!own?.delete(waiting)) return
    this.#size -= 1
    if (own.size === 0) this.#owners.delete(waiting.owner)
  }

  /** Takes all of them out. */
  clear(): readonly T[] {
    const all = [...this.#owners.values()].flatMap((own) => [...own])
    this.#owners.clear()
    this.#size = 0
    return all
  }
}
