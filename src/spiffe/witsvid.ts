/** WIT-SVIDs (WIT-SVID.md, incubating, spiffe/spiffe#362): an identity token that is worth nothing without its key. */
import type { KeyObject } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { BundleOf } from './bundle.ts'
import { parseWorkloadId, type SpiffeId, trustDomainOf } from './id.ts'
import { importPublicJwk, type PublicJwk, publicJwkOf } from './jwk.ts'
import { isFit, isJwsAlg, type JwsAlg, type JwsSigner, makeJws, parseJws, verifyJws } from './jws.ts'
import { checkTimes, invalid } from './jwtsvid.ts'

export interface WitSvidClaims {
  readonly spiffeId: SpiffeId
  readonly publicJwk: PublicJwk
  /** What the holder's key signs with; proofs must use exactly it. */
  readonly jwkAlg: string
  readonly now: Seconds
  readonly expires: Seconds
  readonly kid: string
}

/** A verified WIT-SVID; its `key` must still be proven. */
export interface WitSvid {
  readonly spiffeId: SpiffeId
  readonly key: KeyObject
  readonly jwk: PublicJwk
  readonly alg: JwsAlg
  readonly expires: Seconds
}

/** Signs a WIT-SVID; it has no `aud` and no `iss`. */
export function makeWitSvid(claims: WitSvidClaims, signer: JwsSigner): string {
  const { spiffeId, publicJwk, jwkAlg, now, expires, kid } = claims
  const payload = { sub: spiffeId, exp: expires, iat: now, cnf: { jwk: { ...publicJwk, alg: jwkAlg } } }
  return makeJws({ alg: signer.alg, kid, typ: 'wit+jwt' }, payload, signer)
}

/** Verifies the token alone; throws svid_invalid, svid_expired, bundle_missing, spiffe_id_invalid. */
export function verifyWitSvid(token: string, bundleOf: BundleOf, now: Seconds): WitSvid {
  const jws = parseJws(token)
  if (!jws) throw invalid('it is not a compact JWS')
  const { alg, typ, kid } = jws.header
  const { sub, aud, cnf } = jws.payload
  if (!isJwsAlg(alg) || typ !== 'wit+jwt' || typeof kid !== 'string' || kid === '')
    throw invalid('its header is not that of a WIT-SVID')
  if ('crit' in jws.header) throw invalid('its header names critical extensions')
  if (aud !== undefined) throw invalid('a WIT-SVID must not have an aud')
  if (typeof sub !== 'string') throw invalid('it has no sub')
  const spiffeId = parseWorkloadId(sub)
  const bundle = bundleOf(trustDomainOf(spiffeId))
  if (!bundle) throw new Fault('bundle_missing', `no bundle for the trust domain ${trustDomainOf(spiffeId)}`)
  const authority = bundle.witAuthorities.get(kid)
  if (!authority) throw invalid('its kid is not in the bundle of its trust domain')
  if (!verifyJws(jws, authority.key, alg)) throw invalid('its signature is wrong')
  // WIT-SVID.md s.3: `iat` is no lower bound.
  return { spiffeId, ...confirmationOf(cnf), expires: checkTimes(jws.payload, now, ['nbf']) }
}

/** RFC 7800 s.3.1: one key only. */
const OTHER_KEYS = ['jwe', 'jku']

function confirmationOf(cnf: unknown): { key: KeyObject; jwk: PublicJwk; alg: JwsAlg } {
  const jwk = isMembers(cnf) && !OTHER_KEYS.some((name) => name in cnf) ? cnf['jwk'] : undefined
  if (!isMembers(jwk)) throw invalid('it has no cnf with one jwk')
  const { alg } = jwk
  if (!isJwsAlg(alg)) throw invalid('its cnf.jwk has no usable alg')
  const key = importPublicJwk(jwk)
  if (!key || !isFit(key, alg)) throw invalid('its cnf.jwk is not a public key of its alg')
  return { key, jwk: publicJwkOf(key), alg }
}

function isMembers(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
