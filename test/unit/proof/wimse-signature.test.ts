import { createPublicKey, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { generateKey } from '../../../src/keys/signer.ts'
import { DigestCheck, parseContentDigest } from '../../../src/proof/content-digest.ts'
import { fieldValues, type SignedRequest } from '../../../src/proof/http-message.ts'
import { readSignature, verifySignature } from '../../../src/proof/httpsig-verify.ts'
import { makeWimseSignature, WIMSE_RULES, WIMSE_TAG } from '../../../src/proof/wimse-signature.ts'
import { ManualClock } from '../../support/clock.ts'
import { guarded } from '../../support/guarded.ts'

const clock = new ManualClock()
const NOW = 1_700_000_000
const request: SignedRequest = {
  method: 'PUT',
  scheme: 'https',
  authority: 'orders.example.org',
  path: '/v1/items',
  query: '?a=1',
  headers: [
    'Host',
    'orders.example.org',
    'Content-Type',
    'application/json',
    'X-Batch',
    '7',
    'Content-Digest',
    'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:',
    'Authorization',
    'DPoP token',
    'Workload-Identity-Token',
    'a.wit.x',
  ],
}
const wish = { aud: 'https://orders.example.org/v1/items', extra: ['x-batch', 'x-absent'] }

describe('the WIMSE profile', () => {
  const key = generateKey('ES256')
  const signed = (alg = key) => makeWimseSignature(alg, request, wish, clock)
  const sent = (made = signed()): SignedRequest => ({
    ...request,
    headers: [...request.headers, 'Signature-Input', made.input, 'Signature', made.signature],
  })
  const reasonFor = (message: SignedRequest, by: { key: KeyObject; alg: 'ES256' | 'PS256' }) => {
    const run = () =>
      verifySignature(message, readSignature(message, { tag: WIMSE_TAG }), WIMSE_RULES, by, NOW)
    const outcome = guarded(run)
    return outcome instanceof Fault ? outcome.reason : undefined
  }
  const by = { key: key.publicKey, alg: 'ES256' } as const

  it('covers method, path, query, what the profile lists and what the grant lists, where it is there', () => {
    const { input, nonce, expires } = signed()
    expect(expires).toBe(NOW + 60)
    expect(input).toBe(
      `wimse=("@method" "@path" "@query" "content-type" "content-digest" "authorization" "workload-identity-token" "x-batch");created=${NOW};expires=${NOW + 60};nonce="${nonce}";tag="wimse-workload-to-workload";wimse-aud="https://orders.example.org/v1/items"`,
    )
  })

  it('has a nonce of its own each time', () => {
    expect(signed().nonce).not.toBe(signed().nonce)
  })

  it.each(['ES256', 'ES384', 'RS256', 'PS256'] as const)('verifies when the key is one of %s', (alg) => {
    const other = generateKey(alg)
    expect(reasonFor(sent(signed(other)), { key: other.publicKey, alg: alg as 'ES256' })).toBeUndefined()
  })

  it.each([
    ['method', { method: 'POST' }],
    ['path', { path: '/v1/items/2' }],
    ['query', { query: '' }],
  ])('breaks with another %s', (_what, change) => {
    expect(reasonFor({ ...sent(), ...change }, by)).toBe('proof_forged')
  })

  it.each([
    ['Content-Type', 'text/plain'],
    ['Content-Digest', 'sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:'],
    ['Authorization', 'DPoP other'],
    ['Workload-Identity-Token', 'b.wit.x'],
    ['X-Batch', '8'],
  ])('breaks with another %s, and with a second one', (name, value) => {
    const message = sent()
    const changed = message.headers.map((each, at) => (message.headers[at - 1] === name ? value : each))
    expect(reasonFor({ ...message, headers: changed }, by)).toBe('proof_forged')
    expect(reasonFor({ ...message, headers: [...message.headers, name, value] }, by)).toBe('proof_forged')
  })

  it('is refused when a field of the profile was added, for it is not covered', () => {
    const message = sent()
    expect(reasonFor({ ...message, headers: [...message.headers, 'Txn-Token', 'x'] }, by)).toBe(
      'proof_coverage',
    )
  })

  it('is refused with another key', () => {
    expect(reasonFor(sent(), { key: generateKey('ES256').publicKey, alg: 'ES256' })).toBe('proof_forged')
  })

  it('signs no value that has another line in it', () => {
    const headers = [...request.headers, 'X-Batch', 'a\r\n"@method": GET']
    const outcome = guarded(() => makeWimseSignature(key, { ...request, headers }, wish, clock))
    expect(outcome).toMatchObject({ reason: 'proof_malformed' })
  })
})

describe('the examples of the WIMSE draft', () => {
  const vectors = JSON.parse(
    readFileSync(new URL('../../vectors/wimse-http-signature.json', import.meta.url), 'utf8'),
  ) as {
    readonly cases: readonly { name: string; now: number; message: SignedRequest; body?: string }[]
  }

  it.each(vectors.cases.map((each) => [each.name, each] as const))('%s verifies', (_name, vector) => {
    const { message, now, body } = vector
    const [wit = ''] = fieldValues(message.headers, 'workload-identity-token')
    const { cnf } = JSON.parse(Buffer.from(wit.split('.')[1] ?? '', 'base64url').toString()) as {
      cnf: { jwk: object }
    }
    const key = createPublicKey({ key: { ...cnf.jwk }, format: 'jwk' })
    const received = readSignature(message, { tag: WIMSE_TAG })
    const rules = { ...WIMSE_RULES, covers: ['"workload-identity-token"'], requires: ['created', 'nonce'] }
    // The example lives 302 seconds.
    verifySignature(message, received, { ...rules, maxAge: 302 }, { key, alg: 'EdDSA' }, now)
    if (body === undefined) return
    const digests = parseContentDigest(fieldValues(message.headers, 'content-digest')[0] ?? '')
    const check = digests && new DigestCheck(digests)
    check?.update(Buffer.from(body))
    expect(check?.isMatch()).toBe(true)
  })
})
