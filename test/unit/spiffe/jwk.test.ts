import { readFileSync } from 'node:fs'
import { calculateJwkThumbprint } from 'jose'
import { expect, it } from 'vitest'
import { importPublicJwk, type PublicJwk, publicJwkOf, thumbprint } from '../../../src/spiffe/jwk.ts'
import { ecPair, rsaPair } from '../../support/certificates.ts'

interface Vector {
  readonly jwk: PublicJwk
  readonly thumbprint: string
}
const vector = JSON.parse(
  readFileSync(new URL('../../vectors/rfc7638.json', import.meta.url), 'utf8'),
) as Vector

it('makes the thumbprint of RFC 7638 s.3.1, whatever else the key says', () => {
  expect(vector.thumbprint).toBe('NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs')
  expect(thumbprint(vector.jwk)).toBe(vector.thumbprint)
})

it.each([
  ['P-256', ecPair('P-256')],
  ['P-384', ecPair('P-384')],
  ['P-521', ecPair('P-521')],
  ['RSA', rsaPair()],
])(
  'makes the thumbprint of %s as jose does, and reads the key back',
  async (_what, { privateKey, publicKey }) => {
    const jwk = publicJwkOf(publicKey)
    expect(thumbprint(jwk)).toBe(await calculateJwkThumbprint(jwk))
    expect(publicJwkOf(privateKey)).toEqual(jwk)
    expect(importPublicJwk({ ...jwk })?.equals(publicKey)).toBe(true)
  },
)
