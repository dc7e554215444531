/** Input that means harm, by every way in: it is refused for a reason, little is spent on it, and others are served on. */
import { generateKeyPairSync } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { publicJwkOf } from '../../src/spiffe/jwk.ts'
import { type Over, openVerifyRig, type Received, type VerifyRig } from '../support/verify-rig.ts'
import { WAYS, type Way } from '../support/verify-ways.ts'

let rig: VerifyRig

beforeAll(async () => {
  rig = await openVerifyRig({
    config: (config) => {
      const replay = { ...config.verifier.replay, share: 50 }
      return { ...config, verifier: { ...config.verifier, replay } }
    },
  })
})
afterAll(() => rig?.[Symbol.asyncDispose]())

const MEGABYTE = 'x'.repeat(1024 * 1024)
const deep = (depth: number) => JSON.parse(`${'['.repeat(depth)}${']'.repeat(depth)}`)
/** A modulus of 16384 bits, which no one has to make for this. */
const hugeRsa = {
  kty: 'RSA',
  e: 'AQAB',
  n: Buffer.concat([Buffer.from([0x80]), Buffer.alloc(2047, 1)]).toString('base64url'),
}
const smallRsa = publicJwkOf(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey)

const CASES: readonly (readonly [what: string, over: (rig: VerifyRig) => Over])[] = [
  ['claims of a proof 2000 deep', () => ({ proof: { more: deep(2000) } })],
  ['a header of a proof 2000 deep', () => ({ proofHeader: { more: deep(2000) } })],
  ['claims of a token 2000 deep', () => ({ claims: { more: deep(2000) } })],
  ['an RSA key of 16384 bits in a proof', () => ({ proofHeader: { alg: 'RS256', jwk: hugeRsa } })],
  ['an RSA key for an EC algorithm', () => ({ proofHeader: { jwk: smallRsa } })],
  ['a jti of 100 kB', () => ({ proof: { jti: 'j'.repeat(100_000) } })],
  ['a kid of 100 kB', () => ({ header: { kid: 'k'.repeat(100_000) } })],
  ['a critical header that nobody knows', () => ({ proofHeader: { crit: ['x'], x: 1 } })],
  ['a proof of 10 minutes ago', ({ now }) => ({ proof: { iat: now() - 600 } })],
  ['a proof of in 10 minutes', ({ now }) => ({ proof: { iat: now() + 600 } })],
  ['a token of in 10 minutes', ({ now }) => ({ claims: { nbf: now() + 600, exp: now() + 900 } })],
  ['a path with an overlong escape', () => ({ path: '/v1/%c0%ae%c0%ae/items' })],
  ['a path with a NUL', () => ({ path: '/v1/items%00' })],
  [
    'a path with letters of another script',
    () => ({ proof: { htu: 'https://аpi.example.org/orders/v1/items' } }),
  ],
  ['a host with a full-width dot', () => ({ proof: { htu: 'https://api。example.org/orders/v1/items' } })],
  ['a path escaped twice', () => ({ path: '/v1/%252e%252e/items' })],
]

/** That it goes on, for a caller who did nothing. */
async function expectServed(way: Way): Promise<void> {
  expect((await way.ask(rig.socket, rig.request())).isAllowed).toBe(true)
}

describe.each(WAYS.map((way) => [way.name, way] as const))('by %s', (_name, way) => {
  it.each(CASES)('%s is refused', async (_what, over) => {
    const heard = await way.ask(rig.socket, rig.request(over(rig)))
    expect(heard.isAllowed).toBe(false)
    expect(heard.status).toBeGreaterThanOrEqual(400)
    expect(heard.status).toBeLessThan(500)
    expect(rig.verdicts().at(-1)?.reason).not.toBe('bug')
  })

  it('a method that nobody knows is not put on record: it may be part of a token', async () => {
    const method = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIi'
    expect((await way.ask(rig.socket, rig.request({ method }))).isAllowed).toBe(false)
    expect(rig.verdicts().at(-1)).toMatchObject({ allowed: false, method: 'other' })
  })

  it.each(['Authorization', 'DPoP', 'X-Else'])(
    'a header %s of 1 MB is refused, and others are served',
    async (name) => {
      const request = rig.request({ without: [name], headers: [[name, `DPoP ${MEGABYTE}`]] })
      // The connection may end before all of it is sent.
      const heard = await way.ask(rig.socket, request).catch(() => ({ isAllowed: false }))
      expect(heard.isAllowed).toBe(false)
      await expectServed(way)
    },
  )
})

const PROXIES = WAYS.filter(({ name }) => /ext_authz|forward-auth/.test(name))

describe.each(PROXIES.map((way) => [way.name, way] as const))('by %s', (_name, way) => {
  it.each<readonly [string, Partial<Received>]>([
    ['no path', { method: 'OPTIONS', path: '*' }],
    ['a header that claims to be ours', { headers: [['x_holdfast_caller', 'client:login/web']] }],
  ])('a request with %s is refused on record', async (_what, over) => {
    const before = rig.verdicts().length
    expect((await way.ask(rig.socket, { ...rig.request(), ...over })).isAllowed).toBe(false)
    expect(rig.verdicts().slice(before)).toEqual([
      expect.objectContaining({ allowed: false, reason: 'invalid_request', pid: process.pid }),
    ])
  })
})

describe('a flood', () => {
  const [way] = WAYS
  if (!way) throw new Error('no way')

  it('of tokens by keys that nobody has makes the keys be fetched once more at most', async () => {
    await expectServed(way)
    const fetches = () => rig.asked.filter((path) => path === '/jwks').length
    const before = fetches()
    const flood = Array.from({ length: 200 }, (_, n) => rig.request({ header: { kid: `unknown-${n}` } }))
    const heard = await Promise.all(flood.map((request) => way.ask(rig.socket, request)))
    expect(heard.filter(({ isAllowed }) => isAllowed)).toEqual([])
    expect(fetches() - before).toBeLessThanOrEqual(1)
    await expectServed(way)
  })

  it('by one caller takes no place of others', async () => {
    const of = (client_id: string) => rig.request({ claims: { client_id } })
    let heard = await way.ask(rig.socket, of('web'))
    for (let n = 0; n < 60 && heard.isAllowed; n += 1) heard = await way.ask(rig.socket, of('web'))
    expect([heard.isAllowed, heard.reason]).toEqual([false, 'rate_limited'])
    // Another is judged by what policy says of it, and its proof is remembered.
    const other = of('other')
    const reasons = [await way.ask(rig.socket, other), await way.ask(rig.socket, other)].map(
      ({ reason }) => reason,
    )
    expect(reasons).toEqual(['caller_unexpected', 'proof_replayed'])
  })
})
