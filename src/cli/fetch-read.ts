/** What the messages of the Workload API hold, as commands show it: public facts, and keys only to be stored. */
import { X509Certificate } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Message } from '../client/grpc.ts'

/** One X.509-SVID; `key` is PKCS#8 DER and leaves only by `--write`. */
export interface FetchedX509 {
  readonly spiffeId: string
  readonly hint: string
  readonly chain: readonly X509Certificate[]
  readonly bundle: readonly X509Certificate[]
  readonly key: Buffer
}

/** A token with the SPIFFE ID it is for: JWT-SVID or WIT-SVID. */
export interface FetchedToken {
  readonly spiffeId: string
  readonly hint: string
  readonly token: string
  /** Of a WIT-SVID: its private JWK, which leaves only by `--write`. */
  readonly key: string
  readonly expires: Seconds | undefined
}

/** The authorities of one trust domain. */
export interface FetchedBundle {
  readonly trustDomain: string
  readonly authorities: readonly X509Certificate[]
  /** JWK Set. */
  readonly jwks: { readonly keys: readonly Readonly<Record<string, unknown>>[] }
}

/** The SVIDs of an X509SVIDResponse; throws svid_invalid when one is not what the standard says. */
export function readX509({ svids }: Message): readonly FetchedX509[] {
  return asList(svids).map((svid) => {
    const { spiffe_id: id, hint, x509_svid: chain, x509_svid_key: key, bundle } = svid
    if (!Buffer.isBuffer(key)) throw unreadable('an X.509-SVID without key')
    return {
      spiffeId: textOf(id),
      hint: textOf(hint),
      chain: certificates(chain),
      bundle: certificates(bundle),
      key,
    }
  })
}

/** The SVIDs of a JWTSVIDResponse or a WITSVIDResponse. */
export function readTokens({ svids }: Message): readonly FetchedToken[] {
  return asList(svids).map((svid) => {
    const token = textOf(svid['svid'] ?? svid['wit_svid'])
    const common = { spiffeId: textOf(svid['spiffe_id']), hint: textOf(svid['hint']) }
    return { ...common, token, key: textOf(svid['wit_svid_key']), expires: expiryOf(token) }
  })
}

/** The bundles of an X509BundlesResponse and a JWTBundlesResponse, by trust domain. */
export function readBundles(x509: Message, jwt: Message): readonly FetchedBundle[] {
  const authorities = asMap(x509['bundles'])
  const keys = asMap(jwt['bundles'])
  const ids = [...new Set([...authorities.keys(), ...keys.keys()])].sort()
  return ids.map((id) => ({
    trustDomain: id.replace(/^spiffe:\/\//, ''),
    authorities: certificates(authorities.get(id) ?? Buffer.alloc(0)),
    jwks: keySetOf(keys.get(id)),
  }))
}

function asList(value: unknown): readonly Message[] {
  return Array.isArray(value) ? value : []
}

function asMap(value: unknown): ReadonlyMap<string, unknown> {
  return new Map(typeof value === 'object' && value !== null ? Object.entries(value) : [])
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function keySetOf(value: unknown): FetchedBundle['jwks'] {
  if (!Buffer.isBuffer(value)) return { keys: [] }
  try {
    const set: unknown = JSON.parse(value.toString('utf8'))
    const keys = typeof set === 'object' && set !== null && 'keys' in set ? set.keys : undefined
    if (Array.isArray(keys)) return { keys }
  } catch {
    // Said below.
  }
  throw unreadable('a JWT bundle')
}

/** RFC 7519 s.4.1.4; read only to be shown, the signature is the verifier's business. */
function expiryOf(token: string): Seconds | undefined {
  try {
    const { exp } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'))
    return typeof exp === 'number' ? exp : undefined
  } catch {
    return undefined
  }
}

const SEQUENCE = 0x30
const LONG_FORM = 0x80

/** Certificates that stand one after the other in DER (SPIFFE Workload API s.5.2). */
export function certificates(value: unknown): readonly X509Certificate[] {
  if (!Buffer.isBuffer(value)) throw unreadable('a certificate')
  const found: X509Certificate[] = []
  for (let rest = value; rest.length > 0; ) {
    const size = sizeOf(rest)
    if (rest[0] !== SEQUENCE) throw unreadable('a certificate')
    found.push(certificateOf(rest.subarray(0, size)))
    rest = rest.subarray(size)
  }
  return found
}

/** Tag, length and content of the DER value that `bytes` begins with (X.690 s.8.1.3). */
function sizeOf(bytes: Buffer): number {
  const first = bytes[1] ?? 0
  if (first < LONG_FORM) return 2 + first
  const count = first - LONG_FORM
  if (count === 0 || count > 3 || bytes.length < 2 + count) throw unreadable('a certificate')
  return 2 + count + bytes.readUIntBE(2, count)
}

function certificateOf(der: Buffer): X509Certificate {
  try {
    return new X509Certificate(der)
  } catch {
    throw unreadable('a certificate')
  }
}

function unreadable(what: string): Fault {
  return new Fault('svid_invalid', `the agent gave ${what} that cannot be read`)
}

/** `notAfter` of a certificate, in seconds. */
export function expires(certificate: X509Certificate): Seconds {
  return Math.floor(Date.parse(certificate.validTo) / 1000)
}
