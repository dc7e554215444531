/** Trust bundles (SPIFFE_Trust_Domain_and_Bundle.md s.4): what a trust domain's SVIDs are verified with. */
import type { KeyObject } from 'node:crypto'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { parseCertificate } from './certificate.ts'
import { publicKeyOf } from './certificate-key.ts'
import type { TrustDomain } from './id.ts'
import { importPublicJwk, type PublicJwk, publicJwkOf } from './jwk.ts'

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

/** Finds the bundle that a trust domain's SVIDs are verified with; undefined when it is not trusted at all. */
export type BundleOf = (trustDomain: TrustDomain) => Bundle | undefined

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
  const key = publicKeyOf(parseCertificate(der))
  if (!key) throw new Fault('certificate_malformed', 'the key of an authority is neither EC nor RSA')
  return { ...publicJwkOf(key), use: 'x509-svid', x5c: [der.toString('base64')] }
}

function formatKeys(keys: ReadonlyMap<string, KeyAuthority>, use: string): readonly object[] {
  return [...keys].map(([kid, { jwk }]) => ({ ...jwk, use, kid }))
}

type Members = Readonly<Record<string, unknown>>

/**
 * Reads a bundle document. Keys of unknown kinds and those that cannot be used are skipped, as the standard wants; a
 * document that contradicts itself is refused whole. Throws bundle_missing.
 */
export function parseBundle(text: string, trustDomain: TrustDomain): Bundle {
  const { keys, spiffe_sequence: sequence = 0, spiffe_refresh_hint: hint = 0 } = parseDocument(text)
  if (!Array.isArray(keys)) throw malformed('`keys` is not an array')
  if (keys.length > KEYS_LIMIT) throw malformed(`over ${KEYS_LIMIT} keys`)
  if (!isCount(sequence)) throw malformed('`spiffe_sequence` is not an integer from 0 to 2^53 - 1')
  if (!isCount(hint)) throw malformed('`spiffe_refresh_hint` is not an integer from 0')
  const jwks = keys.filter(isMembers)
  refuseTwins(jwks)
  return {
    trustDomain,
    x509Authorities: jwks.flatMap(x509Of),
    jwtAuthorities: new Map(jwks.flatMap((jwk) => keyOf(jwk, 'jwt-svid'))),
    witAuthorities: new Map(jwks.flatMap((jwk) => keyOf(jwk, 'wit-svid'))),
    sequence: BigInt(sequence),
    refreshHintSeconds: hint || DEFAULT_REFRESH_SECONDS,
  }
}

function parseDocument(text: string): Members {
  try {
    return parseJsonObject(text, BUNDLE_LIMITS)
  } catch (error) {
    throw malformed(Fault.from(error).message)
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}

function isMembers(key: unknown): key is Members {
  return typeof key === 'object' && key !== null && !Array.isArray(key)
}

/** WIT-SVID.md s.5: a `kid` is unique across the keys of both token kinds. */
function refuseTwins(jwks: readonly Members[]): void {
  const tokenKeys = jwks.filter(({ use }) => use === 'jwt-svid' || use === 'wit-svid')
  const kids = tokenKeys.map(({ kid }) => kid).filter((kid) => typeof kid === 'string')
  if (new Set(kids).size !== kids.length) throw malformed('two keys have one `kid`')
}

/** X509-SVID.md s.6: only the first of `x5c` counts; standard base64, unlike the rest of a JWK. */
function x509Of(jwk: Members): readonly Buffer[] {
  const chain = jwk['x5c']
  const first: unknown = Array.isArray(chain) ? chain[0] : undefined
  const { use, kty } = jwk
  if (use !== 'x509-svid' || (kty !== 'EC' && kty !== 'RSA') || typeof first !== 'string') return []
  const der = Buffer.from(first, 'base64')
  if (der.toString('base64') !== first) return []
  try {
    return [parseCertificate(der).der]
  } catch {
    return []
  }
}

function keyOf(jwk: Members, use: string): readonly (readonly [string, KeyAuthority])[] {
  const { kid } = jwk
  if (jwk['use'] !== use || typeof kid !== 'string' || kid === '') return []
  const key = importPublicJwk(jwk)
  return key ? [[kid, { key, jwk: publicJwkOf(key) }]] : []
}

function malformed(what: string): Fault {
  return new Fault('bundle_missing', `the bundle cannot be used: ${what}`)
}
