import { createPublicKey, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { EmbeddedJWK, jwtVerify } from 'jose'
import { describe, expect, it } from 'vitest'
import { generateKey } from '../../../src/keys/signer.ts'
import { makeDpop } from '../../../src/proof/dpop.ts'
import { hashOf } from '../../../src/proof/jwt.ts'
import type { Alg } from '../../../src/proof/signer.ts'
import { type PublicJwk, thumbprint } from '../../../src/spiffe/jwk.ts'
import { parseJws, verifyJws } from '../../../src/spiffe/jws.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'

interface Vectors {
  readonly jwk: PublicJwk
  readonly jkt: string
  readonly tokenRequest: { readonly proof: string; readonly claims: object }
  readonly resourceRequest: { readonly token: string; readonly ath: string }
}
const vectors = JSON.parse(
  readFileSync(new URL('../../vectors/rfc9449.json', import.meta.url), 'utf8'),
) as Vectors

const clock = new ManualClock(1_700_000_000_999)
const CLAIMS = { htm: 'POST', htu: 'https://orders.example.org/v1' }
const partsOf = (token: string) =>
  token.split('.', 2).map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()) as object)

describe('the samples of RFC 9449', () => {
  it('s.7.1: make the ath of the access token', () => {
    expect(vectors.resourceRequest.ath).toBe('fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo')
    expect(hashOf(vectors.resourceRequest.token)).toBe(vectors.resourceRequest.ath)
  })

  it('s.6.1: make the jkt of the key', () => {
    expect(thumbprint(vectors.jwk)).toBe(vectors.jkt)
  })

  it('s.4.1: verify by our own JWS reader', () => {
    const jws = parseJws(vectors.tokenRequest.proof)
    const key = createPublicKey({ key: { ...vectors.jwk }, format: 'jwk' })
    expect(jws?.payload).toEqual(vectors.tokenRequest.claims)
    expect(jws && verifyJws(jws, key, 'ES256')).toBe(true)
  })
})

describe('makeDpop', () => {
  it.each<Alg>(['ES256', 'ES384', 'RS256', 'PS256'])(
    'makes a proof by %s that jose verifies by its own jwk',
    async (alg) => {
      const signer = generateKey(alg)
      const { proof, jti, iat } = makeDpop(signer, { ...CLAIMS, ath: 'a', nonce: 'n' }, clock)
      const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, {
        typ: 'dpop+jwt',
        algorithms: [alg],
        currentDate: new Date(clock.now()),
        maxTokenAge: 1,
      })
      expect(payload).toEqual({ jti, htm: 'POST', htu: CLAIMS.htu, iat, ath: 'a', nonce: 'n' })
      expect(protectedHeader).toEqual({ typ: 'dpop+jwt', alg, jwk: signer.publicJwk })
    },
  )

  it('s.4.2: has the header and claims of the standard and nothing else', () => {
    const signer = generateKey('ES256')
    const [header, payload] = partsOf(makeDpop(signer, CLAIMS, clock).proof)
    expect(Object.keys(header ?? {})).toEqual(['typ', 'alg', 'jwk'])
    expect(Object.keys(payload ?? {})).toEqual(['jti', 'htm', 'htu', 'iat'])
    expect(Object.keys((header as { jwk: object }).jwk)).toEqual(['kty', 'crv', 'x', 'y'])
  })

  it('s.4.2: sets iat itself, in whole seconds of now', () => {
    expect(makeDpop(generateKey('ES256'), CLAIMS, clock).iat).toBe(1_700_000_000)
  })

  it('s.4.2: never gives one jti twice, and each has 128 bits', () => {
    const signer = generateKey('ES256')
    const seen = new Set(Array.from({ length: 1000 }, () => makeDpop(signer, CLAIMS, clock).jti))
    expect(seen.size).toBe(1000)
    for (const jti of seen) expect(Buffer.from(jti, 'base64url')).toHaveLength(16)
  })

  it('keeps the proofs of two keys apart', () => {
    for (const signer of [generateKey('ES256'), generateKey('ES256')]) {
      const { proof } = makeDpop(signer, CLAIMS, clock)
      const [header] = partsOf(proof)
      expect(header).toMatchObject({ jwk: signer.publicJwk })
      const [input, signature] = [
        proof.slice(0, proof.lastIndexOf('.')),
        proof.slice(proof.lastIndexOf('.') + 1),
      ]
      const key = { key: signer.publicKey, dsaEncoding: 'ieee-p1363' as const }
      expect(verify('sha256', Buffer.from(input), key, Buffer.from(signature, 'base64url'))).toBe(true)
    }
  })

  it('cannot be made to carry more than its claims by what they hold', () => {
    const { proof } = makeDpop(generateKey('ES256'), { ...CLAIMS, nonce: '","iat":1,"x":"' }, clock)
    expect(partsOf(proof)[1]).toMatchObject({ nonce: '","iat":1,"x":"', iat: 1_700_000_000 })
  })

  it('has the payload that JSON.stringify makes, whatever the claims hold', () => {
    const signer = generateKey('ES256')
    const text = fc.string({ unit: 'binary', maxLength: 64 })
    const claims = fc.record(
      { htm: text, htu: text, ath: text, nonce: text },
      { requiredKeys: ['htm', 'htu'] },
    )
    fc.assert(
      fc.property(claims, ({ htm, htu, ath, nonce }) => {
        const { proof, jti, iat } = makeDpop(signer, { htm, htu, ath, nonce }, clock)
        const payload = Buffer.from(proof.split('.')[1] ?? '', 'base64url').toString()
        expect(payload).toBe(JSON.stringify({ jti, htm, htu, iat, ath, nonce }))
      }),
    )
  })

  it('is refused when its key is gone', () => {
    const signer = generateKey('ES256')
    signer.destroy()
    expect(faultOf(() => makeDpop(signer, CLAIMS, clock))).toMatch(/^key_lost: /)
  })
})
