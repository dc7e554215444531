import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Live } from '../../../src/base/live.ts'
import { type CaFiles, loadCa, tryCa } from '../../../src/issue/ca-files.ts'
import { embeddedAuthority } from '../../../src/issue/embedded.ts'
import { makeDeliveredKey } from '../../../src/keys/deliver.ts'
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/id.ts'
import { verifyX509Svid } from '../../../src/spiffe/x509svid.ts'
import {
  basicConstraints,
  ecPair,
  keyUsage,
  LEAF_ID,
  makeAuthority,
  makeLeaf,
  NOW,
  type Pair,
  rsaPair,
  type TestAuthority,
  validity,
} from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'
import { opensslVerify, pem } from '../../support/openssl.ts'

let dir = ''
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-ca-'))
})
afterAll(() => rmSync(dir, { recursive: true }))

interface Texts {
  readonly certificate: string
  readonly key: string
  readonly chain?: string
}
const keyPem = ({ privateKey }: Pair) => privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
const textsOf = (ca: TestAuthority, ...above: readonly TestAuthority[]): Texts => ({
  certificate: `a comment\n${pem(ca.der)}`,
  key: keyPem(ca.pair),
  ...(above.length === 0 ? {} : { chain: above.map(({ der }) => pem(der)).join('') }),
})

let count = 0
function write({ certificate, key, chain }: Texts): CaFiles {
  const put = (text: string) => {
    const path = join(dir, `file-${++count}.pem`)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }
  return {
    certificateFile: put(certificate),
    keyFile: put(key),
    chainFile: chain === undefined ? undefined : put(chain),
  }
}
const why = (texts: Texts) => faultOf(() => loadCa(write(texts))).replaceAll(/\S*file-\d+\.pem/g, 'FILE')

const root = makeAuthority()
const middle = makeAuthority({ signedBy: root, commonName: 'middle' })

describe('a CA of the operator', () => {
  it.each<[string, Texts, number]>([
    ['a root of P-256', textsOf(root), 0],
    ['a root of P-384', textsOf(makeAuthority({ pair: ecPair('P-384'), alg: 'ES384' })), 0],
    ['a root of RSA', textsOf(makeAuthority({ pair: rsaPair(), alg: 'RS256' })), 0],
    ['an intermediate with its root', textsOf(middle, root), 1],
  ])('may be %s, and what it signs verifies', (_what, texts, below) => {
    const trustDomain = parseTrustDomain('example.org')
    const authority = embeddedAuthority({
      trustDomain,
      clock: new ManualClock(),
      algorithm: 'ES256',
      intermediate: false,
      caTtl: 3600,
      keyTtl: 3600,
      wit: false,
      ca: new Live(loadCa(write(texts))),
    })
    const { spki } = makeDeliveredKey()
    const { chain } = authority.issueX509({ spiffeId: parseSpiffeId(LEAF_ID), spki, ttl: 60, dnsNames: [] })
    expect(chain).toHaveLength(1 + below)
    expect(verifyX509Svid(chain, () => authority.bundle.get(), NOW).spiffeId).toBe(LEAF_ID)
    expect(opensslVerify(chain, authority.bundle.get().x509Authorities, NOW)).toBe('OK')
  })

  it('ends when the first certificate of its path does', () => {
    const short = makeAuthority({ validity: validity(NOW - 10, NOW + 60) })
    const below = makeAuthority({ signedBy: short, commonName: 'below' })
    expect(loadCa(write(textsOf(below, short)))).toMatchObject({ notBefore: NOW - 10, notAfter: NOW + 60 })
  })

  const NO_CA =
    'config_invalid: authority.ca: FILE cannot be used: a certificate on the way to the root is no CA'
  const NO_WAY =
    'config_invalid: authority.ca: FILE cannot be used: no way to a self-signed root: authority.ca.chain_file holds the certificates between'
  it.each<[string, Texts, string]>([
    [
      'a certificate that is no CA',
      textsOf(makeAuthority({ basicConstraints: basicConstraints(false) })),
      NO_CA,
    ],
    [
      'a CA that may not sign certificates',
      textsOf(makeAuthority({ keyUsage: keyUsage(['digitalSignature']) })),
      NO_CA,
    ],
    ['a leaf above it', { ...textsOf(root), chain: pem(makeLeaf(root)) }, NO_WAY],
    ['no root above an intermediate', textsOf(middle), NO_WAY],
    ['a chain that is not its own', textsOf(middle, makeAuthority({ commonName: 'other' })), NO_WAY],
    ['a chain of its issuer\u2019s name and another key', textsOf(middle, makeAuthority()), NO_WAY],
    [
      'the key of another',
      { ...textsOf(root), key: keyPem(ecPair()) },
      'config_invalid: authority.ca: FILE cannot be used: it is not the key of the certificate',
    ],
    [
      'no certificate',
      { ...textsOf(root), certificate: 'none' },
      'config_invalid: authority.ca: FILE cannot be used: there is no certificate in it',
    ],
    [
      'a certificate of junk',
      { ...textsOf(root), certificate: pem(Buffer.from('junk')) },
      'config_invalid: authority.ca: FILE cannot be used: it is not a PEM certificate',
    ],
    [
      'a long way to the root',
      { ...textsOf(root), chain: pem(root.der).repeat(4) },
      'config_invalid: authority.ca: FILE cannot be used: over 4 certificates to the root',
    ],
  ])('is refused with %s', (_what, texts, wanted) => {
    expect(why(texts)).toBe(wanted)
  })
})

describe('the trial', () => {
  const trustDomain = parseTrustDomain('example.org')
  const trial = (ca: TestAuthority, now = NOW) =>
    faultOf(() => tryCa(loadCa(write(textsOf(ca))), trustDomain, now))

  it('passes a CA that can sign', () => {
    expect(() => tryCa(loadCa(write(textsOf(makeAuthority()))), trustDomain, NOW)).not.toThrow()
  })

  it('finds a CA that has ended', () => {
    const ca = makeAuthority()
    expect(trial(ca, NOW + 10 * 365 * 86_400)).toMatch(
      /^config_invalid: authority\.ca: what it signs does not verify/,
    )
  })
})
