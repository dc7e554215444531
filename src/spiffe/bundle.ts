/** Trust bundles (SPIFFE_Trust_Domain_and_Bundle.md s.4): what a trust domain's SVIDs are verified with. */
import { createPublicKey, type KeyObject, X509Certificate } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { TrustDomain } from './id.ts'
import { type PublicJwk, publicJwkOf } from './jwk.ts'

/** A key that verifies tokens. */
export interface KeyAuthority {
  readonly key: KeyObject
  readonly jwk: PublicJwk
}

/** One trust domain's authorities; keys by `kid`. An empty collection means that nothing of its kind is trusted. */
export interface Bundle {
  readonly trustDomain: TrustDomain
  /** CA certificates in DER. */
  readonly x509Authorities: readonly Buffer[]
  readonly jwtAuthorities: ReadonlyMap<string, KeyAuthority>
  readonly witAuthorities: ReadonlyMap<string, KeyAuthority>
  /** Grows with every change of content. */
  readonly sequence: bigint
  readonly refreshHintSeconds: number
}

const DEFAULT_REFRESH_SECONDS = 300
const BUNDLE_LIMITS = { maxBytes: 4 * 1024 * 1024, maxDepth: 8 }
const KEYS_LIMIT = 1_000

/** The SPIFFE bundle document (RFC 7517 JWK Set with `use` and `x5c`). */
export function formatBundle(bundle: Bundle): string {
  return JSON.stringify({
    spiffe_sequence: Number(bundle.sequence),
    spiffe_refresh_hint: bundle.refreshHintSeconds,
    keys: [
      ...bundle.x509Authorities.map(formatX509),
      ...formatKeys(bundle.jwtAuthorities, 'jwt-svid'),
      ...formatKeys(bundle.witAuthorities, 'wit-svid'),
    ],
  })
}

/** The JWK Set of FetchJWTBundles: JWT keys only, without `use`, which generic JOSE libraries read as RFC 7517's. */
export function formatJwtBundle(bundle: Bundle): string {
  return JSON.stringify({ keys: [...bundle.jwtAuthorities].map(([kid, { jwk }]) => ({ kid, ...jwk })) })
}

/** The JWK Set of FetchWITBundles: WIT keys only. */
export function formatWitBundle(bundle: Bundle): string {
  return JSON.stringify({ keys: formatKeys(bundle.witAuthorities, 'wit-svid') })
}

function formatX509(der: Buffer): object {
  const jwk = publicJwkOf(new X509Certificate(der).publicKey)
  return { ...jwk, use: 'x509-svid', x5c: [der.toString('base64')] }
}

function formatKeys(keys: ReadonlyMap<string, KeyAuthority>, use: string): readonly object[] {
  return [...keys].map(([kid, { jwk }]) => ({ ...jwk, use, kid }))
}

type Members = Readonly<Record<string, unknown>>

/** Reads a bundle document; keys of unknown kinds are skipped, as the standard wants. Throws bundle_missing. */
export function parseBundle(text: string, trustDomain: TrustDomain): Bundle {
  const document = parseJsonObject(text, BUNDLE_LIMITS)
  const {
    keys,
    spiffe_sequence: sequence = 0,
    spiffe_refresh_hint: hint = DEFAULT_REFRESH_SECONDS,
  } = document
  if (!Array.isArray(keys)) throw malformed('`keys` is not an array')
  if (keys.length > KEYS_LIMIT) throw malformed(`over ${KEYS_LIMIT} keys`)
  if (!Number.isSafeInteger(sequence)) throw malformed('`spiffe_sequence` is not an integer below 2^53')
  if (!Number.isSafeInteger(hint)) throw malformed('`spiffe_refresh_hint` is not an integer')
  const jwks = keys.filter(isMembers)
  return {
    trustDomain,
    x509Authorities: jwks.flatMap(x509Of),
    jwtAuthorities: new Map(jwks.flatMap((jwk) => keyOf(jwk, 'jwt-svid'))),
    witAuthorities: new Map(jwks.flatMap((jwk) => keyOf(jwk, 'wit-svid'))),
    sequence: BigInt(sequence as number),
    refreshHintSeconds: hint as number,
  }
}

function isMembers(key: unknown): key is Members {
  return typeof key === 'object' && key !== null && !Array.isArray(key)
}

function x509Of(jwk: Members): readonly Buffer[] {
  const chain = jwk['x5c']
  const first: unknown = Array.isArray(chain) ? chain[0] : undefined
  return jwk['use'] === 'x509-svid' && typeof first === 'string' && first !== ''
    ? [Buffer.from(first, 'base64')]
    : []
}

function keyOf(jwk: Members, use: string): readonly (readonly [string, KeyAuthority])[] {
  const { kid, kty } = jwk
  if (jwk['use'] !== use || typeof kid !== 'string' || kid === '' || (kty !== 'EC' && kty !== 'RSA'))
    return []
  try {
    const key = createPublicKey({ key: jwk, format: 'jwk' })
    return [[kid, { key, jwk: publicJwkOf(key) }]]
  } catch {
    return []
  }
}

function malformed(what: string): Fault {
  return new Fault('bundle_missing', `the bundle cannot be used: ${what}`)
}
