/** What a service learns of a verified request: who calls, what binds it, public claims; never the token or its proof. */
import type { Seconds } from '../base/clock.ts'
import type { Claims } from './access-token.ts'
import type { Verified } from './verify.ts'

/** As JSON, and member by member as gRPC. */
export interface Answer {
  readonly route: string
  readonly caller: {
    /** How grants name it, the surest first. */
    readonly names: readonly string[]
    readonly spiffe_id?: string
    readonly client_id?: string
    readonly subject?: string
    /** Who acts for the subject, the newest first. */
    readonly actors: readonly string[]
    readonly scopes: readonly string[]
  }
  readonly binding: { readonly kind: string; readonly jkt?: string; readonly x5t?: string }
  readonly hop?: string
  /** What the body has to hash to (RFC 9530), where the request's signature covers that: the service compares. */
  readonly content_digest?: string
  readonly claims: Claims
  /** When the token ends; absent: there is none. */
  readonly expires?: Seconds
  /** Stands for the token in requests on its subject's behalf, of the workload that asked alone. */
  readonly handle?: string
  /** For the `DPoP-Nonce` header of the answer, where the route wants nonces (RFC 9449 s.8.2). */
  readonly nonce?: string
}

/** RFC 7519, 9068, 8693 and txn-tokens: what applications decide by. Others may be private to the server. */
const PUBLIC = [
  'iss',
  'sub',
  'aud',
  'client_id',
  'azp',
  'scope',
  'iat',
  'exp',
  'auth_time',
  'acr',
  'amr',
  'txn',
]

export function answerOf(
  { route, caller, binding, token, hop }: Verified,
  more: { readonly handle?: string | undefined; readonly nonce?: string | undefined } = {},
): Answer {
  const { actors, clientId, names, scopes, spiffeId, subject } = caller
  const { kind, jkt, x5t } = binding
  return {
    route,
    caller: {
      names,
      ...present({ spiffe_id: spiffeId, client_id: clientId, subject }),
      actors,
      scopes,
    },
    binding: { kind, ...present({ jkt, x5t }) },
    ...present({ hop, content_digest: binding.contentDigest }),
    claims: publicClaims(token?.claims ?? {}),
    ...(token ? { expires: token.expires } : {}),
    ...present(more),
  }
}

/** Headers for an application behind a proxy; whoever sets them has to remove what came in under their names. */
export const CLAIM_HEADERS = [
  'x-holdfast-caller',
  'x-holdfast-subject',
  'x-holdfast-scopes',
  'x-holdfast-handle',
] as const

/** Lower-case names to values; what is not known has no header. */
export function claimHeaders({ caller, handle }: Answer): Readonly<Record<string, string>> {
  const [name] = caller.names
  return {
    ...(name === undefined ? {} : { 'x-holdfast-caller': escaped(name) }),
    ...(caller.subject === undefined ? {} : { 'x-holdfast-subject': escaped(caller.subject) }),
    ...(caller.scopes.length === 0 ? {} : { 'x-holdfast-scopes': caller.scopes.map(escaped).join(' ') }),
    ...(handle === undefined ? {} : { 'x-holdfast-handle': handle }),
  }
}

/** Percent-encoded but for visible ASCII: a blank at the end, a comma or a line end would make another name of it. */
function escaped(text: string): string {
  // Half a surrogate pair has no UTF-8.
  const whole = Buffer.from(text).toString()
  return whole.replace(/[^!-$&-+\--~]/gu, encodeURIComponent)
}

function publicClaims(claims: Claims): Claims {
  return Object.fromEntries(
    PUBLIC.filter((name) => claims[name] !== undefined).map((name) => [name, claims[name]]),
  )
}

function present<K extends string>(
  members: { readonly [N in K]?: string | undefined },
): { [N in K]?: string } {
  const there: { [N in K]?: string } = {}
  for (const name in members) {
    const value = members[name]
    if (value !== undefined) there[name] = value
  }
  return there
}
