import { X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { parseCertificate } from '../../../src/spiffe/certificate.ts'
import { isSignedBy, publicKeyOf } from '../../../src/spiffe/certificate-key.ts'
import {
  ALGORITHM,
  type AlgorithmName,
  altNames,
  authorityKeyId,
  basicConstraints,
  dnsName,
  ecPair,
  extension,
  extKeyUsage,
  type IssueOptions,
  keyIdOf,
  LEAF_ID,
  makeAuthority,
  makeLeaf,
  NOW,
  rsaPair,
  SERVER_AUTH,
  spkiOf,
  subjectKeyId,
  uriName,
} from '../../support/certificates.ts'
import {
  bits,
  boolean,
  generalizedTime,
  integer,
  nothing,
  octets,
  oid,
  sequence,
  set,
  time,
  tlv,
  utcTime,
} from '../../support/der.ts'
import { faultOf } from '../../support/faults.ts'

const root = makeAuthority()
const from = time(NOW - 10)
const cause = (der: Buffer) =>
  faultOf(() => parseCertificate(der)).replace('certificate_malformed: the certificate cannot be read: ', '')

describe('parseCertificate', () => {
  it('reads what node:crypto reads', () => {
    const der = makeLeaf(root)
    const certificate = parseCertificate(der)
    const peer = new X509Certificate(der)
    expect(certificate.extensions.uris).toEqual([LEAF_ID])
    expect(certificate.notAfter).toBe(Date.parse(peer.validTo) / 1000)
    expect(certificate.notBefore).toBe(Date.parse(peer.validFrom) / 1000)
    expect(certificate.spki.bytes).toEqual(peer.publicKey.export({ format: 'der', type: 'spki' }))
    expect(certificate.issuer).toEqual(parseCertificate(root.der).subject)
    expect(certificate.extensions.authorityKeyId).toEqual(keyIdOf(root.pair))
  })

  it('threats row 5: keeps its own copy, so that what was parsed cannot change before it is verified', () => {
    const der = makeLeaf(root)
    const certificate = parseCertificate(der)
    der.fill(0)
    expect(isSignedBy(certificate, root.pair.publicKey)).toBe(true)
  })

  it.each<[string, IssueOptions, string]>([
    ['version 1', { version: integer('00') }, 'it is not of version 3'],
    ['a negative serial number', { serial: integer('ff') }, 'its serial number is out of bounds'],
    [
      'a serial number of 21 bytes',
      { serial: integer('01'.repeat(21)) },
      'its serial number is out of bounds',
    ],
    [
      'a serial number of another type',
      { serial: octets(Buffer.of(1)) },
      'its serial number is missing or of another type',
    ],
    ['two different algorithms', { outerAlgorithm: ALGORITHM.ES384 }, 'its two signature algorithms differ'],
    ['a third time', { validity: sequence(from, from, from) }, 'its validity has parts too many'],
    ['one time', { validity: sequence(from) }, 'its validity is missing or of another type'],
    [
      'a time without seconds',
      { validity: sequence(utcTime('2311142213Z'), from) },
      'a time is not in its one encoding',
    ],
    [
      'a time with an offset',
      { validity: sequence(utcTime('231114221310+0100'), from) },
      'a time is not in its one encoding',
    ],
    [
      'a time with a fraction',
      { validity: sequence(generalizedTime('20591114221310.5Z'), from) },
      'a time is not in its one encoding',
    ],
    ['30 February', { validity: sequence(utcTime('230230000000Z'), from) }, 'a time is not a date'],
    ['month 13', { validity: sequence(utcTime('231301000000Z'), from) }, 'a time is not a date'],
    ['hour 24', { validity: sequence(utcTime('231101240000Z'), from) }, 'a time is not a date'],
    ['second 60', { validity: sequence(utcTime('231101235960Z'), from) }, 'a time is not a date'],
    [
      'a GeneralizedTime in 2049',
      { validity: sequence(from, generalizedTime('20491231235959Z')) },
      'a time before 2050 is not a UTCTime',
    ],
    [
      'an issuer that is no name',
      { issuer: sequence(integer('01')) },
      'its issuer is missing or of another type',
    ],
    ['an empty relative name', { subject: sequence(set()) }, 'its subject has an empty part'],
    [
      'a name part without value',
      { subject: sequence(set(sequence(oid('550403')))) },
      'its subject has a part without one value',
    ],
    ['no extension', { extensions: [] }, 'it has not 1 to 64 extensions'],
    [
      '65 extensions',
      { extensions: Array.from({ length: 65 }, (_, n) => extension(`55${(n + 32).toString(16)}`, nothing)) },
      'it has not 1 to 64 extensions',
    ],
    [
      'an extension twice',
      { extensions: [basicConstraints(false), basicConstraints(false)] },
      'it has an extension twice',
    ],
    [
      'an extension twice with other values',
      { extensions: [altNames(uriName(LEAF_ID)), altNames(dnsName('a'))] },
      'it has an extension twice',
    ],
    [
      'an unknown extension twice',
      { extensions: [extension('5563', nothing), extension('5563', nothing)] },
      'it has an extension twice',
    ],
    [
      'critical FALSE written out',
      { extensions: [sequence(oid('551d13'), boolean(false), octets(sequence()))] },
      'a default value is written out',
    ],
    [
      'an extension of one part',
      { extensions: [sequence(oid('551d13'))] },
      'an extension has not two or three parts',
    ],
    [
      'cA FALSE written out',
      { extensions: [extension('551d13', sequence(boolean(false)))] },
      'a default value is written out',
    ],
    [
      'a path length without cA',
      { extensions: [extension('551d13', sequence(integer('00')))] },
      'its basicConstraints has parts too many',
    ],
    [
      'a third basic constraint',
      { extensions: [extension('551d13', sequence(boolean(true), integer('00'), integer('00')))] },
      'its basicConstraints has parts too many',
    ],
    [
      'a negative path length',
      { extensions: [extension('551d13', sequence(boolean(true), integer('ff')))] },
      'its path length is out of bounds',
    ],
    [
      'an empty keyUsage',
      { extensions: [extension('551d0f', bits(Buffer.alloc(0)))] },
      'its keyUsage is not in its one encoding',
    ],
    [
      'a keyUsage of zeros',
      { extensions: [extension('551d0f', bits(Buffer.of(0)))] },
      'its keyUsage is not in its one encoding',
    ],
    [
      'a keyUsage with a trailing zero bit',
      { extensions: [extension('551d0f', bits(Buffer.of(0x80), 6))] },
      'its keyUsage is not in its one encoding',
    ],
    ['an empty extKeyUsage', { extensions: [extKeyUsage()] }, 'its extKeyUsage is empty'],
    [
      'no name in the subject alternative name',
      { extensions: [altNames()] },
      'its subject alternative name is malformed',
    ],
    [
      'a URI beyond ASCII',
      { extensions: [altNames(uriName('spiffe://example.org/w\u00e9b'))] },
      'its subject alternative name is malformed',
    ],
    [
      'an IP address of 5 bytes',
      { extensions: [altNames(tlv(0x87, Buffer.alloc(5)))] },
      'its subject alternative name is malformed',
    ],
    [
      'an unknown kind of name',
      { extensions: [altNames(tlv(0x8a, Buffer.of(1)))] },
      'its subject alternative name is malformed',
    ],
    [
      'bytes after an extension value',
      { extensions: [extension('551d13', Buffer.concat([sequence(), nothing]))] },
      'bytes follow its end',
    ],
    [
      'an empty key identifier',
      { extensions: [subjectKeyId(Buffer.alloc(0))] },
      'a key identifier is out of bounds',
    ],
    [
      'an authority serial number without its issuer',
      { extensions: [extension('551d23', sequence(tlv(0x82, Buffer.of(1))))] },
      'its authority key identifier is malformed',
    ],
    ['a signature with unused bits', {}, 'its signature is not whole bytes'],
  ])('refuses %s', (what, options, wanted) => {
    const der = makeLeaf(root, options)
    if (what === 'a signature with unused bits') {
      const shape = parseCertificate(der)
      const even = Buffer.concat([shape.signature.subarray(0, -1), Buffer.of(0)])
      expect(cause(sequence(shape.tbs, shape.signatureAlgorithm.bytes, bits(even, 1)))).toBe(wanted)
    } else expect(cause(der)).toBe(wanted)
  })

  it('refuses unique identifiers and everything after the extensions', () => {
    const { tbs, signatureAlgorithm, signature } = parseCertificate(makeLeaf(root))
    const parts = [tbs.subarray(tbs[1] === 0x82 ? 4 : 3), tlv(0x81, Buffer.of(0, 1))]
    const der = sequence(sequence(...parts), signatureAlgorithm.bytes, bits(signature))
    expect(cause(der)).toBe('it has not the parts of version 3')
  })

  it('reads a date after 2049', () => {
    const der = makeLeaf(root, { validity: sequence(from, generalizedTime('99991231235959Z')) })
    expect(parseCertificate(der).notAfter).toBe(253_402_300_799)
  })

  it('takes an authority key identifier with issuer and serial number', () => {
    const value = sequence(
      tlv(0x80, Buffer.of(7)),
      tlv(0xa1, tlv(0x82, Buffer.of(1))),
      tlv(0x82, Buffer.of(1)),
    )
    const der = makeLeaf(root, {}, { authorityKeyId: extension('551d23', value) })
    expect(parseCertificate(der).extensions.authorityKeyId).toEqual(Buffer.of(7))
    expect(
      parseCertificate(makeLeaf(root, {}, { authorityKeyId: authorityKeyId(Buffer.of(8)) })).tbs,
    ).toBeDefined()
  })
})

describe('publicKeyOf', () => {
  it.each([
    ['P-256', ecPair('P-256')],
    ['P-384', ecPair('P-384')],
    ['P-521', ecPair('P-521')],
    ['RSA 2048', rsaPair(2048)],
  ])('takes %s', (_what, pair) => {
    const key = publicKeyOf(parseCertificate(makeLeaf(root, { pair })))
    expect(key?.equals(pair.publicKey)).toBe(true)
  })

  const rsa = (modulus: string, exponent: string, parameters: readonly Buffer[] = [nothing]) =>
    sequence(
      sequence(oid('2a864886f70d010101'), ...parameters),
      bits(sequence(integer(modulus), integer(exponent))),
    )
  const ec = (curve: string, point: Buffer) =>
    sequence(sequence(oid('2a8648ce3d0201'), oid(curve)), bits(point))

  it.each([
    ['RSA of 1024 bits', rsa(`00${'ff'.repeat(128)}`, '010001')],
    ['RSA of 2047 bits', rsa(`7f${'ff'.repeat(255)}`, '010001')],
    ['RSA of 16384 bits, which costs milliseconds a check', rsa(`00${'ff'.repeat(2048)}`, '010001')],
    ['RSA with a huge exponent', rsa(`00${'ff'.repeat(256)}`, '7fffffffffff')],
    ['RSA with exponent 1', rsa(`00${'ff'.repeat(256)}`, '01')],
    ['RSA with an even exponent', rsa(`00${'ff'.repeat(256)}`, '010000')],
    ['RSA with a negative modulus', rsa(`80${'ff'.repeat(256)}`, '010001')],
    ['RSA without its NULL', rsa(`00${'ff'.repeat(256)}`, '010001', [])],
    ['secp256k1', spkiOf(ecPair('secp256k1'))],
    ['a compressed point', ec('2a8648ce3d030107', Buffer.concat([Buffer.of(2), Buffer.alloc(32, 1)]))],
    ['a hybrid point', hybridSpki()],
    ['a point off its curve', ec('2a8648ce3d030107', Buffer.concat([Buffer.of(4), Buffer.alloc(64, 1)]))],
    ['the point at infinity', ec('2a8648ce3d030107', Buffer.of(0))],
  ])('does not take %s', (_what, spki) => {
    expect(publicKeyOf(parseCertificate(makeLeaf(root, { spki })))).toBeUndefined()
  })
})

describe('isSignedBy', () => {
  const ecRoots = ['P-256', 'P-384', 'P-521'].map((curve) => makeAuthority({ pair: ecPair(curve) }))
  const rsaRoot = makeAuthority({ pair: rsaPair(), alg: 'RS256' })

  it.each<AlgorithmName>(['ES256', 'ES384', 'ES512'])('knows %s on every curve', (alg) => {
    for (const issuer of ecRoots) {
      const certificate = parseCertificate(makeLeaf(issuer, { alg }))
      expect(isSignedBy(certificate, issuer.pair.publicKey)).toBe(true)
      expect(isSignedBy(certificate, ecPair().publicKey)).toBe(false)
    }
  })

  it.each<AlgorithmName>(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'])('knows %s', (alg) => {
    const certificate = parseCertificate(makeLeaf(rsaRoot, { alg }))
    expect(isSignedBy(certificate, rsaRoot.pair.publicKey)).toBe(true)
    expect(isSignedBy(certificate, root.pair.publicKey)).toBe(false)
  })

  it.each<AlgorithmName>(['RS1', 'ES1'])('does not know %s, which is SHA-1', (alg) => {
    const issuer = alg === 'RS1' ? rsaRoot : root
    const certificate = parseCertificate(makeLeaf(issuer, { alg }))
    expect(isSignedBy(certificate, issuer.pair.publicKey)).toBe(false)
  })

  it('refuses PSS with a short salt, and with another digest for its mask', () => {
    const hash = (id: string) => sequence(oid(id), nothing)
    const [sha256, sha384] = ['608648016503040201', '608648016503040202'].map(hash)
    const algorithm = (mask: Buffer | undefined, salt: string) =>
      sequence(
        oid('2a864886f70d01010a'),
        sequence(
          tlv(0xa0, sha256 ?? nothing),
          tlv(0xa1, sequence(oid('2a864886f70d010108'), mask ?? nothing)),
          tlv(0xa2, integer(salt)),
        ),
      )
    const isGood = (identifier: Buffer) =>
      isSignedBy(
        parseCertificate(makeLeaf(rsaRoot, { alg: 'PS256', algorithm: identifier })),
        rsaRoot.pair.publicKey,
      )
    expect(isGood(algorithm(sha256, '20'))).toBe(true)
    expect(isGood(algorithm(sha256, '00'))).toBe(false)
    expect(isGood(algorithm(sha384, '20'))).toBe(false)
  })

  it('sees one changed bit anywhere in the signed part', () => {
    const certificate = parseCertificate(makeLeaf(root))
    for (let at = 0; at < certificate.tbs.length; at += 7) {
      const tbs = Buffer.from(certificate.tbs)
      tbs[at] = (tbs[at] ?? 0) ^ 1
      expect(isSignedBy({ ...certificate, tbs }, root.pair.publicKey)).toBe(false)
    }
  })

  it('takes extKeyUsage of one purpose as it stands: the profile judges it', () => {
    const der = makeLeaf(root, {}, { extKeyUsage: extKeyUsage(SERVER_AUTH) })
    expect(parseCertificate(der).extensions.extKeyUsage).toEqual(new Set([SERVER_AUTH]))
  })
})

/** X9.62 s.4.3.6: the uncompressed point with the parity of y in its first byte. */
function hybridSpki(): Buffer {
  const spki = spkiOf(ecPair())
  spki[spki.length - 65] = 6 + ((spki.at(-1) ?? 0) & 1)
  return spki
}
