/** What cannot be stated of the replay lab: it is a caller of its own, reads only, and gets DPoP tokens of its own. */
import type { Problem } from '../base/problem.ts'
import type { Entry } from './entry.ts'
import type { Grant } from './grant.ts'
import { PROBE_METHODS } from './methods.ts'
import type { IdentityStatement, Statements } from './statements.ts'

/** Problems of `probe: true`, of entries and of grants. */
export function probeConflicts({ entries, identity, application }: Statements): readonly Problem[] {
  const probes = new Set<string>(entries.filter(({ isProbe }) => isProbe).map(({ spiffeId }) => spiffeId))
  const targets = new Map(identity.map((target) => [target.name, target]))
  return [
    ...entries.flatMap((entry) => entryProblems(entry, probes)),
    ...application.flatMap(({ name, grants }) =>
      grants.flatMap((grant) =>
        grant.isProbe
          ? grantProblems(name, grant, probes, targets.get(name))
          : strayCallers(name, grant, probes),
      ),
    ),
  ]
}

/** An identity that others have too is not the lab's. */
function entryProblems(entry: Entry, probes: ReadonlySet<string>): readonly Problem[] {
  const { name, spiffeId, isProbe, deliver, place } = entry
  if (!probes.has(spiffeId)) return []
  const delivers = deliver.x509 || deliver.jwt || deliver.wit
  return problemsOf(`the entry ${name}`, place, [
    [!isProbe, `is not the lab's, and ${spiffeId} is: all entries of an identity say probe: true, or none`],
    [isProbe && delivers, 'has probe: true and is delivered SVIDs: let it have nothing else'],
  ])
}

function grantProblems(
  name: string,
  { callers, methods, place }: Grant,
  probes: ReadonlySet<string>,
  target: IdentityStatement | undefined,
): readonly Problem[] {
  const stranger = callers.find((caller) => !probes.has(caller))
  const writing = methods.find((method) => !PROBE_METHODS.has(method))
  const client = target?.server?.client
  return problemsOf(`a grant of ${name} with probe: true`, place, [
    [stranger !== undefined, `names ${stranger}, which no entry with probe: true has`],
    [writing !== undefined, `allows ${writing}: the lab sends GET and HEAD only`],
    [
      target !== undefined && target.binding.join() !== 'dpop',
      'is for targets that are bound by dpop alone: only its tokens are bound to a key without a request',
    ],
    [target !== undefined && !client, 'wants a server with a client: the agent gets the token'],
    [
      client?.method === 'attest_jwt_client_auth_dpop',
      'is not for servers whose client attests the key of the token: the agent does not hold it',
    ],
    [target?.exchange !== undefined, 'is not for targets with exchange: nobody calls the lab'],
  ])
}

/** Prefixes may cover the lab: they let it do nothing. */
function strayCallers(
  name: string,
  { callers, place }: Grant,
  probes: ReadonlySet<string>,
): readonly Problem[] {
  const stray = callers.find((caller) => probes.has(caller))
  return problemsOf(`a grant of ${name}`, place, [
    [stray !== undefined, `names ${stray}, which is the lab's: say probe: true, or name another caller`],
  ])
}

function problemsOf(
  what: string,
  place: Entry['place'],
  refused: readonly (readonly [boolean, string])[],
): readonly Problem[] {
  return refused
    .filter(([holds]) => holds)
    .map(([, message]) => ({ ...place, message: `${what} ${message}` }))
}
