import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { certificates, readBundles, readTokens, readX509 } from '../../../src/cli/fetch-read.ts'
import { pem, writeFiles } from '../../../src/cli/fetch-write.ts'
import { makeAuthority, makeLeaf } from '../../support/certificates.ts'
import { faultOf } from '../../support/faults.ts'

const authority = makeAuthority()
const root = authority.der
const leaf = makeLeaf(authority)

describe('certificates', () => {
  it('splits what stands one after the other', () => {
    expect(certificates(Buffer.concat([leaf, root])).map(({ raw }) => raw)).toEqual([leaf, root])
    expect(certificates(Buffer.alloc(0))).toEqual([])
  })

  it.each<[string, () => unknown]>([
    ['a cut certificate', () => leaf.subarray(0, -1)],
    ['bytes behind it', () => Buffer.concat([leaf, Buffer.from([0])])],
    ['an indefinite length', () => Buffer.from([0x30, 0x80, 0, 0])],
    ['a length of five bytes', () => Buffer.from([0x30, 0x85, 0, 0, 0, 0, 1])],
    ['a length that is cut', () => Buffer.from([0x30, 0x83, 1])],
    ['an empty sequence', () => Buffer.from([0x30, 0])],
    ['text', () => 'MII'],
    ['nothing', () => undefined],
  ])('refuses %s', (_what, make) => {
    expect(faultOf(() => certificates(make()))).toBe(
      'svid_invalid: the agent gave a certificate that cannot be read',
    )
  })
})

describe('readX509', () => {
  it('refuses an SVID without its key', () => {
    const svid = { spiffe_id: 'spiffe://a.test/x', x509_svid: leaf, bundle: root }
    expect(faultOf(() => readX509({ svids: [svid] }))).toMatch(/^svid_invalid:/)
    expect(readX509({ svids: [{ ...svid, x509_svid_key: Buffer.from('k') }] })[0]).toMatchObject({
      spiffeId: 'spiffe://a.test/x',
      hint: '',
    })
  })

  it('reads no SVID from an empty message', () => expect(readX509({})).toEqual([]))
})

describe('readTokens', () => {
  const token = `e.${Buffer.from('{"exp":1800000300}').toString('base64url')}.s`

  it.each([
    ['a JWT-SVID', { svid: token }],
    ['a WIT-SVID', { wit_svid: token }],
  ])('reads the end of %s', (_what, svid) => {
    expect(readTokens({ svids: [svid] })[0]).toMatchObject({ token, expires: 1_800_000_300 })
  })

  it.each(['', 'a.b.c', 'x', `e.${Buffer.from('{"exp":"1"}').toString('base64url')}.s`])(
    'does without the end of %j',
    (svid) => expect(readTokens({ svids: [{ svid }] })[0]?.expires).toBeUndefined(),
  )
})

describe('readBundles', () => {
  it('joins both kinds by trust domain', () => {
    const jwt = { bundles: { 'spiffe://b.test': Buffer.from('{"keys":[{"kid":"k"}]}') } }
    const found = readBundles({ bundles: { 'spiffe://a.test': root } }, jwt)
    expect(
      found.map(({ trustDomain, authorities, jwks }) => [trustDomain, authorities.length, jwks.keys.length]),
    ).toEqual([
      ['a.test', 1, 0],
      ['b.test', 0, 1],
    ])
  })

  it.each(['{}', '[]', 'x', 'null'])('refuses the JWK Set %j', (text) => {
    const jwt = { bundles: { 'spiffe://b.test': Buffer.from(text) } }
    expect(faultOf(() => readBundles({}, jwt))).toBe(
      'svid_invalid: the agent gave a JWT bundle that cannot be read',
    )
  })
})

describe('writeFiles', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
  })
  afterEach(() => rmSync(dir, { recursive: true, force: true }))

  it('makes keys readable by this user alone, and leaves no other file', () => {
    const files = [
      { name: 'svid.pem', text: 'a' },
      { name: 'key.pem', text: 'b', isSecret: true },
    ]
    const at = join(dir, 'new')
    expect(writeFiles(at, files)).toEqual([join(at, 'svid.pem'), join(at, 'key.pem')])
    expect(statSync(at).mode & 0o777).toBe(0o700)
    expect(statSync(join(at, 'key.pem')).mode & 0o777).toBe(0o600)
    expect(readdirSync(at).sort()).toEqual(['key.pem', 'svid.pem'])
  })

  it('writes no key through a link, and none into a file that is open to others', () => {
    writeFileSync(join(dir, 'elsewhere'), 'old', { mode: 0o666 })
    symlinkSync(join(dir, 'elsewhere'), join(dir, 'key.pem'))
    writeFiles(dir, [{ name: 'key.pem', text: 'secret', isSecret: true }])
    expect(readFileSync(join(dir, 'elsewhere'), 'utf8')).toBe('old')
    expect(statSync(join(dir, 'key.pem')).mode & 0o777).toBe(0o600)
  })

  it('names a directory that cannot be written', () => {
    writeFileSync(join(dir, 'file'), '')
    expect(faultOf(() => writeFiles(join(dir, 'file'), []))).toMatch(
      /^usage: --write .*file: cannot be written \(EEXIST\)$/,
    )
  })
})

describe('pem', () => {
  it('has lines of 64 characters (RFC 7468 s.2)', () => {
    expect(pem('X', Buffer.alloc(60))).toBe(
      `-----BEGIN X-----\n${'A'.repeat(64)}\n${'A'.repeat(16)}\n-----END X-----\n`,
    )
  })
})
