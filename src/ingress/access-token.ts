/** Access tokens of listed servers, checked: RFC 9068 and what it asks of RFC 7519, or what the server says (RFC 7662). */
import type { KeyObject } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Server } from '../policy/grant.ts'
import type { RouteIdentity } from '../policy/route.ts'
import { isJwsAlg, type Jws, type JwsAlg, parseJws, verifyJws } from '../spiffe/jws.ts'
import type { Unmet } from './checking.ts'

/** Keys that servers sign tokens with. */
export interface TokenKeys {
  /**
   * The key of `kid` at `server`; at once when it is known, undefined when the server has no such key. Throws
   * verifier_keys when none can be had and the last known ones are too old.
   */
  find(server: Server, kid: string): KeyObject | undefined | Promise<KeyObject | undefined>
}

/** Asks servers about tokens. */
export interface Introspection {
  /** The claims of a token that is active; undefined for one that is not. Throws issuer_unavailable. */
  ask(server: Server, token: string): Promise<Claims | undefined>
}

/** What issuers say of single tokens after they were issued (draft-ietf-oauth-status-list). */
export interface Statuses {
  /** At once when the list is known. Throws token_status, token_revoked, status_unavailable. */
  check(server: Server, claims: Claims, rule: RouteIdentity['status']): void | Promise<void>
}

export type Claims = Readonly<Record<string, unknown>>

/** A token that its server issued and that is in force, for this audience. Whom it binds is still to be proven. */
export interface AccessToken {
  readonly server: Server
  readonly claims: Claims
  readonly expires: Seconds
}

/** Signatures that were verified before, by the hash of the token. */
export interface KnownTokens {
  get(ath: string): Known | undefined
  set(ath: string, known: Known): void
}

export interface Known {
  readonly server: Server
  readonly claims: Claims
}

export interface TokenCheck {
  readonly identity: RouteIdentity
  readonly ath: string
  readonly now: Seconds
  readonly skew: Seconds
  /** Hears token_too_long, which is policy's word and no fault of the token. */
  readonly unmet: Unmet
}

const TYPES: ReadonlySet<unknown> = new Set(['at+jwt', 'application/at+jwt', 'jwt', undefined])
const KID_LIMIT = 512
// RFC 7519 s.2: beyond this it is no date.
const LAST_DATE = 253_402_300_799

export interface TokenSources {
  readonly keys: TokenKeys
  readonly introspection: Introspection | undefined
  readonly statuses: Statuses
  readonly known: KnownTokens
}

/**
 * Checks `token` for the route of `check`. Throws token_malformed, token_issuer, token_forged, token_audience,
 * token_expired, token_too_long, token_status, token_revoked, status_unavailable, token_inactive, verifier_keys,
 * issuer_unavailable.
 */
export async function checkAccessToken(
  sources: TokenSources,
  token: string,
  check: TokenCheck,
): Promise<AccessToken> {
  const known = sources.known.get(check.ath) ?? (await verifyToken(sources, token, check))
  if (!check.identity.servers.some(({ issuer }) => issuer === known.server.issuer))
    throw new Fault('token_issuer')
  const { server, claims } = known
  const expires = checkClaims(claims, check)
  const judging = sources.statuses.check(server, claims, check.identity.status)
  if (judging) await judging
  if (!check.identity.introspects) return { server, claims, expires }
  if (!(await sources.introspection?.ask(server, token))) throw new Fault('token_inactive')
  return { server, claims, expires }
}

async function verifyToken(sources: TokenSources, token: string, check: TokenCheck): Promise<Known> {
  const jws = parseJws(token)
  if (!jws) return introspected(sources, token, check)
  const alg = algOf(jws)
  const server = check.identity.servers.find(({ issuer }) => issuer === jws.payload['iss'])
  if (!server) throw new Fault('token_issuer')
  const { kid } = jws.header
  if (typeof kid !== 'string' || kid === '' || kid.length > KID_LIMIT) throw malformed('it names no key')
  const found = sources.keys.find(server, kid)
  const key = found instanceof Promise ? await found : found
  if (!key || !verifyJws(jws, key, alg)) throw new Fault('token_forged')
  const known = { server, claims: jws.payload }
  sources.known.set(check.ath, known)
  return known
}

function algOf({ header }: Jws): JwsAlg {
  const { alg, typ, crit } = header
  if (!TYPES.has(typeof typ === 'string' ? typ.toLowerCase() : typ))
    throw malformed('its typ is not that of a token')
  if (crit !== undefined) throw malformed('its header names critical extensions')
  if (!isJwsAlg(alg)) throw malformed('its alg is none that is taken')
  return alg
}

/** An opaque token says nothing of itself: each listed server that can be asked is asked. */
async function introspected(sources: TokenSources, token: string, check: TokenCheck): Promise<Known> {
  if (!sources.introspection || !check.identity.introspects) throw malformed('it is not a compact JWS')
  for (const server of check.identity.servers) {
    const claims = await sources.introspection.ask(server, token)
    if (claims) return { server, claims }
  }
  throw new Fault('token_inactive')
}

function checkClaims(claims: Claims, { identity, now, skew, unmet }: TokenCheck): Seconds {
  const { exp, iat, nbf, aud } = claims
  if (!isDate(exp)) throw malformed('it has no usable exp')
  if (exp <= now - skew)
    throw new Fault('token_expired', `the token expired ${Math.ceil(now - exp)} s ago`, { owner: 'caller' })
  for (const [name, value] of [
    ['nbf', nbf],
    ['iat', iat],
  ] as const) {
    if (value === undefined) continue
    if (!isDate(value)) throw malformed(`its ${name} is not a date`)
    if (value > now + skew) throw malformed(`its ${name} is ${Math.ceil(value - now)} s ahead`)
  }
  const life = exp - (isDate(iat) ? iat : now)
  if (life > identity.maxTtl)
    unmet(new Fault('token_too_long', `the token lives ${Math.ceil(life)} s, over ${identity.maxTtl} s`))
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  if (!audiences.some((one) => typeof one === 'string' && identity.audience.includes(one)))
    throw new Fault('token_audience')
  return exp
}

function isDate(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 && value <= LAST_DATE
}

function malformed(what: string): Fault {
  return new Fault('token_malformed', `the token is not one: ${what}`, { owner: 'caller' })
}
