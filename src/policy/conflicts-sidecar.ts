/** What cannot be stated of a target that the workload's sidecar connects to: the agent never sees such a request. */
import type { Problem } from '../base/problem.ts'
import type { TargetIdentity } from './grant.ts'
import type { IdentityStatement, Statements } from './statements.ts'

/** Statements about targets with `via: sidecar` that nobody could carry out. */
export function sidecarConflicts({ identity, platform }: Statements): readonly Problem[] {
  const stated = new Map(identity.map((target) => [target.name, target]))
  return platform
    .filter(({ via }) => via === 'sidecar')
    .flatMap(({ name, origins, followsRedirects, place }) => {
      const target = stated.get(name)
      const refused = [
        ...(target ? identityRefusals(target) : []),
        [followsRedirects, 'redirects are never followed by a sidecar: leave redirects out'],
        [
          !isPlace(origins[0]),
          'the first origin has no port of its own, so that no sidecar can connect to it',
        ],
      ] as const
      return refused
        .filter(([holds]) => holds)
        .map(([, message]) => ({ ...place, message: `${name} is via: sidecar: ${message}` }))
    })
}

function identityRefusals(target: IdentityStatement): readonly (readonly [boolean, string])[] {
  return [
    [
      target.custody !== 'headers',
      `its sidecar holds the headers of requests, and custody is ${target.custody}: set custody: headers`,
    ],
    [
      !isHeaders(target),
      `its requests are bound by ${target.binding.join(', ')}, and a sidecar gets headers only: leave dpop and wpt`,
    ],
    [target.exchange !== undefined, 'exchange goes with via: agent only'],
  ]
}

/** Whether what binds a request is headers that the agent can make without the connection and the body. */
function isHeaders({ binding }: TargetIdentity): boolean {
  return binding.every((kind) => kind === 'dpop' || kind === 'wpt')
}

function isPlace(origin: string | undefined): boolean {
  return origin !== undefined && !origin.endsWith(':*')
}
