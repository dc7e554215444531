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
  /** The claims of a token that is active, and came to `route`; undefined for one that is not. Throws issuer_unavailable. */
  ask(server: Server, token: string, route: string): Promise<Claims | undefined>
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
  /** What was read of it before, by `perToken`. */
  readonly read: unknown[]
}

/** Signatures that were verified before, by the hash of the token. */
export interface KnownTokens {
  get(ath: string): AccessToken | undefined
  set(ath: string, known: AccessToken): void
}

let readers = 0

/** `read`, once a token: most come with many requests, and what they say stays. A WeakMap would cost each collection. */
export function perToken<T>(read: (token: AccessToken) => T): (token: AccessToken) => T {
  const at = readers
  readers += 1
  return (token) => {
    const known = token.read[at] as T | undefined
    if (known !== undefined) return known
    const made = read(token)
    token.read[at] = made
    return made
  }
}

export interface TokenCheck {
  /** Its name. */
  readonly route: string
  readonly identity: RouteIdentity
  readonly ath: string
  readonly now: Seconds
  readonly skew: Seconds
  /** Hears token_too_long, which is policy's word and no fault of the token. */
  readonly unmet: Unmet
}

const TYPES: ReadonlySet<unknown> = new Set(['at+jwt', 'application/at+jwt', 'jwt', undefined])
const KID_LIMIT = 512
/** Longer ones are verified each time: some thousands of them would fill the memory. */
const KNOWN_LIMIT = 8 * 1024
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
export function checkAccessToken(
  sources: TokenSources,
  token: string,
  check: TokenCheck,
): AccessToken | Promise<AccessToken> {
  // At once where nothing has to be waited for: promises of their own cost a known token a tenth of its check.
  const known = sources.known.get(check.ath)
  if (known) return judge(sources, token, known, check)
  return verifyToken(sources, token, check).then((verified) => judge(sources, token, verified, check))
}

function judge(
  sources: TokenSources,
  token: string,
  known: AccessToken,
  check: TokenCheck,
): AccessToken | Promise<AccessToken> {
  const { server, claims } = known
  if (!isListed(server, check.identity)) throw new Fault('token_issuer')
  checkClaims(known, check)
  const judging = sources.statuses.check(server, claims, check.identity.status)
  if (!judging && !check.identity.introspects) return known
  return stillActive(sources, token, known, check, judging)
}

async function stillActive(
  { introspection }: TokenSources,
  token: string,
  known: AccessToken,
  { identity, route }: TokenCheck,
  judging: void | Promise<void>,
): Promise<AccessToken> {
  await judging
  if (identity.introspects && !(await introspection?.ask(known.server, token, route)))
    throw new Fault('token_inactive')
  return known
}

function isListed(server: Server, { servers }: RouteIdentity): boolean {
  for (const { issuer } of servers) if (issuer === server.issuer) return true
  return false
}

async function verifyToken(sources: TokenSources, token: string, check: TokenCheck): Promise<AccessToken> {
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
  const known = accessToken(server, jws.payload)
  if (token.length <= KNOWN_LIMIT) sources.known.set(check.ath, known)
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
async function introspected(sources: TokenSources, token: string, check: TokenCheck): Promise<AccessToken> {
  if (!sources.introspection || !check.identity.introspects) throw malformed('it is not a compact JWS')
  for (const server of check.identity.servers) {
    const claims = await sources.introspection.ask(server, token, check.route)
    if (claims) return accessToken(server, claims)
  }
  throw new Fault('token_inactive')
}

function accessToken(server: Server, claims: Claims): AccessToken {
  const { exp } = claims
  if (!isDate(exp)) throw malformed('it has no usable exp')
  return { server, claims, expires: exp, read: [] }
}

function checkClaims(
  { claims, expires: exp }: AccessToken,
  { identity, now, skew, unmet }: TokenCheck,
): void {
  const { iat, nbf, aud } = claims
  if (exp <= now - skew)
    throw new Fault('token_expired', `the token expired ${Math.ceil(now - exp)} s ago`, { owner: 'caller' })
  checkBegin('nbf', nbf, now, skew)
  checkBegin('iat', iat, now, skew)
  const life = lifeOf(iat, exp, now)
  if (life > identity.maxTtl) unmet(tooLong(life, identity.maxTtl))
  if (!isFor(aud, identity.audience)) throw new Fault('token_audience')
}

/** From `iat` to `exp`; of a token that does not say when it was issued, what is left of it. */
export function lifeOf(iat: unknown, exp: Seconds, now: Seconds): Seconds {
  return exp - (isDate(iat) ? iat : now)
}

export function tooLong(life: Seconds, limit: Seconds): Fault {
  return new Fault('token_too_long', `the token lives ${Math.ceil(life)} s, over ${limit} s`)
}

export function checkBegin(name: string, value: unknown, now: Seconds, skew: Seconds): void {
  if (value === undefined) return
  if (!isDate(value)) throw malformed(`its ${name} is not a date`)
  if (value > now + skew) throw malformed(`its ${name} is ${Math.ceil(value - now)} s ahead`)
}

function isFor(aud: unknown, wanted: readonly string[]): boolean {
  if (typeof aud === 'string') return wanted.includes(aud)
  return Array.isArray(aud) && aud.some((one) => typeof one === 'string' && wanted.includes(one))
}

export function isDate(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 && value <= LAST_DATE
}

function malformed(what: string): Fault {
  return new Fault('token_malformed', `the token is not one: ${what}`, { owner: 'caller' })
}
