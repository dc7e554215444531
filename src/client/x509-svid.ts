/** An X.509-SVID as the Workload API delivers it (SPIFFE_Workload_API.md s.5.2), in the forms that node:tls takes. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Message } from './grpc.ts'

/** One identity's certificate, its key, and the roots of its trust domain. */
export interface X509Svid {
  readonly spiffeId: string
  /** Leaf first. */
  readonly certificates: readonly X509Certificate[]
  readonly privateKey: KeyObject
  /** The roots that peers of the same trust domain are verified by. */
  readonly bundle: readonly X509Certificate[]
  /** What the operator says this identity is for; empty when nothing. */
  readonly hint: string
  /** Seconds since 1970. */
  readonly expiresAt: Seconds
}

/** Everything one message of the stream says; the first SVID is the default identity. */
export interface X509Context {
  readonly svids: readonly X509Svid[]
  /** Roots by trust domain, those of federated ones included. */
  readonly bundles: ReadonlyMap<string, readonly X509Certificate[]>
}

const CERTIFICATES_LIMIT = 64
const SEQUENCE = 0x30

/** The SVIDs in a message of FetchX509SVID; throws svid_invalid when a mandatory part is missing or wrong. */
export function parseX509Context(message: Message): X509Context {
  const svids = ((message['svids'] ?? []) as readonly Message[]).map(parseSvid)
  if (svids.length === 0) throw new Fault('svid_invalid', 'the message holds no X509-SVID')
  const federated = (message['federated_bundles'] ?? {}) as Readonly<Record<string, unknown>>
  const bundles = new Map(svids.map(({ spiffeId, bundle }) => [trustDomainOf(spiffeId), bundle]))
  for (const [id, roots] of Object.entries(federated))
    bundles.set(trustDomainOf(id), parseCertificates(roots))
  return { svids: withoutRepeatedHints(svids), bundles }
}

/** The trust domain in a SPIFFE ID, or in a trust domain's own name. */
export function trustDomainOf(id: string): string {
  return /^spiffe:\/\/([^/]+)/.exec(id)?.[1] ?? id
}

function parseSvid(svid: Message): X509Svid {
  const spiffeId = String(svid['spiffe_id'] ?? '')
  const certificates = parseCertificates(svid['x509_svid'])
  const [leaf] = certificates
  const privateKey = parseKey(svid['x509_svid_key'])
  if (!leaf?.checkPrivateKey(privateKey)) throw new Fault('svid_invalid', 'the key is not of the certificate')
  if (!(leaf.subjectAltName ?? '').split(', ').includes(`URI:${spiffeId}`))
    throw new Fault('svid_invalid', 'the certificate is not of the SPIFFE ID that came with it')
  return {
    spiffeId,
    certificates,
    privateKey,
    bundle: parseCertificates(svid['bundle']),
    hint: String(svid['hint'] ?? ''),
    expiresAt: Date.parse(leaf.validTo) / 1000,
  }
}

function parseKey(bytes: unknown): KeyObject {
  try {
    return createPrivateKey({ key: bytes as Buffer, format: 'der', type: 'pkcs8' })
  } catch {
    throw new Fault('svid_invalid', 'the key is not in PKCS#8')
  }
}

/** The certificates in concatenated DER, at least one. */
function parseCertificates(bytes: unknown): readonly X509Certificate[] {
  const certificates: X509Certificate[] = []
  let rest = Buffer.isBuffer(bytes) ? bytes : Buffer.alloc(0)
  while (rest.length > 0 && certificates.length < CERTIFICATES_LIMIT) {
    const length = lengthOf(rest)
    certificates.push(parseCertificate(rest.subarray(0, length)))
    rest = rest.subarray(length)
  }
  if (certificates.length === 0) throw new Fault('svid_invalid', 'a certificate is missing')
  if (rest.length > 0) throw new Fault('svid_invalid', `over ${CERTIFICATES_LIMIT} certificates`)
  return certificates
}

function parseCertificate(bytes: Buffer): X509Certificate {
  try {
    return new X509Certificate(bytes)
  } catch {
    throw new Fault('certificate_malformed')
  }
}

/** The bytes of the DER sequence that `bytes` begins with, its header included (X.690 s.8.1.3). */
function lengthOf(bytes: Buffer): number {
  const first = bytes[1] ?? 0
  const count = first < 0x80 ? 0 : first - 0x80
  if (bytes[0] !== SEQUENCE || first === 0x80 || count > 3 || bytes.length < 2 + count)
    throw new Fault('certificate_malformed')
  const length = 2 + count + (count === 0 ? first : bytes.readUIntBE(2, count))
  if (length > bytes.length) throw new Fault('certificate_malformed')
  return length
}

/** Workload API s.5.2: of several SVIDs with one hint, the first counts. */
function withoutRepeatedHints(svids: readonly X509Svid[]): readonly X509Svid[] {
  return svids.filter(
    ({ hint }, index) => hint === '' || svids.findIndex((other) => other.hint === hint) === index,
  )
}
