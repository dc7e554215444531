/** Calls of workloads that exist on paper only, for what counts and waits for them. */
import { makeController } from '../../src/attest/instances.ts'
import type { Workload } from '../../src/attest/workload.ts'
import type { RuleBook } from '../../src/policy/book.ts'
import type { Call } from '../../src/sign/admission.ts'

/** A call, and how its lease ends. */
export interface PaperCall extends Call {
  readonly method: string
  end(reason: Error): void
}

/** A call of the first entry of `book` from a process of its own. */
export function callOf(book: RuleBook, method = 'GET', pid = 1): PaperCall {
  const [entry] = book.entries
  if (!entry) throw new Error('the policy has no entry')
  const lease = makeController()
  const instance = { key: `process:${pid}:1`, signal: lease.signal }
  const workload: Workload = {
    peer: { pid, uid: 1000, gid: 1000, groups: [], process: instance, check: () => {} },
    selectors: entry.selectors,
    entries: () => [entry],
    instanceOf: () => instance,
    watchEntries: () => () => {},
    signal: lease.signal,
  }
  return { workload, entry, instance, method, end: (reason) => lease.abort(reason) }
}
