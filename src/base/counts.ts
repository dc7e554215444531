/** How many of something each owner has; who has none is not kept. */
export class Counts<K> {
  readonly #counts = new Map<K, number>()

  of(owner: K): number {
    return this.#counts.get(owner) ?? 0
  }

  add(owner: K, change: number): void {
    const count = this.of(owner) + change
    if (count > 0) this.#counts.set(owner, count)
    else this.#counts.delete(owner)
  }
}
