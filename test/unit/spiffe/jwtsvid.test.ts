import { createPublicKey, type KeyObject } from 'node:crypto'
import { compactVerify, importJWK } from 'jose'
import { describe, expect, it } from 'vitest'
import { generateKey } from '../../../src/keys/signer.ts'
import type { Alg } from '../../../src/proof/signer.ts'
import { parseSpiffeId } from '../../../src/spiffe/id.ts'
import { isFit } from '../../../src/spiffe/jws.ts'
import { makeJwtSvid, verifyJwtSvid } from '../../../src/spiffe/jwtsvid.ts'
import { ecPair, LEAF_ID, NOW, rsaPair, spkiOf } from '../../support/certificates.ts'
import { faultOf } from '../../support/faults.ts'
import { bundleOfKeys, macToken, signToken } from '../../support/tokens.ts'

const pair = ecPair()
const bundle = bundleOfKeys({ jwt: { k1: pair }, wit: { w1: pair } })
const bundleOf = (trustDomain: string) => (trustDomain === 'example.org' ? bundle : undefined)
const HEADER = { alg: 'ES256', kid: 'k1', typ: 'JWT' }
const CLAIMS = { sub: LEAF_ID, aud: ['db'], exp: NOW + 300, iat: NOW }

const verify = (token: string, audience = 'db') => verifyJwtSvid(token, audience, bundleOf, NOW)
const why = (token: string, audience = 'db') =>
  faultOf(() => verify(token, audience)).replace(': the SVID does not verify:', ':')
const withHeader = (change: object) => signToken({ ...HEADER, ...change }, CLAIMS, pair)
const withClaims = (change: object) => signToken(HEADER, { ...CLAIMS, ...change }, pair)

describe('makeJwtSvid', { timeout: 60_000 }, () => {
  it.each<Alg>(['ES256', 'ES384', 'RS256', 'PS256'])(
    'JS-2, JS-4, JS-6: makes a token by %s that jose and we verify',
    async (alg) => {
      const signer = generateKey(alg)
      const claims = {
        spiffeId: parseSpiffeId(LEAF_ID),
        audience: ['db'],
        now: NOW,
        expires: NOW + 300,
        kid: 'a',
      }
      const token = makeJwtSvid(claims, signer)
      const { protectedHeader, payload } = await compactVerify(token, await importJWK(signer.publicJwk, alg))
      expect(protectedHeader).toEqual({ alg, kid: 'a', typ: 'JWT' })
      expect(JSON.parse(Buffer.from(payload).toString())).toEqual(CLAIMS)
      const keys = bundleOfKeys({ jwt: { a: { ...pair, publicKey: signer.publicKey } } })
      expect(verifyJwtSvid(token, 'db', () => keys, NOW)).toMatchObject({
        spiffeId: LEAF_ID,
        expires: NOW + 300,
      })
    },
  )
})

describe('verifyJwtSvid, by the claim matrix of threats row 8', () => {
  it('gives the identity, the audience, the end and all claims', () => {
    expect(verify(withClaims({ role: 'a' }))).toEqual({
      spiffeId: LEAF_ID,
      audience: ['db'],
      expires: NOW + 300,
      claims: { ...CLAIMS, role: 'a' },
    })
  })

  it.each<[string, object]>([
    ['JS-5: without typ', { typ: undefined }],
    ['JS-5: with typ JOSE', { typ: 'JOSE' }],
  ])('accepts a header %s', (_what, change) => {
    expect(verify(withHeader(change)).spiffeId).toBe(LEAF_ID)
  })

  const NO_ALG = 'svid_invalid: its alg is not one of RS, ES or PS with 256, 384 or 512'
  const NO_TYP = 'svid_invalid: its typ is neither JWT nor JOSE'
  const MEMBERS = 'svid_invalid: its header has members beside alg, kid and typ'
  it.each<[string, object, string]>([
    ['JS-3: alg none', { alg: 'none' }, NO_ALG],
    ['JS-3: alg NONE', { alg: 'NONE' }, NO_ALG],
    ['JS-3: alg HS256', { alg: 'HS256' }, NO_ALG],
    ['JS-3: alg EdDSA', { alg: 'EdDSA' }, NO_ALG],
    ['JS-3: alg ES256K', { alg: 'ES256K' }, NO_ALG],
    ['JS-3: no alg', { alg: undefined }, NO_ALG],
    ['JS-3: a list as alg', { alg: ['ES256'] }, NO_ALG],
    ['JS-3: an alg that is not the key\u2019s', { alg: 'ES384' }, 'svid_invalid: its signature is wrong'],
    ['JS-3: an RSA alg over an EC key', { alg: 'RS256' }, 'svid_invalid: its signature is wrong'],
    ['JS-4: no kid', { kid: undefined }, 'svid_invalid: it has no kid'],
    ['JS-4: a number as kid', { kid: 1 }, 'svid_invalid: it has no kid'],
    ['JS-4: an unknown kid', { kid: 'k2' }, 'svid_invalid: its kid is not in the bundle of its trust domain'],
    [
      'JS-4: the kid of an object\u2019s own members',
      { kid: 'constructor' },
      'svid_invalid: its kid is not in the bundle of its trust domain',
    ],
    [
      'JS-10: the kid of a WIT key',
      { kid: 'w1' },
      'svid_invalid: its kid is not in the bundle of its trust domain',
    ],
    ['JS-5: typ at+jwt', { typ: 'at+jwt' }, NO_TYP],
    ['JS-5: typ wit+jwt', { typ: 'wit+jwt' }, NO_TYP],
    ['JS-5: typ dpop+jwt', { typ: 'dpop+jwt' }, NO_TYP],
    ['JS-5: typ jwt', { typ: 'jwt' }, NO_TYP],
    ['JS-5: an empty typ', { typ: '' }, NO_TYP],
    ['JS-2: jku', { jku: 'https://evil.test/' }, MEMBERS],
    ['JS-2: jwk', { jwk: {} }, MEMBERS],
    ['JS-2: x5c', { x5c: [] }, MEMBERS],
    ['JS-2: crit', { crit: ['exp'] }, MEMBERS],
    ['JS-2: b64', { b64: false }, MEMBERS],
  ])('refuses %s', (_what, change, wanted) => {
    expect(why(withHeader(change))).toBe(wanted)
  })

  const NO_AUD = 'svid_invalid: it has no usable aud'
  const NO_EXP = 'svid_invalid: it has no usable exp'
  it.each<[string, object, string]>([
    ['JS-6: no sub', { sub: undefined }, 'svid_invalid: it has no sub'],
    ['JS-6: a number as sub', { sub: 1 }, 'svid_invalid: it has no sub'],
    ['JS-6: a sub that is no SPIFFE ID', { sub: 'web' }, 'spiffe_id_invalid: not a SPIFFE ID: "web"'],
    ['JS-7: no aud', { aud: undefined }, NO_AUD],
    ['JS-7: an empty list as aud', { aud: [] }, NO_AUD],
    ['JS-7: an empty string as aud', { aud: '' }, NO_AUD],
    ['JS-7: a number in aud', { aud: ['db', 1] }, NO_AUD],
    ['JS-7: an object as aud', { aud: { db: 1 } }, NO_AUD],
    ['JS-7: null as aud', { aud: null }, NO_AUD],
    ['JS-7: another aud', { aud: ['cache'] }, 'svid_audience: the JWT-SVID is not for "db"'],
    ['JS-7: an aud of another case', { aud: ['DB'] }, 'svid_audience: the JWT-SVID is not for "db"'],
    [
      'JS-7: an aud that only begins so',
      { aud: ['db2', 'd'] },
      'svid_audience: the JWT-SVID is not for "db"',
    ],
    ['JS-8: no exp', { exp: undefined }, NO_EXP],
    ['JS-8: null as exp', { exp: null }, NO_EXP],
    ['JS-8: a string as exp', { exp: String(NOW + 300) }, NO_EXP],
    ['JS-8: a list as exp', { exp: [NOW + 300] }, NO_EXP],
    ['JS-8: true as exp', { exp: true }, NO_EXP],
    ['JS-8: exp 0', { exp: 0 }, NO_EXP],
    ['JS-8: a negative exp', { exp: -1 }, NO_EXP],
    ['JS-8: an exp in milliseconds', { exp: NOW * 1000 }, NO_EXP],
    ['JS-8: an exp of 1e300', { exp: 1e300 }, NO_EXP],
    ['JS-8: an exp 5 s ago', { exp: NOW - 5 }, 'svid_expired: the SVID expired 5 s ago'],
    ['JS-8: an exp 5.5 s ago', { exp: NOW - 5.5 }, 'svid_expired: the SVID expired 6 s ago'],
    ['JS-8: a future nbf', { nbf: NOW + 6 }, 'svid_invalid: its nbf is 6 s in the future'],
    ['JS-8: a string as nbf', { nbf: '1' }, 'svid_invalid: its nbf is not a date'],
    ['JS-8: a future iat', { iat: NOW + 6 }, 'svid_invalid: its iat is 6 s in the future'],
    ['JS-8: an iat of 1e300', { iat: 1e300 }, 'svid_invalid: its iat is not a date'],
    [
      'JS-11: a trust domain without bundle',
      { sub: 'spiffe://other.org/web' },
      'bundle_missing: no bundle for the trust domain other.org',
    ],
  ])('refuses %s', (_what, change, wanted) => {
    expect(why(withClaims(change))).toBe(wanted)
  })

  it('refuses an exp that JSON reads as infinite', () => {
    const payload = JSON.stringify(CLAIMS).replace(String(NOW + 300), '1e999')
    expect(why(signToken(HEADER, payload, pair))).toBe(NO_EXP)
  })

  it.each<[string, object]>([
    ['JS-7: a string as aud', { aud: 'db' }],
    ['JS-7: one of several audiences', { aud: ['cache', 'db'] }],
    ['JS-8: an exp within 5 s of leeway', { exp: NOW - 4 }],
    ['JS-8: an exp with a fraction (RFC 7519 s.2)', { exp: NOW + 0.5 }],
    ['JS-8: an nbf and iat within 5 s of leeway', { nbf: NOW + 5, iat: NOW + 5 }],
    ['JS-8: neither iat nor nbf', { iat: undefined }],
    ['JS-8: a jti, which need not be tracked', { jti: 'a' }],
  ])('accepts %s', (_what, change) => {
    expect(verify(withClaims(change)).spiffeId).toBe(LEAF_ID)
  })

  const good = withHeader({})
  const [header = '', payload = '', signature = ''] = good.split('.')
  it.each<[string, string]>([
    ['JS-1: the flattened JSON form', JSON.stringify({ protected: header, payload, signature })],
    [
      'JS-1: the general JSON form',
      JSON.stringify({ payload, signatures: [{ protected: header, signature }] }),
    ],
    ['an empty text', ''],
    ['two parts', `${header}.${payload}`],
    ['four parts', `${good}.x`],
    ['an empty signature', `${header}.${payload}.`],
    ['base64url with padding', `${header}.${payload}.${signature}==`],
    ['base64 with + and /', `${header}.${payload}.+/${signature.slice(2)}`],
    ['a second spelling of its last character', respelled(good)],
    ['a space before it', ` ${good}`],
    ['a newline after it', `${good}\n`],
    ['a token of over 64 KiB', `${header}.${'A'.repeat(65_536)}.${signature}`],
    ['a header that is a list', signToken([HEADER], CLAIMS, pair)],
    ['a payload that is null', signToken(HEADER, 'null', pair)],
    [
      'a payload that is not UTF-8',
      `${header}.${Buffer.of(0x7b, 0xff, 0x7d).toString('base64url')}.${signature}`,
    ],
    [
      'a member twice',
      signToken(HEADER, `{"sub":"spiffe://example.org/a",${JSON.stringify(CLAIMS).slice(1)}`, pair),
    ],
    [
      'a member twice in two spellings',
      signToken(HEADER, `{"s\\u0075b":"x",${JSON.stringify(CLAIMS).slice(1)}`, pair),
    ],
    ['alg twice in its header', signToken(`{"alg":"none",${JSON.stringify(HEADER).slice(1)}`, CLAIMS, pair)],
    ['a nesting of 100 lists', signToken(HEADER, `{"a":${'['.repeat(100)}${']'.repeat(100)}}`, pair)],
  ])('refuses %s', (_what, token) => {
    expect(why(token)).toBe('svid_invalid: it is not a compact JWS')
  })

  const WRONG = 'svid_invalid: its signature is wrong'
  it('refuses a signature of another key, over other claims, of zeros, in DER and cut', () => {
    const raw = Buffer.from(signature, 'base64url')
    expect(why(signToken(HEADER, CLAIMS, ecPair()))).toBe(WRONG)
    expect(
      why(
        `${header}.${Buffer.from(JSON.stringify({ ...CLAIMS, sub: 'spiffe://example.org/root' })).toString('base64url')}.${signature}`,
      ),
    ).toBe(WRONG)
    expect(why(`${header}.${payload}.${Buffer.alloc(64).toString('base64url')}`)).toBe(WRONG)
    expect(why(`${header}.${payload}.${raw.subarray(0, 63).toString('base64url')}`)).toBe(WRONG)
    expect(why(`${header}.${payload}.${Buffer.concat([raw, Buffer.of(0)]).toString('base64url')}`)).toBe(
      WRONG,
    )
  })

  it('refuses the public key used as an HMAC secret', () => {
    expect(why(macToken({ ...HEADER, alg: 'HS256' }, CLAIMS, spkiOf(pair)))).toBe(NO_ALG)
    expect(why(macToken(HEADER, CLAIMS, spkiOf(pair)))).toBe(WRONG)
  })

  it('refuses an RSA key of 1024 bits in the bundle, though the signature is right', () => {
    const small = rsaPair(1024)
    const token = signToken({ ...HEADER, alg: 'RS256' }, CLAIMS, small)
    const keys = bundleOfKeys({ jwt: { k1: small } })
    expect(faultOf(() => verifyJwtSvid(token, 'db', () => keys, NOW))).toContain('its signature is wrong')
  })

  it('threats row 10: does not compute with RSA keys whose modulus or exponent would cost milliseconds', () => {
    expect(isFit(rsaKey(2048, 'AQAB'), 'RS256')).toBe(true)
    expect(isFit(rsaKey(16_384, 'AQAB'), 'RS256')).toBe(false)
    for (const exponent of ['AQ', 'Ag']) expect(isFit(rsaKey(2048, exponent), 'RS256')).toBe(false)
    expect(isFit(rsaKey(2048, Buffer.alloc(128, 0xff).toString('base64url')), 'RS256')).toBe(false)
  })

  it('TB-1: trusts nothing when the bundle is empty', () => {
    expect(faultOf(() => verifyJwtSvid(good, 'db', () => bundleOfKeys({}), NOW))).toContain(
      'its kid is not in the bundle',
    )
  })

  it('never quotes the token', () => {
    for (const token of [withClaims({ exp: 1 }), withHeader({ alg: 'none' }), `${good}.x`])
      for (const part of token.split('.')) if (part.length > 8) expect(why(token)).not.toContain(part)
  })
})

/** The last character of a 64-byte signature has two spare bits. */
function respelled(token: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const last = alphabet.indexOf(token.at(-1) ?? '')
  return token.slice(0, -1) + (alphabet[last + 1] ?? '')
}

function rsaKey(bits: number, e: string): KeyObject {
  const n = Buffer.alloc(bits / 8, 0xff).toString('base64url')
  return createPublicKey({ key: { kty: 'RSA', n, e }, format: 'jwk' })
}
