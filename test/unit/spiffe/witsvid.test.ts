import { compactVerify, importJWK } from 'jose'
import { describe, expect, it } from 'vitest'
import { generateKey } from '../../../src/keys/signer.ts'
import { parseSpiffeId } from '../../../src/spiffe/id.ts'
import { publicJwkOf } from '../../../src/spiffe/jwk.ts'
import { makeWitSvid, verifyWitSvid } from '../../../src/spiffe/witsvid.ts'
import { ecPair, LEAF_ID, NOW, rsaPair } from '../../support/certificates.ts'
import { faultOf } from '../../support/faults.ts'
import { bundleOfKeys, signToken } from '../../support/tokens.ts'

const pair = ecPair()
const holder = ecPair()
const bundle = bundleOfKeys({ jwt: { k1: pair }, wit: { w1: pair } })
const bundleOf = (trustDomain: string) => (trustDomain === 'example.org' ? bundle : undefined)
const HEADER = { alg: 'ES256', kid: 'w1', typ: 'wit+jwt' }
const JWK = { ...publicJwkOf(holder.publicKey), alg: 'ES256' }
const CLAIMS = { sub: LEAF_ID, exp: NOW + 300, iat: NOW, cnf: { jwk: JWK } }

const verify = (token: string) => verifyWitSvid(token, bundleOf, NOW)
const why = (token: string) => faultOf(() => verify(token)).replace(': the SVID does not verify:', ':')
const withHeader = (change: object) => signToken({ ...HEADER, ...change }, CLAIMS, pair)
const withClaims = (change: object) => signToken(HEADER, { ...CLAIMS, ...change }, pair)
const withJwk = (change: object) => withClaims({ cnf: { jwk: { ...JWK, ...change } } })

it('WT-1, WT-2, WT-4, WT-5, WT-8: makes a token that jose and we verify, with neither aud nor iss', async () => {
  const signer = generateKey('ES256')
  const token = makeWitSvid(
    {
      spiffeId: parseSpiffeId(LEAF_ID),
      publicJwk: publicJwkOf(holder.publicKey),
      jwkAlg: 'ES256',
      now: NOW,
      expires: NOW + 300,
      kid: 'w1',
    },
    signer,
  )
  const { protectedHeader, payload } = await compactVerify(token, await importJWK(signer.publicJwk, 'ES256'))
  expect(protectedHeader).toEqual(HEADER)
  expect(JSON.parse(Buffer.from(payload).toString())).toEqual(CLAIMS)
  const keys = bundleOfKeys({ wit: { w1: { ...pair, publicKey: signer.publicKey } } })
  const svid = verifyWitSvid(token, () => keys, NOW)
  expect(svid).toMatchObject({ spiffeId: LEAF_ID, alg: 'ES256', expires: NOW + 300 })
  expect(svid.key.equals(holder.publicKey)).toBe(true)
})

describe('verifyWitSvid', () => {
  const HEAD = 'svid_invalid: its header is not that of a WIT-SVID'
  it.each<[string, object, string]>([
    ['WT-1: typ JWT', { typ: 'JWT' }, HEAD],
    ['WT-1: no typ', { typ: undefined }, HEAD],
    ['WT-1: typ WIT+JWT', { typ: 'WIT+JWT' }, HEAD],
    ['WT-1: no kid', { kid: undefined }, HEAD],
    ['WT-1: an empty kid', { kid: '' }, HEAD],
    ['WT-1: alg none', { alg: 'none' }, HEAD],
    ['WT-1: alg EdDSA', { alg: 'EdDSA' }, HEAD],
    [
      'WT-1: a kid of another case',
      { kid: 'W1' },
      'svid_invalid: its kid is not in the bundle of its trust domain',
    ],
    [
      'WT-11: the kid of a JWT key',
      { kid: 'k1' },
      'svid_invalid: its kid is not in the bundle of its trust domain',
    ],
    ['WT-2: crit', { crit: ['x'], x: 1 }, 'svid_invalid: its header names critical extensions'],
  ])('refuses a header with %s', (_what, change, wanted) => {
    expect(why(withHeader(change))).toBe(wanted)
  })

  it('WT-2: ignores unknown header members', () => {
    expect(verify(withHeader({ x: 1, jku: 'https://evil.test/' })).spiffeId).toBe(LEAF_ID)
  })

  it.each<[string, object, string]>([
    ['WT-3: no sub', { sub: undefined }, 'svid_invalid: it has no sub'],
    [
      'WT-3: a sub without path',
      { sub: 'spiffe://example.org' },
      'spiffe_id_invalid: not a SPIFFE ID of a workload (it needs a path): "spiffe://example.org"',
    ],
    ['WT-3: no exp', { exp: undefined }, 'svid_invalid: it has no usable exp'],
    ['WT-3: a string as exp', { exp: '1' }, 'svid_invalid: it has no usable exp'],
    ['WT-3: a past exp', { exp: NOW - 5 }, 'svid_expired: the SVID expired 5 s ago'],
    ['WT-5: an aud', { aud: ['db'] }, 'svid_invalid: a WIT-SVID must not have an aud'],
    ['WT-5: null as aud', { aud: null }, 'svid_invalid: a WIT-SVID must not have an aud'],
    ['WT-6: a future nbf', { nbf: NOW + 6 }, 'svid_invalid: its nbf is 6 s in the future'],
    ['WT-6: a string as iat', { iat: '1' }, 'svid_invalid: its iat is not a date'],
    ['WT-4: no cnf', { cnf: undefined }, 'svid_invalid: it has no cnf with one jwk'],
    ['WT-4: a string as cnf', { cnf: 'jwk' }, 'svid_invalid: it has no cnf with one jwk'],
    ['WT-4: a cnf of jkt alone', { cnf: { jkt: 'x' } }, 'svid_invalid: it has no cnf with one jwk'],
    ['WT-4: a list as jwk', { cnf: { jwk: [JWK] } }, 'svid_invalid: it has no cnf with one jwk'],
    [
      'RFC 7800 s.3.1: a second key by jku',
      { cnf: { jwk: JWK, jku: 'https://evil.test/' } },
      'svid_invalid: it has no cnf with one jwk',
    ],
    [
      'an unknown trust domain',
      { sub: 'spiffe://other.org/web' },
      'bundle_missing: no bundle for the trust domain other.org',
    ],
  ])('refuses %s', (_what, change, wanted) => {
    expect(why(withClaims(change))).toBe(wanted)
  })

  const NO_ALG = 'svid_invalid: its cnf.jwk has no usable alg'
  const NO_KEY = 'svid_invalid: its cnf.jwk is not a public key of its alg'
  it.each<[string, object, string]>([
    ['no alg', { alg: undefined }, NO_ALG],
    ['alg HS256', { alg: 'HS256' }, NO_ALG],
    ['the alg of another curve', { alg: 'ES384' }, NO_KEY],
    ['the alg of another kind of key', { alg: 'RS256' }, NO_KEY],
    ['a private half', { d: 'AQAB' }, NO_KEY],
    ['a symmetric key', { kty: 'oct', k: 'AQAB' }, NO_KEY],
    ['an Ed25519 key', { kty: 'OKP', crv: 'Ed25519', x: JWK.kty }, NO_KEY],
    ['a point off its curve', { x: Buffer.alloc(32, 1).toString('base64url') }, NO_KEY],
    ['a number as x', { x: 1 }, NO_KEY],
    ['an RSA key of 1024 bits', { ...publicJwkOf(rsaPair(1024).publicKey), alg: 'RS256' }, NO_KEY],
  ])('WT-4: refuses a cnf.jwk with %s', (_what, change, wanted) => {
    expect(why(withJwk(change))).toBe(wanted)
  })

  it('WT-6: takes no iat as lower bound, and 5 s of leeway for nbf', () => {
    expect(verify(withClaims({ iat: NOW + 3600, nbf: NOW + 5 })).spiffeId).toBe(LEAF_ID)
  })

  it('WT-7: takes one token as often as it comes, whatever its jti', () => {
    const token = withClaims({ jti: 'a' })
    expect(verify(token)).toMatchObject({ spiffeId: LEAF_ID })
    expect(verify(token)).toMatchObject({ spiffeId: LEAF_ID })
  })

  it('refuses a signature of another key and what is no compact JWS', () => {
    expect(why(signToken(HEADER, CLAIMS, ecPair()))).toBe('svid_invalid: its signature is wrong')
    expect(why('a.b')).toBe('svid_invalid: it is not a compact JWS')
  })
})
