import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import { parseCertificate } from '../../src/spiffe/certificate.ts'
import { publicKeyOf } from '../../src/spiffe/certificate-key.ts'
import { type Der, parseDer } from '../../src/spiffe/der.ts'
import { verifyX509Svid } from '../../src/spiffe/x509svid.ts'
import {
  altNames,
  bundleOfRoots,
  dnsName,
  ecPair,
  LEAF_ID,
  makeAuthority,
  makeLeaf,
  NOW,
  rsaPair,
  uriName,
} from '../support/certificates.ts'
import { tlv } from '../support/der.ts'
import { guarded } from '../support/guarded.ts'
import { FUZZ, mutations } from '../support/mutate.ts'

const root = makeAuthority()
const rsaRoot = makeAuthority({ pair: rsaPair(), alg: 'PS256' })
const bundle = bundleOfRoots(root, rsaRoot)
const seeds = [
  makeLeaf(root),
  makeLeaf(rsaRoot, { pair: rsaPair() }),
  makeLeaf(root, { pair: ecPair('P-521') }, { altNames: altNames(dnsName('a'), uriName(LEAF_ID)) }),
  root.der,
  rsaRoot.der,
]

/** The value again, written from what was read. */
function written({ tag, content, children }: Der): Buffer {
  return (tag & 0x20) === 0 ? tlv(tag, content) : tlv(tag, ...children.map(written))
}

describe('DER from outside', { timeout: 60_000 }, () => {
  it('is read to what writes the same bytes, or refused', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          mutations(seeds),
          fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
        ),
        (bytes) => {
          const value = guarded(() => parseDer(bytes))
          if (value instanceof Fault) expect(value.reason).toBe('certificate_malformed')
          else expect(written(value)).toEqual(bytes)
        },
      ),
      FUZZ,
    )
  })
})

describe('a certificate from outside', { timeout: 60_000 }, () => {
  it('is read or refused, and its key too', () => {
    fc.assert(
      fc.property(mutations(seeds), (bytes) => {
        const certificate = guarded(() => parseCertificate(bytes))
        if (certificate instanceof Fault) expect(certificate.reason).toBe('certificate_malformed')
        else guarded(() => publicKeyOf(certificate))
      }),
      FUZZ,
    )
  })

  it('threats row 5: never verifies once a byte of what was signed has changed', () => {
    fc.assert(
      fc.property(mutations(seeds.slice(0, 3)), (bytes) => {
        const facts = guarded(() => verifyX509Svid([bytes], () => bundle, NOW))
        if (facts instanceof Fault) return
        const { tbs } = parseCertificate(bytes)
        expect(seeds.some((seed) => parseCertificate(seed).tbs.equals(tbs))).toBe(true)
      }),
      FUZZ,
    )
  })

  it('is read or refused in any chain', () => {
    const chains = fc.array(fc.oneof(fc.constantFrom(...seeds), mutations(seeds)), { maxLength: 10 })
    fc.assert(
      fc.property(chains, (chain) => {
        guarded(() => verifyX509Svid(chain, () => bundle, NOW))
      }),
      { ...FUZZ, numRuns: 150 },
    )
  })
})
