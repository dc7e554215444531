/**
 * What the sidecar of a workload has to know of a target that it connects to itself: where it is and whom TLS trusts.
 * All of it is public, and told only to callers that a grant of the target names.
 */
import { chooseEntry, entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import { isHostName } from '../policy/parse.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { Routes } from '../serve/http.ts'
import type { Rates } from '../sign/rate.ts'
import { parseWorkloadId } from '../spiffe/id.ts'
import { originOf, statementsOf, unknownTarget } from './permit.ts'
import type { Trust } from './trust.ts'

export interface TargetFactsOptions {
  readonly book: Live<RuleBook>
  readonly revocations: Revocations
  readonly rates: Rates
  readonly trust: Trust
}

/** The facts; of a target that the agent connects to, only that it does. */
export type TargetFacts =
  | { readonly name: string; readonly via: 'agent' }
  | {
      readonly name: string
      readonly via: 'sidecar'
      readonly origin: string
      readonly tls: {
        readonly trust: 'system' | 'spiffe' | 'roots'
        /** PEM; those of the peer's trust domain for `spiffe`. */
        readonly roots?: readonly string[]
        readonly peer_id?: string
        readonly server_name?: string
      }
      readonly addresses: readonly string[]
      readonly concurrency?: number
      readonly txn_token: boolean
    }

/** `GET /v1/target?name=NAME`, and `spiffe_id` for another identity than the first. */
export function targetRoutes(load: () => Promise<TargetFactsOptions>): Routes {
  return {
    'GET /v1/target': async ({ caller, query }) => {
      const id = query.get('spiffe_id') ?? undefined
      const name = query.get('name') ?? ''
      if (!isHostName(name)) throw new Fault('invalid_request', 'name is not the name of a target')
      const spiffeId = id === undefined ? undefined : parseWorkloadId(id)
      const options = await load()
      const workload = caller.workload()
      const entry = chooseEntry(entitled(workload, options.revocations), spiffeId)
      return targetFacts(options, workload, entry, name)
    },
  }
}

/** The facts of the target `name` for `entry` of `workload`; throws target_unknown, policy_denied, revoked, rate_limited. */
export function targetFacts(
  { book, rates, revocations, trust }: TargetFactsOptions,
  workload: Workload,
  entry: Entry,
  name: string,
): TargetFacts {
  const instance = workload.instanceOf(entry)
  rates.takeOf({ spiffeId: entry.spiffeId, instance })
  const rules = book.get()
  const target = rules.targetNamed(name)
  if (!target) throw unknownTarget(name)
  revocations.check([['target', target.name]])
  const isDenied = rules.denialOf(entry.spiffeId, target.name) !== undefined
  if (isDenied || rules.grantsFor(target, entry.spiffeId).length === 0)
    throw new Fault('policy_denied', `no grant of ${target.name} names ${entry.spiffeId}`)
  const { identity, platform } = statementsOf(target)
  if (platform.via === 'agent') return { name: target.name, via: 'agent' }
  const { tls, addresses, concurrency } = platform
  const roots = trust.rootsOf(tls)
  return {
    name: target.name,
    via: 'sidecar',
    origin: originOf(target, platform),
    tls: {
      trust: typeof tls.trust === 'string' ? tls.trust : 'roots',
      ...(roots ? { roots } : {}),
      ...(tls.peerId === undefined ? {} : { peer_id: tls.peerId }),
      ...(tls.serverName === undefined ? {} : { server_name: tls.serverName }),
    },
    addresses,
    ...(concurrency === undefined ? {} : { concurrency }),
    txn_token: identity.passesTransaction,
  }
}
