/** A value that changes as a whole: readers see the newest, watchers hear of each change. */

/** Owner sets, everyone reads. A watcher's throw is the owner's bug: it is rethrown to the setter. */
export class Live<T> {
  #value: T
  readonly #watchers = new Set<(value: T) => void>()

  constructor(value: T) {
    this.#value = value
  }

  get(): T {
    return this.#value
  }

  set(value: T): void {
    this.#value = value
    for (const watcher of [...this.#watchers]) watcher(value)
  }

  /** Calls `watcher` on each later change until the returned function is called. */
  watch(watcher: (value: T) => void): () => void {
    this.#watchers.add(watcher)
    return () => {
      this.#watchers.delete(watcher)
    }
  }
}
