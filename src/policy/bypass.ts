/**
 * Ways around custody: what an entry delivers may be the very thing that an authorization server takes as client
 * credential. Its holder could then get tokens there itself, bound to a key of its own.
 */
import type { Problem } from '../base/problem.ts'
import type { Entry } from './entry.ts'
import type { ClientAuth, Server } from './grant.ts'
import { isMatch, isPrefix } from './pattern.ts'
import { isAudienceOf } from './reserved.ts'
import type { Statements } from './statements.ts'

/** Entries that deliver what the server of a target granted to them accepts, unless they list it under accepted_at. */
export function bypassesIn(statements: Statements): readonly Problem[] {
  const uses = usesOf(statements)
  return statements.entries.flatMap((entry) =>
    uses.flatMap((use) => {
      if (entry.acceptedAt.includes(use.server.issuer)) return []
      const delivered = acceptedOf(entry, use.server, use.client)
      const target = delivered && targetOf(use, entry.spiffeId)
      return target ? [problem(entry, use, delivered, target)] : []
    }),
  )
}

/** What `server` takes of what `entry` delivers, in words. */
function acceptedOf(entry: Entry, server: Server, client: ClientAuth): Delivered | undefined {
  if (client.method === 'tls_client_auth') {
    return entry.deliver.x509 ? { what: 'X.509-SVIDs', cure: 'set deliver.x509: false' } : undefined
  }
  if (client.method === 'attest_jwt_client_auth_dpop')
    return entry.deliver.wit ? { what: 'WIT-SVIDs', cure: 'set deliver.wit: false' } : undefined
  if (client.method === 'private_key_jwt' || !entry.deliver.jwt) return undefined
  const audience = entry.audiences.find((each) => isAudienceOf(server, each))
  return audience === undefined
    ? undefined
    : { what: `JWT-SVIDs for ${audience}`, cure: 'take the audience out of audiences' }
}

interface Delivered {
  readonly what: string
  readonly cure: string
}

/** A server with its client, and whom the targets that take its tokens are granted to. */
interface Use {
  readonly server: Server
  readonly client: ClientAuth
  /** Exact callers and prefixes, to the name of a target. */
  readonly exact: Map<string, string>
  readonly prefixes: Map<string, string>
}

function usesOf({ identity, application }: Statements): readonly Use[] {
  const grants = new Map(application.map((target) => [target.name, target.grants]))
  const uses = new Map<string, Use>()
  const named = identity.flatMap(({ name, server, exchange }) =>
    [server, exchange?.via].map((each) => ({ name, server: each })),
  )
  for (const { name, server } of named) {
    if (!server?.client || server.client.method === 'private_key_jwt') continue
    const { issuer, client } = server
    const use = uses.get(issuer) ?? { server, client, exact: new Map(), prefixes: new Map() }
    uses.set(issuer, use)
    for (const caller of grants.get(name)?.flatMap(({ callers }) => callers) ?? []) {
      const callers = isPrefix(caller) ? use.prefixes : use.exact
      if (!callers.has(caller)) callers.set(caller, name)
    }
  }
  return [...uses.values()]
}

function targetOf({ exact, prefixes }: Use, spiffeId: string): string | undefined {
  const named = exact.get(spiffeId)
  if (named !== undefined) return named
  for (const [prefix, target] of prefixes) if (isMatch(prefix, spiffeId)) return target
  return undefined
}

function problem(entry: Entry, { server, client }: Use, { what, cure }: Delivered, target: string): Problem {
  const { issuer } = server
  const message = `the entry ${entry.name} delivers ${what}, which ${issuer} takes as client credential (${client.method}): custody of ${target} could be bypassed; ${cure}, or let the server have another auth, or accept it with accepted_at: [${JSON.stringify(issuer)}]`
  return { ...entry.place, message }
}
