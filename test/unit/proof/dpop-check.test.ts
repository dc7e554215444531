/** The twelve checks of RFC 9449 s.4.3 that one proof can fail, each by a proof that fails this one alone. */
import { createHmac, generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import { generateKey } from '../../../src/keys/signer.ts'
import { makeDpop } from '../../../src/proof/dpop.ts'
import { DpopChecker, type ExpectedProof } from '../../../src/proof/dpop-check.ts'
import { hashOf } from '../../../src/proof/jwt.ts'
import { makeJws } from '../../../src/spiffe/jws.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'

const clock = new ManualClock()
const now = nowSeconds(clock)
const signer = generateKey('ES256')
const URL = 'https://orders.example.org/v1/items'
const TOKEN = 'an.access.token'
const EXPECTED: ExpectedProof = {
  method: 'GET',
  urls: [URL],
  ath: hashOf(TOKEN),
  now,
  window: 60,
  skew: 5,
  algs: new Set(['ES256', 'PS256'] as const),
}
const CLAIMS = { jti: 'j-1', htm: 'GET', htu: URL, iat: now, ath: hashOf(TOKEN) }
const HEADER = { typ: 'dpop+jwt', alg: 'ES256', jwk: signer.publicJwk }

const proofOf = (claims: object = {}, header: object = {}, by = signer) =>
  makeJws({ ...HEADER, ...header }, { ...CLAIMS, ...claims }, by)
const check = (proof: string, over: Partial<ExpectedProof> = {}) =>
  new DpopChecker().check(proof, { ...EXPECTED, ...over })
const reasonOf = (proof: string, over: Partial<ExpectedProof> = {}) =>
  faultOf(() => check(proof, over)).split(':')[0]

describe('a genuine proof', () => {
  it('says whose key, which proof and when', () => {
    const { proof, jti, iat } = makeDpop(signer, { htm: 'GET', htu: URL, ath: hashOf(TOKEN) }, clock)
    expect(check(proof)).toEqual({ jkt: signer.jkt, jti, iat, nonce: undefined })
  })

  it('is taken at each public origin of the route', () => {
    const other = 'https://internal.example.org/v1/items'
    expect(check(proofOf({ htu: other }), { urls: [URL, other] }).jti).toBe('j-1')
  })

  it.each([
    'HTTPS://orders.example.org/v1/items',
    'https://ORDERS.example.org:443/v1/items',
    'https://orders.example.org/v1/items?q=1',
    'https://orders.example.org/v1/items#f',
  ])('may spell its htu %s', (htu) => {
    expect(check(proofOf({ htu })).jti).toBe('j-1')
  })

  it('needs no ath where there is no token', () => {
    expect(check(proofOf({ ath: undefined }), { ath: undefined }).jkt).toBe(signer.jkt)
  })

  it('hands its nonce on', () => {
    expect(check(proofOf({ nonce: 'n-1' })).nonce).toBe('n-1')
  })

  it('is taken at the very ends of its window', () => {
    expect(check(proofOf({ iat: now - 64 })).iat).toBe(now - 64)
    expect(check(proofOf({ iat: now + 5 })).iat).toBe(now + 5)
  })

  it('by RSA is taken where RSA is', () => {
    const rsa = generateKey('PS256')
    expect(check(proofOf({}, { alg: 'PS256', jwk: rsa.publicJwk }, rsa)).jkt).toBe(rsa.jkt)
  })
})

describe('a proof is refused', () => {
  const hmac = { alg: 'HS256', sign: (input: Uint8Array) => createHmac('sha256', 'k').update(input).digest() }
  const other = generateKey('ES256')
  const big = generateKeyPairSync('rsa', { modulusLength: 1024 })
  const privateJwk = { ...signer.publicJwk, d: 'AAAA' }

  it.each<[string, string, string]>([
    ['that is not a JWS', 'a.b', 'proof_malformed'],
    ['that is empty', '', 'proof_malformed'],
    ['over its size', `${proofOf({ more: 'x'.repeat(9000) })}`, 'proof_malformed'],
    ['of another typ', proofOf({}, { typ: 'JWT' }), 'proof_malformed'],
    ['without typ', proofOf({}, { typ: undefined }), 'proof_malformed'],
    ['with alg none', proofOf({}, { alg: 'none' }), 'proof_malformed'],
    ['by HMAC', makeJws({ ...HEADER, alg: 'HS256' }, CLAIMS, hmac), 'proof_malformed'],
    ['by an algorithm that is not taken', proofOf({}, { alg: 'ES384' }), 'proof_malformed'],
    ['of an alg that is not the key’s', proofOf({}, { alg: 'PS256' }), 'proof_malformed'],
    ['with crit', proofOf({}, { crit: ['x'] }), 'proof_malformed'],
    ['without jwk', proofOf({}, { jwk: undefined }), 'proof_malformed'],
    ['with a jwk that is a list', proofOf({}, { jwk: [signer.publicJwk] }), 'proof_malformed'],
    ['with a private jwk', proofOf({}, { jwk: privateJwk }), 'proof_malformed'],
    ['with a symmetric jwk', proofOf({}, { jwk: { kty: 'oct', k: 'AAAA' } }), 'proof_malformed'],
    [
      'with a short RSA key',
      proofOf({}, { alg: 'PS256', jwk: big.publicKey.export({ format: 'jwk' }) }),
      'proof_malformed',
    ],
    ['without jti', proofOf({ jti: undefined }), 'proof_malformed'],
    ['with an empty jti', proofOf({ jti: '' }), 'proof_malformed'],
    ['with a jti that is a number', proofOf({ jti: 1 }), 'proof_malformed'],
    ['with a long jti', proofOf({ jti: 'j'.repeat(257) }), 'proof_malformed'],
    ['without iat', proofOf({ iat: undefined }), 'proof_malformed'],
    ['with an iat in text', proofOf({ iat: String(now) }), 'proof_malformed'],
    ['without htm', proofOf({ htm: undefined }), 'proof_malformed'],
    ['without htu', proofOf({ htu: undefined }), 'proof_malformed'],
    ['with an ath that is a number', proofOf({ ath: 1 }), 'proof_malformed'],
    ['with a nonce of another form', proofOf({ nonce: 'a b' }), 'proof_malformed'],
    ['for another method', proofOf({ htm: 'POST' }), 'proof_method'],
    ['for the method in lower case', proofOf({ htm: 'get' }), 'proof_method'],
    ['for another path', proofOf({ htu: `${URL}/1` }), 'proof_url'],
    ['for another host', proofOf({ htu: 'https://other.example.org/v1/items' }), 'proof_url'],
    ['for http', proofOf({ htu: URL.replace('https', 'http') }), 'proof_url'],
    ['for a path with a slash more', proofOf({ htu: `${URL}/` }), 'proof_url'],
    ['for a path with dots', proofOf({ htu: 'https://orders.example.org/x/../v1/items' }), 'proof_url'],
    ['for a path with escapes', proofOf({ htu: 'https://orders.example.org/v1/item%73' }), 'proof_url'],
    ['for what is no URL', proofOf({ htu: 'orders' }), 'proof_url'],
    ['without ath', proofOf({ ath: undefined }), 'proof_token'],
    ['for another token', proofOf({ ath: hashOf('another') }), 'proof_token'],
    ['that is too old', proofOf({ iat: now - 65 }), 'proof_time'],
    ['from the future', proofOf({ iat: now + 6 }), 'proof_time'],
    ['of no time at all', proofOf({ iat: Number.MAX_VALUE }), 'proof_time'],
    ['not good yet', proofOf({ nbf: now + 60 }), 'proof_time'],
    ['with an nbf in text', proofOf({ nbf: 'soon' }), 'proof_time'],
    ['that has expired', proofOf({ exp: now - 60 }), 'proof_time'],
    ['with the key of another', proofOf({}, { jwk: other.publicJwk }), 'proof_forged'],
    ['whose signature is another', proofOf().replace(/[^.]*$/, 'A'.repeat(86)), 'proof_forged'],
    ['whose payload was changed', swapped(proofOf(), proofOf({ jti: 'j-2' })), 'proof_forged'],
  ])('%s', (_what, proof, reason) => {
    expect(reasonOf(proof)).toBe(reason)
  })

  it('by its known key as well, when anything else is wrong', () => {
    const checker = new DpopChecker()
    checker.check(proofOf(), EXPECTED)
    expect(faultOf(() => checker.check(swapped(proofOf(), proofOf({ jti: 'j-2' })), EXPECTED))).toMatch(
      /^proof_forged:/,
    )
    const narrow = { ...EXPECTED, algs: new Set(['PS256'] as const) }
    expect(faultOf(() => checker.check(proofOf(), narrow))).toMatch(/^proof_malformed:/)
  })

  it('whose header is kept only when it has signed, is the one that is wanted, and is no longer than need be', () => {
    const checker = new DpopChecker()
    const keptAfter = (proof: string, over: object = {}) => {
      checker.check(proof, { ...EXPECTED, ...over })
      return checker.count
    }
    faultOf(() => keptAfter(swapped(proofOf(), proofOf({ jti: 'j-2' }))))
    expect(checker.count).toBe(0)
    expect(keptAfter(proofOf(), { jkt: 'another' })).toBe(0)
    expect(keptAfter(proofOf({}, { more: 'x'.repeat(2_048) }))).toBe(0)
    expect([keptAfter(proofOf()), keptAfter(proofOf())]).toEqual([1, 1])
  })

  it('without a word of it in the refusal', () => {
    const proof = proofOf({ htm: 'CANARY secret', jti: 'canary', nonce: 'canary' })
    expect(faultOf(() => check(proof))).not.toMatch(/canary/i)
  })
})

/** The header and signature of one proof around the payload of another. */
function swapped(one: string, other: string): string {
  const [header, , signature] = one.split('.')
  return [header, other.split('.')[1], signature].join('.')
}
