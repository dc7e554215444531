/** What a service learns of a verified request: who calls, what binds it, public claims; never the token or its proof. */
import type { Seconds } from '../base/clock.ts'
import { type AccessToken, type Claims, perToken } from './access-token.ts'
import type { Binding } from './binding.ts'
import type { Caller } from './expected.ts'
import type { Transaction } from './txn-token.ts'
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
  /** What the request is part of, by its Txn-Token, where the route takes them. */
  readonly transaction?: {
    readonly txn: string
    readonly subject: string
    readonly scopes: readonly string[]
    /** The workload that asked for the Txn-Token. */
    readonly req_wl: string
    readonly expires: Seconds
    /** What holds for the whole transaction. */
    readonly tctx?: Claims
  }
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

/** No spreads: V8 makes such an object slowly, and each request makes several (4 µs of 25). Lists are the caller's own. */
export function answerOf(
  { route, caller, binding, token, transaction, hop }: Verified,
  { handle, nonce }: { readonly handle?: string | undefined; readonly nonce?: string | undefined } = {},
): Answer {
  const answer: Writable<Answer> = {
    route,
    caller: callerIn(caller),
    binding: bindingIn(binding),
    claims: token ? publicClaims(token) : {},
  }
  if (hop !== undefined) answer.hop = hop
  if (binding.contentDigest !== undefined) answer.content_digest = binding.contentDigest
  if (transaction) answer.transaction = transactionIn(transaction)
  if (token) answer.expires = token.expires
  if (handle !== undefined) answer.handle = handle
  if (nonce !== undefined) answer.nonce = nonce
  return answer
}

function transactionIn({
  context,
  requester,
  ...transaction
}: Transaction): NonNullable<Answer['transaction']> {
  return { ...transaction, req_wl: requester, ...(context ? { tctx: context } : {}) }
}

type Writable<T> = { -readonly [K in keyof T]: T[K] }

function callerIn({ actors, clientId, names, scopes, spiffeId, subject }: Caller): Answer['caller'] {
  const told: Writable<Answer['caller']> = { names: [...names], actors: [...actors], scopes: [...scopes] }
  if (spiffeId !== undefined) told.spiffe_id = spiffeId
  if (clientId !== undefined) told.client_id = clientId
  if (subject !== undefined) told.subject = subject
  return told
}

function bindingIn({ jkt, kind, x5t }: Binding): Answer['binding'] {
  const told: Writable<Answer['binding']> = { kind }
  if (jkt !== undefined) told.jkt = jkt
  if (x5t !== undefined) told.x5t = x5t
  return told
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

/** What an application does to them stays its own: the token is known for its next requests. */
function publicClaims(token: AccessToken): Claims {
  const { plain, deep } = publicOf(token)
  return deep ? structuredClone(plain) : { ...plain }
}

const publicOf = perToken(({ claims }) => {
  const plain = Object.fromEntries(
    PUBLIC.filter((name) => claims[name] !== undefined).map((name) => [name, claims[name]]),
  )
  return { plain, deep: Object.values(plain).some((value) => typeof value === 'object') }
})
