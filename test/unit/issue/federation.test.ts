/** Bundles of other trust domains, read from a directory; and the PEM that proxies are given of them. */
import { X509Certificate } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { pemOf } from '../../../src/base/pem.ts'
import { loadFederated } from '../../../src/issue/federation.ts'
import { formatBundle } from '../../../src/spiffe/bundle.ts'
import { parseTrustDomain } from '../../../src/spiffe/id.ts'
import { bundleOfRoots, makeAuthority } from '../../support/certificates.ts'
import { faultOf } from '../../support/faults.ts'

const OWN = parseTrustDomain('own.test')
const bundle = bundleOfRoots(makeAuthority())
let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hf-federation-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

describe('a directory of bundles', () => {
  it('has one of each trust domain that a file is named after', () => {
    for (const name of ['b.test.json', 'a.test.json', '.hidden.json', 'notes.txt'])
      writeFileSync(join(dir, name), formatBundle(bundle))
    const found = loadFederated(dir, OWN)
    expect([...found.keys()].sort()).toEqual(['a.test', 'b.test'])
    expect(found.get(parseTrustDomain('a.test'))?.x509Authorities).toEqual(bundle.x509Authorities)
    expect(found.get(parseTrustDomain('a.test'))?.trustDomain).toBe('a.test')
  })

  it.each([
    ['the own trust domain', 'own.test.json', '', 'named as the own trust domain'],
    ['what is no trust domain', 'A B.json', '', 'not a trust domain'],
    ['what is no bundle', 'a.test.json', '[]', 'the bundle cannot be used'],
  ])('is refused with a file of %s', (_what, name, text, message) => {
    writeFileSync(join(dir, name), text || formatBundle(bundle))
    const fault = faultOf(() => loadFederated(dir, OWN))
    expect(fault).toMatch(/^config_invalid: federation: /)
    expect(fault).toContain(message)
  })

  it('is refused where others may write a file, and where it is not', () => {
    writeFileSync(join(dir, 'a.test.json'), formatBundle(bundle))
    chmodSync(join(dir, 'a.test.json'), 0o666)
    expect(faultOf(() => loadFederated(dir, OWN))).toMatch(/^policy_writable: /)
    expect(faultOf(() => loadFederated(join(dir, 'none'), OWN))).toMatch(/^config_invalid: /)
  })
})

describe('PEM', () => {
  it.each([0, 1, 2, 3, 47, 48, 49, 95, 96, 97, 500])('of %d bytes is base64 in lines of 64', (length) => {
    const der = Buffer.from(Array.from({ length }, (_, at) => (at * 37 + 251) % 256))
    const lines = pemOf('PRIVATE KEY', der).toString('latin1').split('\n')
    const body = lines.slice(1, -2)
    expect([lines[0], ...lines.slice(-2)]).toEqual([
      '-----BEGIN PRIVATE KEY-----',
      '-----END PRIVATE KEY-----',
      '',
    ])
    expect(body.join('')).toBe(der.toString('base64'))
    expect(body.slice(0, -1).filter((line) => line.length !== 64)).toEqual([])
  })

  it('of a certificate is read by others', () => {
    const [der = Buffer.alloc(0)] = bundle.x509Authorities
    expect(new X509Certificate(pemOf('CERTIFICATE', der)).raw).toEqual(der)
  })
})
