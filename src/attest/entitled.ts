/** Which identities a caller may use right now: its entries without those an operator has revoked. */
import { Fault } from '../base/fault.ts'
import type { Entry } from '../policy/entry.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Workload } from './workload.ts'

/** The usable entries, in policy order; throws no_identity when there are none, revoked when that is why. */
export function entitled(workload: Workload, revocations: Revocations): readonly Entry[] {
  const entries = workload.entries()
  if (entries.length === 0) throw workload.isEarly ? early() : new Fault('no_identity')
  if (revocations.isEmpty) return entries
  const usable = entries.filter((entry) => !revocations.find('spiffe_id', entry.spiffeId))
  if (usable.length === 0) throw new Fault('revoked', 'an operator has revoked every identity of this caller')
  return usable
}

/** Clients try again after UNAVAILABLE, and give up on what `no_identity` becomes. */
function early(): Fault {
  return new Fault('cluster_unavailable', 'the entries of the cluster have not been read yet')
}

/** The entry of `id`, or the first one; throws no_identity when `id` is not the caller's, revoked. */
export function chooseEntry(entries: readonly Entry[], id: SpiffeId | undefined): Entry {
  const entry = id === undefined ? entries[0] : entries.find((candidate) => candidate.spiffeId === id)
  if (!entry) throw new Fault('no_identity', 'no identity issued: the SPIFFE ID is not one of this caller')
  return entry
}
