/**
 * The items of a message that asks for many proofs. Each counts as a request of its own, and others have their turn
 * between them: 64 take 3 ms, and 16 connections that ask for as many at once made each call of another wait for 60.
 */
import type { Workload } from '../attest/workload.ts'
import type { Caller } from '../serve/caller.ts'
import type { Audit } from '../telemetry/audit.ts'

/**
 * Makes the result of each of `items`, in order; at once where the turn allows. Peer and audit are checked once as long
 * as no time passes: first, and after each wait. Throws, or rejects with, what those checks and `make` throw.
 */
export function inTurns<Item, Result>(
  { caller, audit }: { readonly caller: Caller; readonly audit: Pick<Audit, 'check'> },
  items: readonly Item[],
  make: (workload: Workload, item: Item) => Result,
): readonly Result[] | Promise<readonly Result[]> {
  const results: Result[] = []
  const go = (): readonly Result[] | Promise<readonly Result[]> => {
    const workload = caller.workload()
    audit.check()
    // The first was counted with its message, or with the end of its wait.
    for (const item of items.slice(results.length)) {
      results.push(make(workload, item))
      const wait = results.length < items.length ? caller.enter() : undefined
      if (wait) return wait.then(go)
    }
    return results
  }
  return go()
}
