/** Compact JWS (RFC 7515 s.7.1) as SVIDs use it: parsed strictly, verified with the nine algorithms SPIFFE allows. */
import { constants, type KeyObject, verify } from 'node:crypto'
import { parseJsonObject } from '../base/json.ts'

/** The algorithms of JWT-SVID.md s.2.1; everything else, `none` and HMAC first, is refused. */
export type JwsAlg = 'RS256' | 'RS384' | 'RS512' | 'ES256' | 'ES384' | 'ES512' | 'PS256' | 'PS384' | 'PS512'

/** What signs SVIDs: a key that stays where it is. */
export interface JwsSigner {
  readonly alg: string
  /** The JWS signature of `input` (r||s for EC, RFC 7518 s.3.4). */
  sign(input: Uint8Array): Buffer
}

/** A parsed token. Nothing in it may be believed before `verifyJws`. */
export interface Jws {
  readonly header: Readonly<Record<string, unknown>>
  readonly payload: Readonly<Record<string, unknown>>
  readonly signingInput: string
  readonly signature: Buffer
}

const TOKEN_LIMIT = 64 * 1024
const PART = /^[A-Za-z0-9_-]+$/
// Which characters may be last, by the length modulo 4: bits beyond the last whole byte are 0 (RFC 4648 s.3.5).
const LAST = [undefined, /(?!)/, /[AQgw]$/, /[AEIMQUYcgkosw048]$/]
const RSA = { leastBits: 2048, mostBits: 8192, leastExponent: 3n, mostExponent: 2n ** 32n }
const CURVES: Readonly<Record<string, string>> = {
  ES256: 'prime256v1',
  ES384: 'secp384r1',
  ES512: 'secp521r1',
}
const ALGORITHMS: ReadonlySet<unknown> = new Set([
  'RS256',
  'RS384',
  'RS512',
  'ES256',
  'ES384',
  'ES512',
  'PS256',
  'PS384',
  'PS512',
])

export function isJwsAlg(alg: unknown): alg is JwsAlg {
  return ALGORITHMS.has(alg)
}

/**
 * The parts of a compact JWS of `limit` bytes at most; undefined when it is not one. The text is never quoted: it is a
 * credential. `known` is its header where the very same text was parsed before.
 */
export function parseJws(text: string, limit = TOKEN_LIMIT, known?: Jws['header']): Jws | undefined {
  if (text.length > limit) return undefined
  const first = text.indexOf('.')
  const second = text.indexOf('.', first + 1)
  // A third dot is no character of a part.
  if (first < 0 || second < 0) return undefined
  const signature = decode(text.slice(second + 1))
  const header = known ?? parsePart(text.slice(0, first), limit)
  const payload = parsePart(text.slice(first + 1, second), limit)
  if (!signature || !header || !payload) return undefined
  return { header, payload, signingInput: text.slice(0, second), signature }
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function parsePart(part: string, maxBytes: number): Record<string, unknown> | undefined {
  const bytes = decode(part)
  if (!bytes) return undefined
  try {
    return parseJsonObject(utf8.decode(bytes), { maxBytes, maxDepth: 16 })
  } catch {
    return undefined
  }
}

/** Canonical base64url only: a second spelling of one token would be a second cache and denylist entry. */
function decode(part: string): Buffer | undefined {
  if (!PART.test(part) || LAST[part.length % 4]?.test(part.slice(-1)) === false) return undefined
  return Buffer.from(part, 'base64url')
}

/**
 * What names a token: of a compact JWS all but its signature, since ECDSA takes two for one text (r, s and r, n-s), and
 * whoever holds the token can make the other.
 */
export function nameOfToken(token: string): string {
  const [header, payload, signature, ...more] = token.split('.')
  return signature === undefined || more.length > 0 ? token : `${header}.${payload}`
}

/** Whether the signature is `key`'s by `alg`; false, never a throw, when key and algorithm do not fit. */
export function verifyJws(jws: Jws, key: KeyObject, alg: JwsAlg): boolean {
  return verifyBytes(Buffer.from(jws.signingInput, 'latin1'), jws.signature, key, alg)
}

/** The same for any signed bytes. */
export function verifyBytes(input: Uint8Array, signature: Uint8Array, key: KeyObject, alg: JwsAlg): boolean {
  if (!isFit(key, alg)) return false
  const digest = `sha${alg.slice(2)}`
  if (alg.startsWith('ES')) return verify(digest, input, { key, dsaEncoding: 'ieee-p1363' }, signature)
  if (alg.startsWith('RS')) return verify(digest, input, key, signature)
  const saltLength = Number(alg.slice(2)) / 8
  return verify(digest, input, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }, signature)
}

/** Whether `key` may sign by `alg`; RSA within bounds, so that a verification costs little (threats row 10). */
export function isFit(key: KeyObject, alg: JwsAlg): boolean {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (alg.startsWith('ES')) return type === 'ec' && details?.namedCurve === CURVES[alg]
  const { modulusLength: bits = 0, publicExponent = 0n } = details ?? {}
  // With the exponent 1 the signature is the text itself, which anybody makes; an even one is of no key (RFC 8017 s.3.1).
  const isExponent =
    publicExponent >= RSA.leastExponent && publicExponent <= RSA.mostExponent && publicExponent % 2n === 1n
  return type === 'rsa' && bits >= RSA.leastBits && bits <= RSA.mostBits && isExponent
}

/** Signs `payload` under `header`; the members' order is kept. */
export function makeJws(header: object, payload: object, signer: JwsSigner): string {
  const input = `${encode(header)}.${encode(payload)}`
  return `${input}.${signer.sign(Buffer.from(input, 'latin1')).toString('base64url')}`
}

function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url')
}
