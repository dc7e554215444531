import { X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { type CertificateAsk, keyIdOf, makeCertificate } from '../../../src/issue/certificate.ts'
import { generateKey } from '../../../src/keys/signer.ts'
import { parseCertificate } from '../../../src/spiffe/certificate.ts'
import { isSignedBy } from '../../../src/spiffe/certificate-key.ts'
import { LEAF_ID, NOW } from '../../support/certificates.ts'
import { opensslVerify } from '../../support/openssl.ts'

const key = generateKey('ES256')
const spki = key.publicKey.export({ format: 'der', type: 'spki' })
const keyId = keyIdOf(spki)
const ask = (change: Partial<CertificateAsk> = {}): CertificateAsk => ({
  subject: 'web',
  spki,
  issuer: 'root',
  issuerKeyId: keyId,
  notBefore: NOW - 10,
  notAfter: NOW + 3600,
  spiffeId: LEAF_ID,
  dnsNames: [],
  pathLength: undefined,
  ...change,
})
const parsed = (change: Partial<CertificateAsk> = {}) => parseCertificate(makeCertificate(ask(change), key))

describe('makeCertificate', () => {
  it('XS-1, XS-4, XS-7, XS-8, XS-9: makes a leaf with the profile of an SVID', () => {
    const { extensions, subject } = parsed({ dnsNames: ['web.test', 'web2.test'] })
    expect(extensions).toEqual({
      uris: [LEAF_ID],
      namesCritical: false,
      unprocessed: [],
      basicConstraints: { isCa: false, pathLength: undefined },
      keyUsage: { critical: true, digitalSignature: true, keyCertSign: false, crlSign: false },
      extKeyUsage: new Set(['2b06010505070301', '2b06010505070302']),
      subjectKeyId: keyId,
      authorityKeyId: keyId,
    })
    // An empty subject would need critical names.
    expect(subject.length).toBeGreaterThan(2)
    const peer = new X509Certificate(makeCertificate(ask({ dnsNames: ['web.test'] }), key))
    expect(peer.subjectAltName).toBe(`URI:${LEAF_ID}, DNS:web.test`)
  })

  it('XS-5, ID-10: makes a signing certificate that signs and does nothing else', () => {
    const { extensions } = parsed({ pathLength: 1, spiffeId: 'spiffe://example.org' })
    expect(extensions).toMatchObject({
      uris: ['spiffe://example.org'],
      basicConstraints: { isCa: true, pathLength: 1 },
      keyUsage: { critical: true, digitalSignature: false, keyCertSign: true, crlSign: true },
    })
    expect(extensions.extKeyUsage).toBeUndefined()
  })

  it('writes its times as RFC 5280 s.4.1.2.5 wants them, before and after 2050', () => {
    for (const notAfter of [NOW, 2_524_607_999, 2_524_608_000, 4_000_000_000])
      expect(parsed({ notAfter }).notAfter).toBe(notAfter)
  })

  it('signs the bytes that it shows', () => {
    expect(isSignedBy(parsed(), key.publicKey)).toBe(true)
    expect(isSignedBy(parsed(), generateKey('ES256').publicKey)).toBe(false)
  })

  it('never gives one serial number twice, nor one over 20 bytes or negative', () => {
    const serials = Array.from(
      { length: 100 },
      () => new X509Certificate(makeCertificate(ask(), key)).serialNumber,
    )
    expect(new Set(serials).size).toBe(100)
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9A-F]{31}$/)
  })

  it('takes an issuer by its whole name, as an operator\u2019s CA has one', () => {
    const { subject } = parsed({ subject: 'Corporate CA' })
    expect(parsed({ issuer: subject }).issuer).toEqual(subject)
  })

  it('holds before openssl -x509_strict for either purpose', () => {
    const root = makeCertificate(
      ask({ subject: 'root', pathLength: 0, spiffeId: 'spiffe://example.org' }),
      key,
    )
    const leaf = generateKey('ES256').publicKey.export({ format: 'der', type: 'spki' })
    const chain = [makeCertificate(ask({ spki: leaf }), key)]
    for (const purpose of ['sslserver', 'sslclient'])
      expect(opensslVerify(chain, [root], NOW, purpose)).toBe('OK')
    expect(opensslVerify(chain, [root], NOW + 3601)).toContain('certificate has expired')
  })
})
