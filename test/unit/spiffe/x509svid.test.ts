import { describe, expect, it } from 'vitest'
import type { BundleOf } from '../../../src/spiffe/bundle.ts'
import { parseX509Svid, verifyX509Svid } from '../../../src/spiffe/x509svid.ts'
import {
  type AuthorityOptions,
  altNames,
  basicConstraints,
  bundleOfRoots,
  CLIENT_AUTH,
  dnsName,
  ecPair,
  extension,
  extKeyUsage,
  type IssueOptions,
  keyUsage,
  LEAF_ID,
  type LeafExtensions,
  makeAuthority,
  makeLeaf,
  NOW,
  name,
  rsaPair,
  SERVER_AUTH,
  type TestAuthority,
  uriName,
  validity,
} from '../../support/certificates.ts'
import { nothing, sequence, tlv } from '../../support/der.ts'
import { faultOf } from '../../support/faults.ts'

const root = makeAuthority()
const trusting =
  (...roots: readonly TestAuthority[]): BundleOf =>
  (trustDomain) =>
    trustDomain === 'example.org' ? bundleOfRoots(...roots) : undefined
const verify = (chain: readonly Buffer[], bundleOf = trusting(root), now = NOW) =>
  verifyX509Svid(chain, bundleOf, now)
const why = (chain: readonly Buffer[], bundleOf = trusting(root), now = NOW) =>
  faultOf(() => verify(chain, bundleOf, now)).replace(': the SVID does not verify:', ':')

const NO_ROOT = 'svid_invalid: no authority in force of the bundle of example.org signed it'

describe('an X509-SVID', () => {
  it('verifies to its SPIFFE ID, key and end', () => {
    const pair = ecPair()
    const facts = verify([makeLeaf(root, { pair })])
    expect(facts).toMatchObject({ spiffeId: LEAF_ID, notBefore: NOW - 10, notAfter: NOW + 3600 })
    expect(facts.publicKey.equals(pair.publicKey)).toBe(true)
  })

  type Change = { readonly [K in keyof LeafExtensions]?: Buffer | undefined }
  it.each<[string, Change, string]>([
    [
      'XS-1: no URI name',
      { altNames: altNames(dnsName('web')) },
      'svid_invalid: its leaf has 0 URI names, not one',
    ],
    ['XS-1: no names at all', { altNames: undefined }, 'svid_invalid: its leaf has 0 URI names, not one'],
    [
      'XS-1: two SPIFFE IDs',
      { altNames: altNames(uriName(LEAF_ID), uriName('spiffe://example.org/b')) },
      'svid_invalid: its leaf has 2 URI names, not one',
    ],
    [
      'XS-1: the same SPIFFE ID twice',
      { altNames: altNames(uriName(LEAF_ID), uriName(LEAF_ID)) },
      'svid_invalid: its leaf has 2 URI names, not one',
    ],
    [
      'XS-1: a second URI of another scheme',
      { altNames: altNames(uriName(LEAF_ID), uriName('https://a/')) },
      'svid_invalid: its leaf has 2 URI names, not one',
    ],
    [
      'XS-3: an ID without path',
      { altNames: altNames(uriName('spiffe://example.org')) },
      'spiffe_id_invalid: not a SPIFFE ID of a workload (it needs a path): "spiffe://example.org"',
    ],
    [
      'XS-7: a CA',
      { basicConstraints: basicConstraints(true) },
      'svid_invalid: its leaf is a signing certificate',
    ],
    [
      'XS-6: keyCertSign',
      { keyUsage: keyUsage(['digitalSignature', 'keyCertSign']) },
      'svid_invalid: the key of its leaf may sign certificates or CRLs',
    ],
    [
      'XS-8: cRLSign',
      { keyUsage: keyUsage(['digitalSignature', 'crlSign']) },
      'svid_invalid: the key of its leaf may sign certificates or CRLs',
    ],
    [
      'XS-8: no keyUsage',
      { keyUsage: undefined },
      'svid_invalid: its leaf has no critical keyUsage with digitalSignature',
    ],
    [
      'XS-8: a keyUsage that is not critical',
      { keyUsage: keyUsage(['digitalSignature'], false) },
      'svid_invalid: its leaf has no critical keyUsage with digitalSignature',
    ],
    [
      'XS-8: no digitalSignature',
      { keyUsage: keyUsage(['keyEncipherment']) },
      'svid_invalid: its leaf has no critical keyUsage with digitalSignature',
    ],
    [
      'XS-9: serverAuth alone',
      { extKeyUsage: extKeyUsage(SERVER_AUTH) },
      'svid_invalid: the extKeyUsage of its leaf lacks serverAuth or clientAuth',
    ],
    [
      'XS-9: clientAuth alone',
      { extKeyUsage: extKeyUsage(CLIENT_AUTH) },
      'svid_invalid: the extKeyUsage of its leaf lacks serverAuth or clientAuth',
    ],
    [
      'XS-11: an unknown critical extension',
      { extKeyUsage: extension('2a0304', nothing, true) },
      'svid_invalid: its leaf has a constraint or critical extension that is not processed',
    ],
    [
      'XS-12: another scheme',
      { altNames: altNames(uriName('https://example.org/web')) },
      'spiffe_id_invalid: not a SPIFFE ID: "https://example.org/web"',
    ],
    [
      'ID-7: a path with an escape',
      { altNames: altNames(uriName('spiffe://example.org/w%65b')) },
      'spiffe_id_invalid: not a SPIFFE ID: "spiffe://example.org/w%65b"',
    ],
    [
      'a NUL byte in its ID',
      { altNames: altNames(uriName('spiffe://example.org/web\0.evil')) },
      'spiffe_id_invalid: not a SPIFFE ID: "spiffe://example.org/web\\u0000.evil"',
    ],
  ])('is refused with %s', (_what, change, wanted) => {
    expect(why([makeLeaf(root, {}, change)])).toBe(wanted)
  })

  it.each<[string, Change]>([
    [
      'XS-2: names of other kinds',
      {
        altNames: altNames(
          dnsName('web'),
          uriName(LEAF_ID),
          tlv(0x81, Buffer.from('a@b')),
          tlv(0x87, Buffer.alloc(4)),
          dnsName('web2'),
        ),
      },
    ],
    [
      'XS-8: keyEncipherment and keyAgreement',
      { keyUsage: keyUsage(['digitalSignature', 'keyEncipherment', 'keyAgreement']) },
    ],
    ['XS-9: no extKeyUsage', { extKeyUsage: undefined }],
    ['XS-9: a third purpose', { extKeyUsage: extKeyUsage(SERVER_AUTH, '2b06010505070304', CLIENT_AUTH) }],
    ['no basicConstraints, which means no CA', { basicConstraints: undefined }],
    ['an unknown extension that is not critical', { extKeyUsage: extension('2a0304', nothing) }],
    ['no key identifiers', { subjectKeyId: undefined, authorityKeyId: undefined }],
  ])('is accepted with %s', (_what, change) => {
    expect(verify([makeLeaf(root, {}, change)]).spiffeId).toBe(LEAF_ID)
  })

  it.each<[string, IssueOptions, string]>([
    [
      'that is not valid yet',
      { validity: validity(NOW + 1, NOW + 60) },
      'svid_invalid: its chain is not valid for another 1 s',
    ],
    ['that is over', { validity: validity(NOW - 60, NOW - 1) }, 'svid_expired: the SVID expired 1 s ago'],
    ['with a signature of SHA-1', { alg: 'ES1' }, NO_ROOT],
    ['with an empty signature', { signature: Buffer.alloc(0) }, NO_ROOT],
    ['with a signature of zeros', { signature: Buffer.alloc(71) }, NO_ROOT],
    ['with the issuer name of another', { issuer: name('other') }, NO_ROOT],
  ])('XS-11: is refused %s', (_what, options, wanted) => {
    expect(why([makeLeaf(root, options)])).toBe(wanted)
  })

  it('XS-11: is valid in the first and in the last second of its time', () => {
    const leaf = makeLeaf(root, { validity: validity(NOW, NOW) })
    expect(verify([leaf]).notAfter).toBe(NOW)
  })

  it('is refused with a key of RSA 1024 or secp256k1', () => {
    const wanted = 'svid_invalid: the key of its leaf is of a kind or size that SVIDs do not have'
    for (const pair of [rsaPair(1024), ecPair('secp256k1')])
      expect(why([makeLeaf(root, { pair })])).toBe(wanted)
  })

  it('is malformed, not merely invalid, when its bytes are', () => {
    expect(why([Buffer.from('junk')])).toMatch(/^certificate_malformed: /)
    expect(why([Buffer.concat([makeLeaf(root), Buffer.of(0)])])).toMatch(/bytes follow its end/)
  })

  it('needs a bundle of its own trust domain, and one that is not empty (XS-14, TB-1)', () => {
    const foreign = altNames(uriName('spiffe://other.org/web'))
    expect(why([makeLeaf(root, {}, { altNames: foreign })])).toBe(
      'bundle_missing: no bundle for the trust domain other.org',
    )
    expect(why([makeLeaf(root)], trusting())).toBe(NO_ROOT)
  })

  it('WA-12: is verified with the bundle of its own trust domain and no other', () => {
    const other = makeAuthority({ commonName: 'other' })
    const bundleOf: BundleOf = (trustDomain) => bundleOfRoots(trustDomain === 'other.org' ? other : root)
    expect(why([makeLeaf(other)], bundleOf)).toBe(NO_ROOT)
  })

  it('is found among authorities of one name, by key identifier and by signature', () => {
    const twins = Array.from({ length: 3 }, () => makeAuthority({ commonName: 'twin' }))
    for (const twin of twins) {
      expect(verify([makeLeaf(twin)], trusting(...twins)).spiffeId).toBe(LEAF_ID)
      expect(verify([makeLeaf(twin, {}, { authorityKeyId: undefined })], trusting(...twins)).spiffeId).toBe(
        LEAF_ID,
      )
    }
  })

  it('passes over authorities that cannot be read', () => {
    const bundle = { ...bundleOfRoots(root), x509Authorities: [Buffer.from('junk'), root.der] }
    expect(verifyX509Svid([makeLeaf(root)], () => bundle, NOW).spiffeId).toBe(LEAF_ID)
  })

  it('is parsed without trust for those who only forward it', () => {
    expect(parseX509Svid([makeLeaf(root)]).spiffeId).toBe(LEAF_ID)
  })
})

describe('a chain', () => {
  const below = (issuer: TestAuthority, options: AuthorityOptions = {}) =>
    makeAuthority({ signedBy: issuer, commonName: 'intermediate', ...options })

  it('leads over intermediates to the bundle and ends with the first of its certificates', () => {
    const middle = below(root, { validity: validity(NOW - 10, NOW + 100) })
    const lower = below(middle, { commonName: 'lower' })
    expect(verify([makeLeaf(lower), lower.der, middle.der]).notAfter).toBe(NOW + 100)
  })

  it('may carry its root', () => {
    expect(verify([makeLeaf(root), root.der]).spiffeId).toBe(LEAF_ID)
  })

  it('ends at an intermediate that the bundle trusts', () => {
    const middle = below(root)
    expect(verify([makeLeaf(middle)], trusting(middle)).spiffeId).toBe(LEAF_ID)
  })

  it.each<[string, AuthorityOptions, string]>([
    [
      'that is no CA',
      { basicConstraints: basicConstraints(false) },
      'svid_invalid: a signing certificate in its chain is not a CA',
    ],
    [
      'without basicConstraints',
      { basicConstraints: undefined },
      'svid_invalid: a signing certificate in its chain is not a CA',
    ],
    [
      'XS-5: without keyCertSign',
      { keyUsage: keyUsage(['crlSign']) },
      'svid_invalid: a signing certificate in its chain may not sign certificates',
    ],
    ['that is over', { validity: validity(NOW - 60, NOW - 1) }, 'svid_expired: the SVID expired 1 s ago'],
    [
      'that is not valid yet',
      { validity: validity(NOW + 1, NOW + 60) },
      'svid_invalid: its chain is not valid for another 1 s',
    ],
    [
      'with an unknown critical extension',
      { more: [extension('2a0304', nothing, true)] },
      'svid_invalid: a signing certificate in its chain has a constraint or critical extension that is not processed',
    ],
    [
      'XS-10: with name constraints, critical or not',
      { more: [extension('551d1e', sequence())] },
      'svid_invalid: a signing certificate in its chain has a constraint or critical extension that is not processed',
    ],
  ])('XS-11: is refused over an intermediate %s', (_what, options, wanted) => {
    const middle = below(root, options)
    expect(why([makeLeaf(middle), middle.der])).toBe(wanted)
  })

  it.each<[string, AuthorityOptions]>([
    ['that is no CA', { basicConstraints: basicConstraints(false) }],
    ['without keyCertSign', { keyUsage: keyUsage(['digitalSignature']) }],
    ['that is over', { validity: validity(NOW - 60, NOW - 1) }],
    ['with name constraints', { more: [extension('551d1e', sequence(), true)] }],
    ['with a key of RSA 1024', { pair: rsaPair(1024), alg: 'RS256' }],
  ])('XS-11: is refused at a root %s', (_what, options) => {
    const bad = makeAuthority(options)
    expect(why([makeLeaf(bad)], trusting(bad))).toBe(NO_ROOT)
  })

  it('accepts a root without keyUsage, which RFC 5280 s.6.1.4 (n) judges only where it is', () => {
    const plain = makeAuthority({ keyUsage: undefined })
    expect(verify([makeLeaf(plain)], trusting(plain)).spiffeId).toBe(LEAF_ID)
  })

  it('XS-6: is refused over a leaf that signs, whatever its name', () => {
    const leafPair = ecPair()
    const leaf = makeLeaf(root, { pair: leafPair, subject: name('leaf') })
    const signer: TestAuthority = { der: leaf, pair: leafPair, subject: name('leaf'), alg: 'ES256' }
    expect(why([makeLeaf(signer), leaf])).toBe('svid_invalid: a signing certificate in its chain is not a CA')
  })

  it('XS-11: keeps path lengths, and does not count self-issued certificates', () => {
    const narrow = makeAuthority({ pathLength: 0 })
    const middle = below(narrow)
    expect(verify([makeLeaf(narrow)], trusting(narrow)).spiffeId).toBe(LEAF_ID)
    expect(why([makeLeaf(middle), middle.der], trusting(narrow))).toBe(NO_ROOT)
    const turned = below(narrow, { subject: narrow.subject })
    expect(verify([makeLeaf(turned), turned.der], trusting(narrow)).spiffeId).toBe(LEAF_ID)
  })

  it('XS-11: keeps the path length of intermediates', () => {
    const middle = below(root, { pathLength: 0 })
    const lower = below(middle, { commonName: 'lower' })
    expect(verify([makeLeaf(middle), middle.der]).spiffeId).toBe(LEAF_ID)
    expect(why([makeLeaf(lower), lower.der, middle.der])).toBe(
      'svid_invalid: a signing certificate in its chain allows no path of this length',
    )
  })

  it('is refused out of order, with a gap and with a stranger in it', () => {
    const middle = below(root)
    const lower = below(middle, { commonName: 'lower' })
    const leaf = makeLeaf(lower)
    const gap = 'svid_invalid: the names in its chain do not follow each other'
    expect(why([leaf, middle.der, lower.der])).toBe(gap)
    expect(why([leaf, middle.der])).toBe(gap)
    expect(why([leaf])).toBe(NO_ROOT)
    const stranger = below(makeAuthority(), { commonName: 'lower' })
    expect(why([leaf, stranger.der, middle.der])).toBe('svid_invalid: a signature in its chain is wrong')
  })

  it('is refused empty, over 8 certificates, and in a circle', () => {
    expect(why([])).toBe('svid_invalid: its chain is empty')
    const leaf = makeLeaf(root)
    expect(why([leaf, ...Array<Buffer>(8).fill(root.der)])).toBe(
      'svid_invalid: its chain is over 8 certificates',
    )
    const circle = makeAuthority({ commonName: 'circle' })
    expect(why([makeLeaf(circle), ...Array<Buffer>(7).fill(circle.der)])).toBe(NO_ROOT)
  })

  it('threats row 10: costs at most 8 signatures a step, however many authorities share a name', () => {
    const twins = Array.from({ length: 9 }, () => makeAuthority({ commonName: 'twin' }))
    const last = twins[8] ?? root
    expect(why([makeLeaf(last, {}, { authorityKeyId: undefined })], trusting(...twins))).toBe(NO_ROOT)
    expect(verify([makeLeaf(last)], trusting(...twins)).spiffeId).toBe(LEAF_ID)
  })
})
