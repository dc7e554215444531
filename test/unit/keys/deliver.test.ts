import { createECDH, createPrivateKey, createPublicKey, sign, verify } from 'node:crypto'
import { importJWK } from 'jose'
import { expect, it } from 'vitest'
import { makeDeliveredKey } from '../../../src/keys/deliver.ts'
import { faultOf } from '../../support/faults.ts'

it('delivers PKCS#8 that node:crypto reads and that belongs to the SPKI, 50 times over', {
  timeout: 60_000,
}, () => {
  for (let count = 0; count < 50; count += 1) {
    const key = makeDeliveredKey()
    const privateKey = createPrivateKey({ key: key.pkcs8(), format: 'der', type: 'pkcs8' })
    const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
    if (!spki.equals(key.spki)) throw new Error(`key ${count} does not match`)
    const input = Buffer.from('input')
    expect(
      verify(
        'sha256',
        input,
        { key: key.spki, format: 'der', type: 'spki' },
        sign('sha256', input, privateKey),
      ),
    ).toBe(true)
  }
})

it('pads the scalars that begin with zeros, as one in 256 does', { timeout: 60_000 }, () => {
  const ecdh = createECDH('prime256v1')
  for (let count = 0; count < 1500; count += 1) {
    const key = makeDeliveredKey()
    ecdh.setPrivateKey(key.pkcs8().subarray(36, 68))
    if (!ecdh.getPublicKey().equals(key.spki.subarray(-65))) throw new Error(`key ${count} does not match`)
  }
})

it('writes the very PKCS#8 that OpenSSL writes', () => {
  const key = makeDeliveredKey()
  const read = createPrivateKey({ key: key.pkcs8(), format: 'der', type: 'pkcs8' })
  expect(read.export({ format: 'der', type: 'pkcs8' })).toEqual(key.pkcs8())
})

it('delivers a private JWK with its alg (WIT-SVID) that jose and node:crypto read', async () => {
  const key = makeDeliveredKey()
  const jwk = JSON.parse(key.privateJwk().reveal()) as Record<string, string>
  expect(jwk).toMatchObject({ ...key.publicJwk, alg: 'ES256' })
  expect(Object.keys(jwk)).toEqual(['kty', 'crv', 'x', 'y', 'd', 'alg'])
  await expect(importJWK(jwk)).resolves.toBeDefined()
  const read = createPublicKey(createPrivateKey({ key: jwk, format: 'jwk' }))
  expect(read.export({ format: 'der', type: 'spki' })).toEqual(key.spki)
})

it('gives a fresh copy each time, so that one reader can wipe what another still sends', () => {
  const key = makeDeliveredKey()
  key.pkcs8().fill(0)
  expect(createPrivateKey({ key: key.pkcs8(), format: 'der', type: 'pkcs8' }).asymmetricKeyType).toBe('ec')
})

it('is lost once wiped, in either form, and keeps its public half', () => {
  const key = makeDeliveredKey()
  key.wipe()
  expect(faultOf(() => key.pkcs8())).toMatch(/^key_lost: /)
  expect(faultOf(() => key.privateJwk())).toMatch(/^key_lost: /)
  expect(createPublicKey({ key: key.spki, format: 'der', type: 'spki' }).asymmetricKeyType).toBe('ec')
})
