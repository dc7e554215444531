/**
 * The items of a message that asks for many proofs. Each counts as a request of its own, and others have their turn
 * between them: 64 take 3 ms, and 16 connections that ask for as many at once made each call of another wait for 60.
 */
import type { Caller } from '../serve/caller.ts'

/**
 * Makes the result of each of `items`, in order; at once where the turn allows. `prepare` is called first, and again
 * after each wait, in which the caller may have ended. Throws, or rejects with, what `prepare` and what it returns throw.
 */
export function inTurns<Item, Result>(
  caller: Caller,
  items: readonly Item[],
  prepare: () => (item: Item) => Result,
): readonly Result[] | Promise<readonly Result[]> {
  const results: Result[] = []
  const go = (): readonly Result[] | Promise<readonly Result[]> => {
    const make = prepare()
    // The first was counted with its message, or with the end of its wait.
    for (const item of items.slice(results.length)) {
      results.push(make(item))
      const wait = results.length < items.length ? caller.enter() : undefined
      if (wait) return wait.then(go)
    }
    return results
  }
  return go()
}
