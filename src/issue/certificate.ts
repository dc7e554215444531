/**
 * X.509 certificates as SVIDs want them (X509-SVID.md s.2-4, RFC 5280): structure by forge.asn1, which knows no EC
 * key, around keys and signatures of node:crypto.
 */
import { createHash, randomBytes } from 'node:crypto'
import asn1 from 'node-forge/lib/asn1.js'
import type { Seconds } from '../base/clock.ts'
import type { Alg } from '../proof/signer.ts'

type Asn1 = ReturnType<typeof asn1.create>

/** Signs to-be-signed bytes with a held key, in the encoding certificates use. */
export interface CertificateSigner {
  readonly alg: Alg
  signDer(input: Buffer): Buffer
}

export interface CertificateAsk {
  readonly subject: string
  readonly spki: Buffer
  /** A common name, or an issuer's whole Name in DER. */
  readonly issuer: string | Buffer
  readonly issuerKeyId: Buffer
  readonly notBefore: Seconds
  readonly notAfter: Seconds
  readonly spiffeId: string
  readonly dnsNames: readonly string[]
  /** A CA's path length; undefined makes a leaf. */
  readonly pathLength: number | undefined
}

const { SEQUENCE, SET, INTEGER, BOOLEAN, OCTETSTRING, BITSTRING, OID, UTF8, UTCTIME, GENERALIZEDTIME } =
  asn1.Type
const SIGNATURE_OIDS: Readonly<Record<Alg, string>> = {
  ES256: '1.2.840.10045.4.3.2',
  ES384: '1.2.840.10045.4.3.3',
  RS256: '1.2.840.113549.1.1.11',
  PS256: '1.2.840.113549.1.1.11',
}
const EXTENSION = {
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extKeyUsage: '2.5.29.37',
}
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const COMMON_NAME = '2.5.4.3'
const ORGANIZATION = '2.5.4.10'
// First byte: unused bits (RFC 5280 s.4.2.1.3): digitalSignature, and keyCertSign with cRLSign.
const LEAF_USAGE = '\x07\x80'
const CA_USAGE = '\x01\x06'
const SAN_DNS = 2
const SAN_URI = 6

/** A signed certificate in DER. */
export function makeCertificate(ask: CertificateAsk, signer: CertificateSigner): Buffer {
  const algorithm = signatureAlgorithm(signer.alg)
  const body = sequence([
    tagged(0, [integer('\x02')]),
    integer(serial()),
    algorithm,
    typeof ask.issuer === 'string' ? name(ask.issuer) : asn1.fromDer(binary(ask.issuer)),
    sequence([time(ask.notBefore), time(ask.notAfter)]),
    name(ask.subject),
    asn1.fromDer(binary(ask.spki)),
    tagged(3, [sequence(extensions(ask))]),
  ])
  const signature = signer.signDer(toDer(body))
  return toDer(sequence([body, algorithm, bits(binary(signature))]))
}

/** The key identifier of RFC 7093 s.2 method 1: SHA-256 of the key bits, cut to 160. */
export function keyIdOf(spki: Buffer): Buffer {
  const value = asn1.fromDer(binary(spki)).value[1]
  const content = typeof value === 'object' ? value : undefined
  const keyBits = bitsOf(content)
  return createHash('sha256').update(keyBits).digest().subarray(0, 20)
}

/** forge parses what looks like DER inside a BIT STRING; the raw content is kept beside it. */
function bitsOf(content: (Asn1 & { bitStringContents?: string }) | undefined): Buffer {
  const raw = content?.bitStringContents ?? (typeof content?.value === 'string' ? content.value : '')
  return Buffer.from(raw.slice(1), 'latin1')
}

function extensions(ask: CertificateAsk): Asn1[] {
  const isCa = ask.pathLength !== undefined
  const constraints = isCa ? [boolean(true), integer(String.fromCharCode(ask.pathLength ?? 0))] : []
  const usages = sequence([oid(SERVER_AUTH), oid(CLIENT_AUTH)])
  return [
    extension(
      EXTENSION.keyUsage,
      true,
      bits((isCa ? CA_USAGE : LEAF_USAGE).slice(1), isCa ? CA_USAGE : LEAF_USAGE),
    ),
    ...(isCa ? [] : [extension(EXTENSION.extKeyUsage, false, usages)]),
    extension(EXTENSION.basicConstraints, true, sequence(constraints)),
    extension(EXTENSION.subjectKeyId, false, octets(binary(keyIdOf(ask.spki)))),
    extension(EXTENSION.authorityKeyId, false, sequence([implicit(0, binary(ask.issuerKeyId))])),
    extension(EXTENSION.subjectAltName, false, sequence(names(ask))),
  ]
}

function names(ask: CertificateAsk): Asn1[] {
  return [implicit(SAN_URI, ask.spiffeId), ...ask.dnsNames.map((dns) => implicit(SAN_DNS, dns))]
}

function extension(id: string, critical: boolean, value: Asn1): Asn1 {
  return sequence([oid(id), ...(critical ? [boolean(true)] : []), octets(asn1.toDer(value).getBytes())])
}

/** Non-empty on every certificate: java-spiffe and OpenSSL's strict mode refuse an empty issuer. */
function name(commonName: string): Asn1 {
  const part = (type: string, text: string) => node(SET, true, [sequence([oid(type), utf8(text)])])
  return sequence([part(ORGANIZATION, 'Holdfast'), part(COMMON_NAME, commonName.slice(0, 64))])
}

function signatureAlgorithm(alg: Alg): Asn1 {
  const isRsa = alg === 'RS256' || alg === 'PS256'
  return sequence([oid(SIGNATURE_OIDS[alg]), ...(isRsa ? [node(asn1.Type.NULL, false, '')] : [])])
}

/** RFC 5280 s.4.1.2.2: positive, at most 20 bytes, and here 126 random bits. */
function serial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return binary(bytes)
}

const LAST_UTC_TIME = Date.UTC(2050, 0, 1) / 1000

function time(at: Seconds): Asn1 {
  const date = new Date(at * 1000)
  if (at < LAST_UTC_TIME) return node(UTCTIME, false, asn1.dateToUtcTime(date))
  return node(GENERALIZEDTIME, false, asn1.dateToGeneralizedTime(date))
}

function node(type: number, constructed: boolean, value: string | Asn1[]): Asn1 {
  return asn1.create(asn1.Class.UNIVERSAL, type, constructed, value)
}

function sequence(value: Asn1[]): Asn1 {
  return node(SEQUENCE, true, value)
}

function integer(value: string): Asn1 {
  return node(INTEGER, false, value)
}

function boolean(value: boolean): Asn1 {
  return node(BOOLEAN, false, value ? '\xff' : '\x00')
}

function octets(value: string): Asn1 {
  return node(OCTETSTRING, false, value)
}

function utf8(value: string): Asn1 {
  return node(UTF8, false, value)
}

function oid(value: string): Asn1 {
  return node(OID, false, asn1.oidToDer(value).getBytes())
}

function bits(content: string, withUnused = `\x00${content}`): Asn1 {
  return node(BITSTRING, false, withUnused)
}

function implicit(tag: number, value: string): Asn1 {
  return asn1.create(asn1.Class.CONTEXT_SPECIFIC, tag, false, value)
}

function tagged(tag: number, value: Asn1[]): Asn1 {
  return asn1.create(asn1.Class.CONTEXT_SPECIFIC, tag, true, value)
}

function binary(bytes: Buffer): string {
  return bytes.toString('latin1')
}

function toDer(value: Asn1): Buffer {
  return Buffer.from(asn1.toDer(value).getBytes(), 'latin1')
}
