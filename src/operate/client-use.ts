/** What the agent asks a server for: the targets that take its tokens, who calls them, and the grants that are used. */
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import type { Server, Target, TargetIdentity } from '../policy/grant.ts'

/** Everything that policy says of the use of one server. */
export interface ClientUse {
  readonly targets: readonly {
    readonly name: string
    readonly resource?: string
    readonly scopes: readonly string[]
    readonly binding: readonly string[]
  }[]
  /** The entries that some grant of such a target names. */
  readonly callers: readonly Entry[]
  /** Client metadata that follows from it. */
  readonly metadata: {
    readonly grant_types: readonly string[]
    readonly response_types: readonly string[]
    readonly redirect_uris: readonly string[]
    readonly scope?: string
    readonly dpop_bound_access_tokens: boolean
    readonly tls_client_certificate_bound_access_tokens: boolean
  }
  readonly notes: readonly string[]
}

interface Use {
  readonly target: Target
  readonly identity: TargetIdentity
}

/** The use of `server`, as `book` has it. */
export function useOf(book: RuleBook, server: Server): ClientUse {
  const all = [...book.targets.values()].flatMap((target): Use[] =>
    target.identity ? [{ target, identity: target.identity }] : [],
  )
  const own = all.filter(({ identity }) => identity.server?.issuer === server.issuer)
  const via = all.filter(({ identity }) => identity.exchange?.via?.issuer === server.issuer)
  const used = [...own, ...via].map(({ target }) => target)
  const callers = book
    .identities()
    .filter((entry) => used.some((target) => book.grantsFor(target, entry.spiffeId).length > 0))
  const scopes = new Set(own.flatMap(({ identity }) => identity.scopes))
  const bindings = own.map(({ identity }) => identity.binding)
  return {
    targets: own.map(({ target, identity }) => ({
      name: target.name,
      ...(identity.resource === undefined ? {} : { resource: identity.resource }),
      scopes: identity.scopes,
      binding: identity.binding,
    })),
    callers,
    metadata: {
      grant_types: grantTypes(own, via),
      response_types: [],
      redirect_uris: [],
      ...(scopes.size > 0 ? { scope: [...scopes].join(' ') } : {}),
      dpop_bound_access_tokens: bindings.every((binding) => binding.includes('dpop')),
      tls_client_certificate_bound_access_tokens:
        bindings.length > 0 && bindings.every((binding) => binding.includes('mtls')),
    },
    notes: bindings.flatMap(mixedNote).slice(0, 1),
  }
}

/** Registered for the whole client (RFC 9449 s.5.2): one target that cannot hold the rule undoes it for all. */
function mixedNote(
  binding: readonly string[],
  _index: number,
  all: readonly (readonly string[])[],
): string[] {
  if (binding.includes('dpop') || !all.some((other) => other.includes('dpop'))) return []
  return [
    'some targets of this server take DPoP-bound tokens and some do not: another server name and client for those would let the server hold the rest to it',
  ]
}

const CREDENTIALS = 'client_credentials'
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const ASSERTION = 'urn:ietf:params:oauth:grant-type:jwt-bearer'

/** RFC 6749 s.4.4, RFC 8693, and RFC 7523 for what another server exchanged first. */
function grantTypes(own: readonly Use[], via: readonly Use[]): readonly string[] {
  const types = own.flatMap(({ identity: { exchange } }) => {
    if (!exchange) return [CREDENTIALS]
    const first = exchange.via ? ASSERTION : EXCHANGE
    return exchange.isRequired ? [first] : [first, CREDENTIALS]
  })
  const all = [...types, ...(via.length > 0 ? [EXCHANGE] : [])]
  return [...new Set(all.length > 0 ? all : [CREDENTIALS])]
}
