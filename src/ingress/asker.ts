/** Which routes a service may ask about: those whose platform statement lists it under `verifiers`. */
import { chooseEntry, entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import { Fault } from '../base/fault.ts'
import type { KeyOwner } from '../keys/vault.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { Route } from '../policy/route.ts'
import { checkSpelling, lengthOf, publicPathOf, type Routes } from '../policy/routes.ts'
import { canonicalUrl } from '../proof/target.ts'
import type { Caller } from '../serve/caller.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { AuditFacts } from '../telemetry/audit.ts'
import type { Question } from './question.ts'

/** Who asks: a workload of this node, or one on another machine that mutual TLS has shown. */
export interface Asker {
  /** Selectors and SPIFFE IDs, but for those that were revoked. */
  names(revocations: Revocations): ReadonlySet<string>
  /** Whose handles are, when it is of this node: one of `spiffeId`, or the first. Throws no_identity, revoked. */
  owner(revocations: Revocations, spiffeId: SpiffeId | undefined): KeyOwner | undefined
  /** For the record. */
  readonly facts: Pick<AuditFacts, 'pid' | 'uid' | 'spiffe_id'>
}

/** Checks the caller anew; throws what ended its lease or its certificate. */
export function askerOf(caller: Caller): Asker {
  return caller.remote ? remoteAsker(caller.remote()) : localAsker(caller.workload())
}

function remoteAsker(spiffeId: SpiffeId): Asker {
  return { names: () => new Set([spiffeId]), owner: () => undefined, facts: { spiffe_id: spiffeId } }
}

function localAsker(workload: Workload): Asker {
  const { pid, uid } = workload.peer
  return {
    names: (revocations) => askerNames(workload, revocations),
    owner: (revocations, spiffeId) => {
      const entry = chooseEntry(entitled(workload, revocations), spiffeId)
      return { spiffeId: entry.spiffeId, instance: workload.instanceOf(entry) }
    },
    facts: { pid, uid },
  }
}

function askerNames(workload: Workload, revocations: Revocations): ReadonlySet<string> {
  const ids = workload
    .entries()
    .map(({ spiffeId }) => spiffeId)
    .filter((id) => revocations.isEmpty || !revocations.find('spiffe_id', id))
  return new Set<string>([...workload.selectors, ...ids])
}

/**
 * The route that `question` is about. Throws verifier_foreign, which is the same for a route that is not there and for
 * one that others ask about, and route_unknown.
 */
export function routeAskedFor(
  routes: Routes,
  { route: name, path }: Pick<Question, 'route' | 'path'>,
  names: ReadonlySet<string>,
): Route {
  if (name !== undefined) {
    const route = routes.all.get(name)
    if (route && isListed(route, names)) return route
    throw new Fault('verifier_foreign')
  }
  const own = [...routes.all.values()].filter((route) => isListed(route, names))
  if (own.length === 0) throw new Fault('verifier_foreign', 'this workload may ask about no route at all')
  return longestOf(own, canonicalUrl(`https://host${path}`).path)
}

function isListed({ platform }: Route, names: ReadonlySet<string>): boolean {
  return platform?.verifiers.some((verifier) => names.has(verifier)) === true
}

function longestOf(routes: readonly Route[], path: string): Route {
  const below = routes.filter((route) => publicPathOf(route, path) !== undefined)
  const length = Math.max(...below.map(lengthOf))
  const [route, twin] = below.filter((each) => lengthOf(each) === length)
  if (!route) throw new Fault('route_unknown', 'the path is none that a route of this workload receives')
  if (twin)
    throw new Fault('route_unknown', `${route.name} and ${twin.name} receive the same path`, {
      action: 'Name the route in the question.',
    })
  checkSpelling(routes, path, route)
  return route
}
