/** Whether a request whose credentials hold is expected here: caller, method, path, scopes, delegation. */
import { Fault } from '../base/fault.ts'
import { isNeverGranted } from '../policy/methods.ts'
import { isMatchOfAny } from '../policy/pattern.ts'
import type { Route, RouteGrant } from '../policy/route.ts'
import { routeGrantsFor } from '../policy/routes.ts'
import { placeText } from '../policy/statements.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { type AccessToken, type Claims, perToken } from './access-token.ts'
import type { Binding } from './binding.ts'
import type { Checking } from './checking.ts'
import type { Transaction } from './txn-token.ts'

/** Who calls, as far as it was proven. */
export interface Caller {
  /** How grants may name it, the surest first: a proven SPIFFE ID, `client:SERVER/CLIENT_ID`. */
  readonly names: readonly string[]
  readonly spiffeId: SpiffeId | undefined
  readonly clientId: string | undefined
  readonly subject: string | undefined
  /** Who acts for the subject, the newest first (RFC 8693 s.4.1). */
  readonly actors: readonly string[]
  readonly scopes: readonly string[]
}

const TEXT_LIMIT = 2_048
const ACTORS_LIMIT = 16

/** Throws token_malformed when the token names its caller in a way that cannot be read. */
export function callerOf(checking: Checking, token: AccessToken | undefined, binding: Binding): Caller {
  const spiffeId = binding.spiffeId ?? checking.channel.spiffeId
  const said = token ? saidBy(token) : NOTHING_SAID
  if (spiffeId === undefined) return said
  const { actors, clientId, names, scopes, subject = spiffeId } = said
  return { names: [spiffeId, ...names], spiffeId, clientId, subject, actors, scopes }
}

const NOTHING_SAID: Caller = {
  names: [],
  spiffeId: undefined,
  clientId: undefined,
  subject: undefined,
  actors: [],
  scopes: [],
}

/** Whom the token names. */
const saidBy = perToken((token): Caller => {
  const { claims } = token
  const subject = textIn(claims, 'sub')
  const client = clientNameOf(token)
  return {
    names: client === undefined ? [] : [client],
    spiffeId: undefined,
    clientId: clientIdIn(claims),
    subject,
    actors: actorsIn(claims),
    scopes: scopesIn(claims),
  }
})

/** How grants name the client of `token`: `client:SERVER/CLIENT_ID`. Throws token_malformed. */
export const clientNameOf = perToken(({ claims, server }): string | undefined => {
  const clientId = clientIdIn(claims)
  return clientId === undefined ? undefined : `client:${server.name ?? server.issuer}/${clientId}`
})

function clientIdIn(claims: Claims): string | undefined {
  return textIn(claims, 'client_id') ?? textIn(claims, 'azp') ?? textIn(claims, 'sub')
}

/** Who sent a request, and what came along. */
export interface Sent {
  readonly caller: Caller
  readonly token: AccessToken | undefined
  readonly transaction: Transaction | undefined
}

/** The place of the grant that expects the request. Throws caller_unexpected, scope_missing, policy_denied. */
export function checkExpected(checking: Checking, sent: Sent): string {
  const { caller } = sent
  const { identity, inbound, path } = checking
  const { route, method } = inbound
  if (!route.application)
    throw new Fault(
      'route_unknown',
      `no application policy file says anything about the route ${route.name}`,
      {
        owner: 'application',
      },
    )
  if (caller.actors.length > identity.actDepth)
    throw new Fault(
      'caller_unexpected',
      `${caller.actors.length} actors stand in between, wanted ${identity.actDepth} at most`,
      {
        owner: 'identity',
      },
    )
  const named = grantsFor(route, caller.names)
  if (named.length === 0) throw new Fault('caller_unexpected')
  const grants = named.filter(
    (grant) => isMatchOfAny(grant.paths, path) && allows(grant, method) && holds(checking, grant, sent),
  )
  if (grants.length === 0)
    throw new Fault(
      'policy_denied',
      `no grant of ${route.name} lets this caller ${methodText(method)} this path`,
    )
  const grant = grants.find(({ scopes }) => scopes.every((scope) => caller.scopes.includes(scope)))
  if (!grant) {
    const missing = grants[0]?.scopes.filter((scope) => !caller.scopes.includes(scope)) ?? []
    throw new Fault('scope_missing', `the token lacks the scope ${missing.join(' ')}`)
  }
  return placeText(grant.place)
}

/** Those for the surest name first. */
function grantsFor(route: Route, [name, ...others]: readonly string[]): readonly RouteGrant[] {
  if (name === undefined) return []
  const first = routeGrantsFor(route, name)
  return others.length === 0 ? first : [...first, ...others.flatMap((other) => routeGrantsFor(route, other))]
}

function allows({ methods }: RouteGrant, method: string): boolean {
  return !isNeverGranted(method) && (methods.includes('*') || methods.includes(method))
}

function holds(
  { inbound, path, now }: Checking,
  { when }: RouteGrant,
  { caller, token, transaction }: Sent,
): boolean {
  if (!when) return true
  const facts = {
    method: inbound.method,
    path,
    host: '',
    spiffe_id: caller.spiffeId ?? '',
    kind: '',
    token: token ? 'full' : 'none',
    selectors: [],
    now,
    subject: caller.subject ?? '',
    actors: caller.actors,
    txn: transaction?.txn ?? textIn(token?.claims ?? {}, 'txn') ?? '',
  }
  return when.evaluate(facts) === true
}

function textIn(claims: Claims, name: string): string | undefined {
  const value = claims[name]
  if (value === undefined) return undefined
  if (typeof value !== 'string' || value === '' || value.length > TEXT_LIMIT)
    throw new Fault('token_malformed', `the token has a ${name} that is no text`, { owner: 'identity' })
  return value
}

function actorsIn(claims: Claims): readonly string[] {
  const actors: string[] = []
  for (let act = claims['act']; act !== undefined; ) {
    if (typeof act !== 'object' || act === null || Array.isArray(act) || actors.length >= ACTORS_LIMIT)
      throw new Fault('token_malformed', 'the token has an act that is none', { owner: 'identity' })
    const members = act as Claims
    actors.push(textIn(members, 'sub') ?? '')
    act = members['act']
  }
  return actors
}

/** RFC 9068 s.2.2.3: one text with blanks; some servers write a list. */
function scopesIn({ scope, scp }: Claims): readonly string[] {
  const stated = scope ?? scp
  if (typeof stated === 'string') return stated.split(' ').filter((one) => one !== '')
  return Array.isArray(stated) ? stated.filter((one) => typeof one === 'string') : []
}

function methodText(method: string): string {
  return /^[A-Z-]{1,32}$/.test(method) ? method : 'use its method at'
}
