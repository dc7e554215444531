/** Certificates with one named flaw: written by hand, apart from the code under test, and signed by node:crypto. */
import { constants, createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import type { Bundle } from '../../src/spiffe/bundle.ts'
import { parseTrustDomain } from '../../src/spiffe/id.ts'
import { bits, boolean, integer, nothing, octets, oid, sequence, set, time, tlv } from './der.ts'

/** The moment of all test certificates, in seconds since 1970. */
export const NOW = 1_700_000_000

/** The parts of a certificate, each in DER; what is not given is as it should be. */
export interface Shape {
  readonly version: Buffer
  readonly serial: Buffer
  readonly algorithm: Buffer
  readonly outerAlgorithm: Buffer
  readonly issuer: Buffer
  readonly subject: Buffer
  readonly validity: Buffer
  readonly spki: Buffer
  readonly extensions: readonly Buffer[]
  readonly signature: Buffer
}

export interface Pair {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

export const ALGORITHM = {
  ES256: sequence(oid('2a8648ce3d040302')),
  ES384: sequence(oid('2a8648ce3d040303')),
  ES512: sequence(oid('2a8648ce3d040304')),
  RS256: sequence(oid('2a864886f70d01010b'), nothing),
  RS384: sequence(oid('2a864886f70d01010c'), nothing),
  RS512: sequence(oid('2a864886f70d01010d'), nothing),
  PS256: pss('608648016503040201', '20'),
  PS384: pss('608648016503040202', '30'),
  PS512: pss('608648016503040203', '40'),
  RS1: sequence(oid('2a864886f70d010105'), nothing),
  ES1: sequence(oid('2a8648ce3d0401')),
}
export type AlgorithmName = keyof typeof ALGORITHM

function pss(digest: string, salt: string): Buffer {
  const hash = sequence(oid(digest), nothing)
  const mask = sequence(oid('2a864886f70d010108'), hash)
  return sequence(
    oid('2a864886f70d01010a'),
    sequence(tlv(0xa0, hash), tlv(0xa1, mask), tlv(0xa2, integer(salt))),
  )
}

export function extension(id: string, value: Buffer, critical = false): Buffer {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(value))
}

export const basicConstraints = (isCa: boolean, pathLength?: number, critical = true) =>
  extension(
    '551d13',
    sequence(
      ...(isCa ? [boolean(true)] : []),
      ...(pathLength === undefined ? [] : [integer(pathLength.toString(16).padStart(2, '0'))]),
    ),
    critical,
  )

const USAGE = { digitalSignature: 0, keyEncipherment: 2, keyAgreement: 4, keyCertSign: 5, crlSign: 6 }

export function keyUsage(usages: readonly (keyof typeof USAGE)[], critical = true): Buffer {
  const byte = usages.reduce((sum, usage) => sum | (0x80 >> USAGE[usage]), 0)
  const unused = 7 - Math.max(...usages.map((usage) => USAGE[usage]))
  return extension('551d0f', bits(Buffer.from([byte]), unused), critical)
}

export const SERVER_AUTH = '2b06010505070301'
export const CLIENT_AUTH = '2b06010505070302'
export const extKeyUsage = (...purposes: readonly string[]) =>
  extension('551d25', sequence(...purposes.map((purpose) => oid(purpose))))

export const uriName = (text: string) => tlv(0x86, Buffer.from(text, 'latin1'))
export const dnsName = (text: string) => tlv(0x82, Buffer.from(text, 'latin1'))
export const altNames = (...names: readonly Buffer[]) => extension('551d11', sequence(...names))
export const subjectKeyId = (id: Buffer) => extension('551d0e', octets(id))
export const authorityKeyId = (id: Buffer) => extension('551d23', sequence(tlv(0x80, id)))

export const name = (text: string) => sequence(set(sequence(oid('550403'), tlv(0x0c, Buffer.from(text)))))
export const validity = (from: number, to: number) => sequence(time(from), time(to))

export const ecPair = (namedCurve = 'P-256'): Pair => generateKeyPairSync('ec', { namedCurve })
export const rsaPair = (modulusLength = 2048): Pair => generateKeyPairSync('rsa', { modulusLength })
export const spkiOf = ({ publicKey }: Pair): Buffer => publicKey.export({ format: 'der', type: 'spki' })
export const keyIdOf = (pair: Pair) => createHash('sha256').update(spkiOf(pair)).digest().subarray(0, 20)

/** Puts the parts together and signs them. */
export function assemble(
  shape: Omit<Shape, 'signature'>,
  signer: Pair,
  alg: AlgorithmName,
  signature?: Buffer,
) {
  const { version, serial, algorithm, issuer, validity: span, subject, spki, extensions } = shape
  const tbs = sequence(
    tlv(0xa0, version),
    serial,
    algorithm,
    issuer,
    span,
    subject,
    spki,
    tlv(0xa3, sequence(...extensions)),
  )
  return sequence(tbs, shape.outerAlgorithm, bits(signature ?? signTbs(tbs, signer, alg)))
}

function signTbs(tbs: Buffer, { privateKey: key }: Pair, alg: AlgorithmName): Buffer {
  const digest = `sha${alg.slice(2)}`
  if (!alg.startsWith('PS')) return sign(digest, tbs, key)
  const saltLength = Number(alg.slice(2)) / 8
  return sign(digest, tbs, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength })
}

/** Something that signs certificates in tests. */
export interface TestAuthority {
  readonly der: Buffer
  readonly pair: Pair
  readonly subject: Buffer
  readonly alg: AlgorithmName
}

export interface IssueOptions extends Partial<Shape> {
  /** Signs as this algorithm; the issuer's own when absent. */
  readonly alg?: AlgorithmName
}

function shapeOf(issuer: TestAuthority, pair: Pair, options: IssueOptions): Omit<Shape, 'signature'> {
  const algorithm = options.algorithm ?? ALGORITHM[options.alg ?? issuer.alg]
  return {
    version: integer('02'),
    serial: integer('1234'),
    algorithm,
    outerAlgorithm: algorithm,
    issuer: issuer.subject,
    subject: name('workload'),
    validity: validity(NOW - 10, NOW + 3600),
    spki: spkiOf(pair),
    extensions: [],
    ...options,
  }
}

export const LEAF_ID = 'spiffe://example.org/web'

/** What a good leaf has; tests exchange one of them. */
export function leafExtensions(pair: Pair, issuer: TestAuthority) {
  return {
    keyUsage: keyUsage(['digitalSignature']),
    extKeyUsage: extKeyUsage(SERVER_AUTH, CLIENT_AUTH),
    basicConstraints: basicConstraints(false),
    subjectKeyId: subjectKeyId(keyIdOf(pair)),
    authorityKeyId: authorityKeyId(keyIdOf(issuer.pair)),
    altNames: altNames(uriName(LEAF_ID)),
  }
}

export type LeafExtensions = ReturnType<typeof leafExtensions>

const leafPair = ecPair()

/** A leaf of `issuer`, good but for what `options` and `change` say; an extension set to undefined is left out. */
export function makeLeaf(
  issuer: TestAuthority,
  options: IssueOptions & { readonly pair?: Pair } = {},
  change: { readonly [K in keyof LeafExtensions]?: Buffer | undefined } = {},
): Buffer {
  const pair = options.pair ?? leafPair
  const list = Object.values({ ...leafExtensions(pair, issuer), ...change }).filter(
    (value) => value !== undefined,
  )
  const shape = shapeOf(issuer, pair, { extensions: list, ...options })
  return assemble(shape, issuer.pair, options.alg ?? issuer.alg, options.signature)
}

export interface AuthorityOptions extends IssueOptions {
  readonly pair?: Pair
  /** Signs the authority; itself when absent. */
  readonly signedBy?: TestAuthority
  readonly commonName?: string
  readonly pathLength?: number | undefined
  readonly basicConstraints?: Buffer | undefined
  readonly keyUsage?: Buffer | undefined
  readonly more?: readonly Buffer[]
}

/** A CA certificate, good but for what `options` say. */
export function makeAuthority(options: AuthorityOptions = {}): TestAuthority {
  const pair = options.pair ?? ecPair()
  const subject = options.subject ?? name(options.commonName ?? 'root')
  const alg = options.alg ?? 'ES256'
  const self = { der: Buffer.alloc(0), pair, subject, alg }
  const issuer = options.signedBy ?? self
  const constraints =
    'basicConstraints' in options ? options.basicConstraints : basicConstraints(true, options.pathLength)
  const usage = 'keyUsage' in options ? options.keyUsage : keyUsage(['keyCertSign', 'crlSign'])
  const extensions = [
    ...(constraints ? [constraints] : []),
    ...(usage ? [usage] : []),
    subjectKeyId(keyIdOf(pair)),
    authorityKeyId(keyIdOf(issuer.pair)),
    altNames(uriName('spiffe://example.org')),
    ...(options.more ?? []),
  ]
  const shape = shapeOf(issuer, pair, { extensions, ...options, subject, alg: issuer.alg })
  return { ...self, der: assemble(shape, issuer.pair, issuer.alg, options.signature) }
}

/** A bundle of example.org that trusts `roots`. */
export function bundleOfRoots(...roots: readonly TestAuthority[]): Bundle {
  return {
    trustDomain: parseTrustDomain('example.org'),
    x509Authorities: roots.map(({ der }) => der),
    jwtAuthorities: new Map(),
    witAuthorities: new Map(),
    sequence: 1n,
    refreshHintSeconds: 300,
  }
}
