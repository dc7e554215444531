import { describe, expect, it } from 'vitest'
import {
  type Bundle,
  formatBundle,
  formatJwtBundle,
  formatWitBundle,
  parseBundle,
} from '../../../src/spiffe/bundle.ts'
import { parseTrustDomain } from '../../../src/spiffe/id.ts'
import { publicJwkOf } from '../../../src/spiffe/jwk.ts'
import { ecPair, makeAuthority, rsaPair } from '../../support/certificates.ts'
import { faultOf } from '../../support/faults.ts'
import { bundleOfKeys } from '../../support/tokens.ts'

const trustDomain = parseTrustDomain('example.org')
const root = makeAuthority()
const pair = ecPair()
const jwk = publicJwkOf(pair.publicKey)
const x509Jwk = { ...publicJwkOf(root.pair.publicKey), use: 'x509-svid', x5c: [root.der.toString('base64')] }
const jwtJwk = { ...jwk, use: 'jwt-svid', kid: 'k1' }
const witJwk = { ...jwk, use: 'wit-svid', kid: 'w1' }

const full: Bundle = {
  ...bundleOfKeys({ jwt: { k1: pair, k2: rsaPair() }, wit: { w1: ecPair('P-384') } }),
  x509Authorities: [root.der],
  sequence: 7n,
  refreshHintSeconds: 60,
}
const parse = (document: object) => parseBundle(JSON.stringify(document), trustDomain)
const counts = ({ x509Authorities, jwtAuthorities, witAuthorities }: Bundle) => [
  x509Authorities.length,
  jwtAuthorities.size,
  witAuthorities.size,
]

describe('a bundle document', () => {
  it('reads back what it writes', () => {
    const back = parseBundle(formatBundle(full), trustDomain)
    expect(counts(back)).toEqual([1, 2, 1])
    expect(back.x509Authorities).toEqual(full.x509Authorities)
    expect([back.sequence, back.refreshHintSeconds]).toEqual([7n, 60])
    for (const [kid, { key }] of full.jwtAuthorities)
      expect(back.jwtAuthorities.get(kid)?.key.equals(key)).toBe(true)
  })

  it('XS-13, JS-10, WT-11, TB-4, TB-5: writes the members of each kind and no others', () => {
    const { keys, ...top } = JSON.parse(formatBundle(full)) as { keys: Record<string, unknown>[] }
    expect(top).toEqual({ spiffe_sequence: 7, spiffe_refresh_hint: 60 })
    expect(keys.map(({ use, kid }) => [use, kid])).toEqual([
      ['x509-svid', undefined],
      ['jwt-svid', 'k1'],
      ['jwt-svid', 'k2'],
      ['wit-svid', 'w1'],
    ])
    expect(keys[0]).toEqual(x509Jwk)
    expect(keys[1]).toEqual(jwtJwk)
  })

  it('WA-10, WA-13: gives token bundles with keys of their own kind only', () => {
    const jwt = JSON.parse(formatJwtBundle(full)) as { keys: Record<string, unknown>[] }
    expect(jwt.keys.map(({ kid, kty }) => [kid, kty])).toEqual([
      ['k1', 'EC'],
      ['k2', 'RSA'],
    ])
    const wit = JSON.parse(formatWitBundle(full)) as { keys: Record<string, unknown>[] }
    expect(wit.keys.map(({ kid }) => kid)).toEqual(['w1'])
  })

  it('TB-1: may be empty, which trusts nothing', () => {
    expect(counts(parse({ keys: [] }))).toEqual([0, 0, 0])
  })

  it.each<[string, string, string]>([
    ['TB-1: no keys', '{}', '`keys` is not an array'],
    ['TB-1: an object as keys', '{"keys":{}}', '`keys` is not an array'],
    ['a list', '[]', 'the JSON is not an object'],
    ['no JSON', '{', 'the text is not JSON'],
    ['TB-6: a member twice', '{"keys":[],"keys":[]}', 'a member is there twice at position 17'],
    [
      'TB-6: a member of a key twice',
      '{"keys":[{"kid":"a","kid":"b"}]}',
      'a member is there twice at position 25',
    ],
    [
      'TB-2: a string as sequence',
      '{"keys":[],"spiffe_sequence":"1"}',
      '`spiffe_sequence` is not an integer from 0 to 2^53 - 1',
    ],
    [
      'TB-2: a fraction as sequence',
      '{"keys":[],"spiffe_sequence":1.5}',
      '`spiffe_sequence` is not an integer from 0 to 2^53 - 1',
    ],
    [
      'TB-2: a sequence that a double cannot hold',
      '{"keys":[],"spiffe_sequence":9007199254740993}',
      '`spiffe_sequence` is not an integer from 0 to 2^53 - 1',
    ],
    [
      'TB-2: a negative sequence',
      '{"keys":[],"spiffe_sequence":-1}',
      '`spiffe_sequence` is not an integer from 0 to 2^53 - 1',
    ],
    [
      'TB-3: a fraction as refresh hint',
      '{"keys":[],"spiffe_refresh_hint":0.1}',
      '`spiffe_refresh_hint` is not an integer from 0',
    ],
    [
      'TB-3: a negative refresh hint',
      '{"keys":[],"spiffe_refresh_hint":-1}',
      '`spiffe_refresh_hint` is not an integer from 0',
    ],
    ['over 1,000 keys', JSON.stringify({ keys: Array(1001).fill({}) }), 'over 1000 keys'],
    [
      'WT-11: a kid twice among JWT keys',
      JSON.stringify({ keys: [jwtJwk, jwtJwk] }),
      'two keys have one `kid`',
    ],
    [
      'WT-11: a kid of a JWT and a WIT key',
      JSON.stringify({ keys: [jwtJwk, { ...witJwk, kid: 'k1' }] }),
      'two keys have one `kid`',
    ],
  ])('is refused with %s', (_what, text, wanted) => {
    expect(faultOf(() => parseBundle(text, trustDomain))).toBe(
      `bundle_missing: the bundle cannot be used: ${wanted}`,
    )
  })

  it('TB-3: polls every 5 min when it gives no hint', () => {
    expect(
      [parse({ keys: [] }), parse({ keys: [], spiffe_refresh_hint: 0 })].map((b) => b.refreshHintSeconds),
    ).toEqual([300, 300])
  })

  it.each<[string, unknown]>([
    ['TB-4: an unknown kty', { ...jwtJwk, kty: 'OKP', crv: 'Ed25519' }],
    ['TB-4: no kty', { ...jwtJwk, kty: undefined }],
    ['TB-4: no use', { ...jwtJwk, use: undefined }],
    ['TB-4: a use of another case', { ...jwtJwk, use: 'JWT-SVID' }],
    ['TB-4: an unknown use', { ...jwtJwk, use: 'sig' }],
    ['JS-10: no kid', { ...jwtJwk, kid: undefined }],
    ['JS-10: an empty kid', { ...jwtJwk, kid: '' }],
    ['a number as kid', { ...jwtJwk, kid: 1 }],
    ['a point off its curve', { ...jwtJwk, x: Buffer.alloc(32, 1).toString('base64url') }],
    ['secp256k1', { ...ecPair('secp256k1').publicKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'a' }],
    [
      'its private half published',
      { ...pair.privateKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'a' },
    ],
    ['XS-14: no x5c', { ...x509Jwk, x5c: undefined }],
    ['XS-14: an empty x5c', { ...x509Jwk, x5c: [] }],
    ['XS-14: an empty text in x5c', { ...x509Jwk, x5c: [''] }],
    ['a string as x5c', { ...x509Jwk, x5c: root.der.toString('base64') }],
    ['base64url in x5c', { ...x509Jwk, x5c: [root.der.toString('base64url')] }],
    ['a line break in x5c', { ...x509Jwk, x5c: [`${root.der.toString('base64')}\n`] }],
    [
      'bytes after the certificate',
      { ...x509Jwk, x5c: [Buffer.concat([root.der, Buffer.of(0)]).toString('base64')] },
    ],
    ['junk in x5c', { ...x509Jwk, x5c: ['AAAA'] }],
    ['an x509 key of unknown kty', { ...x509Jwk, kty: 'OKP' }],
    ['null as key', null],
    ['a text as key', 'key'],
  ])('skips a key with %s and keeps the others', (_what, key) => {
    const bundle = parse({ keys: [key, { ...jwtJwk, kid: 'good' }] })
    expect(counts(bundle)).toEqual([0, 1, 0])
    expect([...bundle.jwtAuthorities.keys()]).toEqual(['good'])
  })

  it('XS-14: takes the first certificate of x5c and no other', () => {
    const other = makeAuthority()
    const x5c = [root.der, other.der].map((der) => der.toString('base64'))
    expect(parse({ keys: [{ ...x509Jwk, x5c }] }).x509Authorities).toEqual([root.der])
  })

  it('TB-4: needs no member that the standard does not ask for, and ignores those it does not know', () => {
    expect(counts(parse({ keys: [jwtJwk, witJwk, x509Jwk], custom: { a: 1 } }))).toEqual([1, 1, 1])
  })
})
