import { importJWK, jwtVerify } from 'jose'
import { expect, it } from 'vitest'
import { generateKey } from '../../../src/keys/signer.ts'
import { hashOf } from '../../../src/proof/jwt.ts'
import { makeWpt } from '../../../src/proof/wpt.ts'
import { ManualClock } from '../../support/clock.ts'

const clock = new ManualClock()
const CLAIMS = { aud: 'https://orders.example.org/v1', wit: 'a.b.c' }

it('WT-10: makes a proof of the WIT that jose verifies and that lives 60 s', async () => {
  const signer = generateKey('ES256')
  const { proof, jti, exp } = makeWpt(signer, { ...CLAIMS, ath: 'a', tth: 't' }, clock)
  const { payload, protectedHeader } = await jwtVerify(proof, await importJWK(signer.publicJwk, 'ES256'), {
    typ: 'wpt+jwt',
    audience: CLAIMS.aud,
    currentDate: new Date(clock.now()),
  })
  expect(protectedHeader).toEqual({ typ: 'wpt+jwt', alg: 'ES256' })
  expect(payload).toEqual({ aud: CLAIMS.aud, exp, jti, wth: hashOf('a.b.c'), ath: 'a', tth: 't' })
  expect(exp).toBe(1_700_000_060)
})

it('leaves out the hashes of tokens that are not sent, and names no key: the WIT does', async () => {
  const { proof } = makeWpt(generateKey('ES256'), CLAIMS, clock)
  const [header = '', payload = ''] = proof.split('.')
  expect(Object.keys(JSON.parse(Buffer.from(header, 'base64url').toString()))).toEqual(['typ', 'alg'])
  expect(Object.keys(JSON.parse(Buffer.from(payload, 'base64url').toString()))).toEqual([
    'aud',
    'exp',
    'jti',
    'wth',
  ])
})
