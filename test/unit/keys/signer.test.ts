import { constants, verify } from 'node:crypto'
import { compactVerify, importJWK } from 'jose'
import { describe, expect, it } from 'vitest'
import { generateKey } from '../../../src/keys/signer.ts'
import type { Alg } from '../../../src/proof/signer.ts'
import { thumbprint } from '../../../src/spiffe/jwk.ts'
import { faultOf } from '../../support/faults.ts'

const ALGS: readonly Alg[] = ['ES256', 'ES384', 'RS256', 'PS256']
const raw = { dsaEncoding: 'ieee-p1363' as const }

describe('a held key', () => {
  it.each(ALGS)('signs by %s what jose verifies', async (alg) => {
    const key = generateKey(alg)
    const header = Buffer.from(JSON.stringify({ alg })).toString('base64url')
    const input = `${header}.${Buffer.from('{}').toString('base64url')}`
    const token = `${input}.${key.sign(Buffer.from(input)).toString('base64url')}`
    await expect(compactVerify(token, await importJWK(key.publicJwk, alg))).resolves.toBeDefined()
    expect(key.jkt).toBe(thumbprint(key.publicJwk))
  })

  it.each(ALGS)('signs by %s for certificates what node:crypto verifies', (alg) => {
    const key = generateKey(alg)
    const input = Buffer.from('to be signed')
    expect(verify(alg === 'ES384' ? 'sha384' : 'sha256', input, key.publicKey, key.signDer(input))).toBe(true)
  })

  it('signs by PS256 with a salt as long as the digest (RFC 7518 s.3.5)', () => {
    const key = generateKey('PS256')
    const input = Buffer.from('input')
    const options = { key: key.publicKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }
    expect(verify('sha256', input, options, key.sign(input))).toBe(true)
  })

  it.each<[Alg, number, string, number]>([
    ['ES256', 5000, 'sha256', 64],
    ['ES384', 300, 'sha384', 96],
  ])(
    'converts by %s %i signatures to r||s',
    (alg, total, digest, length) => {
      const key = generateKey(alg)
      let short = 0
      for (let count = 0; count < total; count += 1) {
        const input = Buffer.from(`${alg} ${count}`)
        const signature = key.sign(input)
        if (signature[0] === 0 || signature[length / 2] === 0) short += 1
        if (signature.length !== length || !verify(digest, input, { key: key.publicKey, ...raw }, signature))
          throw new Error(`signature ${count} is wrong: ${signature.toString('hex')}`)
      }
      // One integer in 256 is short: of 10,000, some are.
      if (total === 5000) expect(short).toBeGreaterThan(0)
    },
    60_000,
  )

  it.each(ALGS)('by %s is lost for good once destroyed', (alg) => {
    const key = generateKey(alg)
    key.destroy()
    expect(faultOf(() => key.sign(Buffer.of(1)))).toMatch(/^key_lost: /)
    expect(faultOf(() => key.signDer(Buffer.of(1)))).toMatch(/^key_lost: /)
  })

  it('shows nothing private to whoever prints it', () => {
    expect(JSON.stringify(generateKey('ES256'))).not.toMatch(/"d"|privateKey/)
  })
})
