/**
 * Keys and signatures of certificates: the algorithms that SVIDs may have, bounds on what a verification costs, and
 * the check itself by node:crypto over the bytes that our reader cut out.
 */
import { constants, createPublicKey, type KeyObject, verify } from 'node:crypto'
import type { Certificate } from './certificate.ts'
import { childrenOf, type Der, expectTag, oidHex, parseDer, smallInteger, TAG, wholeBits } from './der.ts'

type Digest = 'sha256' | 'sha384' | 'sha512'
interface SignatureAlgorithm {
  readonly kind: 'ec' | 'rsa' | 'rsa-pss'
  readonly digest: Digest
}

// OIDs by the hex of their content.
const EC_KEY = '2a8648ce3d0201'
const RSA_KEY = '2a864886f70d010101'
const RSA_PSS = '2a864886f70d01010a'
const MGF1 = '2a864886f70d010108'
/** P-256, P-384, P-521, with the length of an uncompressed point. */
const POINTS: ReadonlyMap<string, number> = new Map([
  ['2a8648ce3d030107', 65],
  ['2b81040022', 97],
  ['2b81040023', 133],
])
const ALGORITHMS: ReadonlyMap<string, SignatureAlgorithm> = new Map<string, SignatureAlgorithm>([
  ['2a8648ce3d040302', { kind: 'ec', digest: 'sha256' }],
  ['2a8648ce3d040303', { kind: 'ec', digest: 'sha384' }],
  ['2a8648ce3d040304', { kind: 'ec', digest: 'sha512' }],
  ['2a864886f70d01010b', { kind: 'rsa', digest: 'sha256' }],
  ['2a864886f70d01010c', { kind: 'rsa', digest: 'sha384' }],
  ['2a864886f70d01010d', { kind: 'rsa', digest: 'sha512' }],
])
const DIGESTS: ReadonlyMap<string, Digest> = new Map<string, Digest>([
  ['608648016503040201', 'sha256'],
  ['608648016503040202', 'sha384'],
  ['608648016503040203', 'sha512'],
])
/** A modulus over the bound, or a large exponent, makes one verification cost milliseconds (threats row 10). */
const RSA = { leastBits: 2048, mostBits: 8192, exponentBytes: 4 }

/** The public key of `certificate`; undefined when it is not P-256, P-384, P-521 or RSA of 2048 to 8192 bits. */
export function publicKeyOf(certificate: Certificate): KeyObject | undefined {
  const { spki } = certificate
  const [algorithm, bits, ...rest] = spki.children
  if (rest.length > 0) return undefined
  const [type, parameters, ...others] = childrenOf(algorithm, TAG.sequence, 'key algorithm')
  const id = oidHex(type, 'key algorithm')
  const key = wholeBits(bits, 'public key')
  const isUsable =
    id === EC_KEY ? isPoint(parameters, key) : id === RSA_KEY && isNull(parameters) && isRsaKey(key)
  if (!isUsable || others.length > 0) return undefined
  try {
    return createPublicKey({ key: spki.bytes, format: 'der', type: 'spki' })
  } catch {
    // A point that is not on its curve.
    return undefined
  }
}

const UNCOMPRESSED = 0x04

function isPoint(curve: Der | undefined, key: Buffer): boolean {
  return key[0] === UNCOMPRESSED && key.length === POINTS.get(oidHex(curve, 'curve'))
}

function isRsaKey(key: Buffer): boolean {
  const [modulus, exponent, ...rest] = childrenOf(parseDer(key), TAG.sequence, 'public key')
  const n = expectTag(modulus, TAG.integer, 'modulus').content
  const e = expectTag(exponent, TAG.integer, 'exponent').content
  const [first = 0, second = 0] = n
  // A sign byte stands before a modulus whose top bit is set.
  const bits = first === 0 ? (n.length - 2) * 8 + bitLength(second) : (n.length - 1) * 8 + bitLength(first)
  const isOdd = ((e.at(-1) ?? 0) & 1) === 1
  return (
    rest.length === 0 &&
    first < 0x80 &&
    bits >= RSA.leastBits &&
    bits <= RSA.mostBits &&
    e.length <= RSA.exponentBytes &&
    isOdd &&
    smallInteger(exponent, 'exponent') > 1
  )
}

function bitLength(byte: number): number {
  return 32 - Math.clz32(byte)
}

function isNull(value: Der | undefined): boolean {
  return value?.tag === TAG.null
}

/** Whether `key` made the signature of `certificate`, by an algorithm that SVIDs may have. */
export function isSignedBy(certificate: Certificate, key: KeyObject): boolean {
  const { tbs, signature, signatureAlgorithm } = certificate
  const algorithm = algorithmOf(signatureAlgorithm)
  if (!algorithm) return false
  const { kind, digest } = algorithm
  if (key.asymmetricKeyType !== (kind === 'ec' ? 'ec' : 'rsa')) return false
  if (kind !== 'rsa-pss') return verify(digest, tbs, key, signature)
  const saltLength = SALT_BYTES[digest]
  return verify(digest, tbs, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }, signature)
}

const SALT_BYTES: Readonly<Record<Digest, number>> = { sha256: 32, sha384: 48, sha512: 64 }

/** The algorithm of an AlgorithmIdentifier; undefined for every other, SHA-1 first. */
function algorithmOf(identifier: Der): SignatureAlgorithm | undefined {
  const [type, parameters, ...rest] = childrenOf(identifier, TAG.sequence, 'signature algorithm')
  const id = oidHex(type, 'signature algorithm')
  if (rest.length > 0) return undefined
  if (id === RSA_PSS) return pssOf(parameters)
  const algorithm = ALGORITHMS.get(id)
  // RFC 5758 s.3.2: absent for EC; RFC 4055 s.5: NULL for RSA, and absence is accepted.
  const isFit = parameters === undefined || (algorithm?.kind === 'rsa' && isNull(parameters))
  return isFit ? algorithm : undefined
}

/** RFC 4055 s.3.1: one digest for both uses, a salt as long as it (RFC 7518 s.3.5), the trailer left out. */
function pssOf(parameters: Der | undefined): SignatureAlgorithm | undefined {
  const [hash, mask, salt, ...rest] = childrenOf(parameters, TAG.sequence, 'PSS parameters')
  const digest = digestOf(childrenOf(hash, 0xa0, 'PSS digest')[0])
  const [maskType, maskDigest] = childrenOf(childrenOf(mask, 0xa1, 'PSS mask')[0], TAG.sequence, 'PSS mask')
  const isMgf1 = oidHex(maskType, 'PSS mask') === MGF1 && digestOf(maskDigest) === digest
  const saltLength = smallInteger(childrenOf(salt, 0xa2, 'PSS salt')[0], 'PSS salt')
  if (!digest || !isMgf1 || rest.length > 0 || saltLength !== SALT_BYTES[digest]) return undefined
  return { kind: 'rsa-pss', digest }
}

function digestOf(identifier: Der | undefined): Digest | undefined {
  const [type, parameters, ...rest] = childrenOf(identifier, TAG.sequence, 'digest')
  const isFit = rest.length === 0 && (parameters === undefined || isNull(parameters))
  return isFit ? DIGESTS.get(oidHex(type, 'digest')) : undefined
}
