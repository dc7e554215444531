/** JWT-SVIDs (JWT-SVID.md): made, and verified in full for exactly one audience. */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { BundleOf } from './bundle.ts'
import { parseWorkloadId, type SpiffeId, trustDomainOf } from './id.ts'
import { isJwsAlg, type Jws, type JwsAlg, type JwsSigner, makeJws, parseJws, verifyJws } from './jws.ts'

export interface JwtSvidClaims {
  readonly spiffeId: SpiffeId
  readonly audience: readonly string[]
  readonly now: Seconds
  readonly expires: Seconds
  readonly kid: string
  /** For OIDC verifiers (JWT-SVID.md s.3 leaves `iss` to the issuer). */
  readonly issuer?: string | undefined
}

/** A verified JWT-SVID. */
export interface JwtSvid {
  readonly spiffeId: SpiffeId
  readonly audience: readonly string[]
  readonly expires: Seconds
  readonly claims: Readonly<Record<string, unknown>>
}

const LEEWAY: Seconds = 5
const HEADER_MEMBERS: ReadonlySet<string> = new Set(['alg', 'kid', 'typ'])
// RFC 7519 s.2: a NumericDate may have fractions; beyond this it is no date.
const LAST_DATE = 253_402_300_799

/** Signs a JWT-SVID; `aud` is always an array, as clients have come to rely on. */
export function makeJwtSvid(claims: JwtSvidClaims, signer: JwsSigner): string {
  const header = { alg: signer.alg, kid: claims.kid, typ: 'JWT' }
  const { spiffeId, audience, now, expires, issuer } = claims
  return makeJws(header, { sub: spiffeId, aud: audience, exp: expires, iat: now, iss: issuer }, signer)
}

/**
 * Verifies `token` for one of `audience` with the bundle of its subject's trust domain. Throws svid_invalid, svid_expired,
 * svid_audience, bundle_missing, spiffe_id_invalid.
 */
export function verifyJwtSvid(
  token: string,
  audience: string | readonly string[],
  bundleOf: BundleOf,
  now: Seconds,
): JwtSvid {
  const jws = parseJws(token)
  if (!jws) throw invalid('it is not a compact JWS')
  const alg = checkHeader(jws.header)
  const spiffeId = subjectOf(jws.payload)
  checkSignature(jws, alg, spiffeId, bundleOf)
  const expires = checkTimes(jws.payload, now, ['nbf', 'iat'])
  return { spiffeId, audience: checkAudience(jws.payload['aud'], audience), expires, claims: jws.payload }
}

function checkHeader(header: Readonly<Record<string, unknown>>): JwsAlg {
  const { alg, typ, kid } = header
  if (!isJwsAlg(alg)) throw invalid('its alg is not one of RS, ES or PS with 256, 384 or 512')
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') throw invalid('its typ is neither JWT nor JOSE')
  if (typeof kid !== 'string' || kid === '') throw invalid('it has no kid')
  if (!Object.keys(header).every((name) => HEADER_MEMBERS.has(name)))
    throw invalid('its header has members beside alg, kid and typ')
  return alg
}

function subjectOf(payload: Readonly<Record<string, unknown>>): SpiffeId {
  const { sub } = payload
  if (typeof sub !== 'string') throw invalid('it has no sub')
  return parseWorkloadId(sub)
}

function checkSignature(jws: Jws, alg: JwsAlg, spiffeId: SpiffeId, bundleOf: BundleOf): void {
  const bundle = bundleOf(trustDomainOf(spiffeId))
  if (!bundle) throw new Fault('bundle_missing', `no bundle for the trust domain ${trustDomainOf(spiffeId)}`)
  const authority = bundle.jwtAuthorities.get(String(jws.header['kid']))
  if (!authority) throw invalid('its kid is not in the bundle of its trust domain')
  if (!verifyJws(jws, authority.key, alg)) throw invalid('its signature is wrong')
}

/** The `exp` of claims that are in force now; `starts` names those that must not be in the future. */
export function checkTimes(
  payload: Readonly<Record<string, unknown>>,
  now: Seconds,
  starts: readonly ('nbf' | 'iat')[],
): Seconds {
  const { exp, nbf, iat } = payload
  if (!isDate(exp)) throw invalid('it has no usable exp')
  if (exp <= now - LEEWAY) throw new Fault('svid_expired', `the SVID expired ${Math.ceil(now - exp)} s ago`)
  for (const [name, value] of Object.entries({ nbf, iat })) {
    if (value === undefined) continue
    if (!isDate(value)) throw invalid(`its ${name} is not a date`)
    if (starts.some((start) => start === name) && value > now + LEEWAY)
      throw invalid(`its ${name} is ${Math.ceil(value - now)} s in the future`)
  }
  return exp
}

function isDate(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 && value <= LAST_DATE
}

function checkAudience(aud: unknown, wanted: string | readonly string[]): readonly string[] {
  const names = typeof wanted === 'string' ? [wanted] : wanted
  const list: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  if (list.length === 0 || !list.every((value) => typeof value === 'string' && value !== ''))
    throw invalid('it has no usable aud')
  if (!names.some((name) => list.includes(name)))
    throw new Fault('svid_audience', `the JWT-SVID is not for ${JSON.stringify(names[0]?.slice(0, 128))}`)
  return list as readonly string[]
}

export function invalid(what: string): Fault {
  return new Fault('svid_invalid', `the SVID does not verify: ${what}`)
}
