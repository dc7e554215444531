/** Keys of servers: kept, fetched once, never at the will of whoever names a kid. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { KeySets } from '../../../src/ingress/key-sets.ts'
import { publicJwkOf } from '../../../src/spiffe/jwk.ts'
import { ecPair } from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'

const SERVER = { issuer: 'https://login.example.org', tokenEndpoint: undefined, client: undefined }
const MINUTE = 60_000
const pairs = { a: ecPair(), b: ecPair() }
const jwkOf = (kid: keyof typeof pairs, over: object = {}) => ({
  ...publicJwkOf(pairs[kid].publicKey),
  kid,
  ...over,
})

function open(text = JSON.stringify({ keys: [jwkOf('a')] })) {
  const clock = new ManualClock()
  const state = { text, fetched: 0, fails: false }
  const keys = new KeySets({
    clock,
    fetch: async () => {
      state.fetched += 1
      if (state.fails) throw new Fault('issuer_unavailable')
      return state.text
    },
  })
  const find = async (kid: string) => keys.find(SERVER, kid)
  return { clock, keys, state, find }
}

describe('a key', () => {
  it('is fetched once for all who wait, and then had at once', async () => {
    const { keys, state, find } = open()
    const found = await Promise.all([find('a'), find('a'), find('a')])
    expect(found.every((key) => key?.equals(pairs.a.publicKey))).toBe(true)
    expect(keys.find(SERVER, 'a')).not.toBeInstanceOf(Promise)
    expect(state.fetched).toBe(1)
  })

  it('that is new is found, and one that was withdrawn is gone, within ten minutes', async () => {
    const { clock, state, find } = open()
    await find('a')
    state.text = JSON.stringify({ keys: [jwkOf('b')] })
    clock.advance(MINUTE)
    expect((await find('b'))?.equals(pairs.b.publicKey)).toBe(true)
    expect(await find('a')).toBeUndefined()
  })

  it('that nobody has is asked for at most every half minute', async () => {
    const { clock, state, find } = open()
    for (let at = 0; at < 100; at++) expect(await find(`x${at}`)).toBeUndefined()
    expect(state.fetched).toBe(1)
    clock.advance(MINUTE / 2)
    for (let at = 0; at < 100; at++) await find(`y${at}`)
    expect(state.fetched).toBe(2)
  })

  it('is used on for an hour while the server is away, then no more', async () => {
    const { clock, state, find } = open()
    await find('a')
    state.fails = true
    clock.advance(59 * MINUTE)
    expect(await find('a')).toBeDefined()
    clock.advance(MINUTE)
    await expect(find('a')).rejects.toMatchObject({ reason: 'verifier_keys' })
  })

  it('of a server that never answered is none', async () => {
    const { state, find } = open()
    state.fails = true
    await expect(find('a')).rejects.toMatchObject({ reason: 'verifier_keys' })
  })
})

describe('a JWK Set', () => {
  it.each([
    ['that is no JSON', '<html>'],
    ['without keys', '{}'],
    [
      'of 10,000 keys',
      JSON.stringify({ keys: Array.from({ length: 10_000 }, (_, at) => ({ kid: `${at}` })) }),
    ],
    ['with two keys of one kid', JSON.stringify({ keys: [jwkOf('a'), jwkOf('a')] })],
    ['nested deep', `{"keys":${'['.repeat(50)}${']'.repeat(50)}}`],
  ])('%s is not used', async (_what, text) => {
    await expect(open(text).find('a')).rejects.toMatchObject({ reason: 'verifier_keys' })
  })

  it('has keys that say what they are for', async () => {
    const jwk = jwkOf('a', { use: 'sig', key_ops: ['verify'], alg: 'ES256' })
    expect(await open(JSON.stringify({ keys: [jwk] })).find('a')).toBeDefined()
  })

  it.each([
    ['for encryption', jwkOf('a', { use: 'enc' })],
    ['for wrapping keys', jwkOf('a', { alg: 'RSA-OAEP' })],
    ['for encryption by its operations', jwkOf('a', { key_ops: ['encrypt', 'wrapKey'] })],
    ['whose operations are no list', jwkOf('a', { key_ops: 'verify' })],
    ['that is symmetric', { kty: 'oct', k: 'AAAA', kid: 'a' }],
    ['that shows its private half', jwkOf('a', { d: 'AAAA' })],
    ['off its curve', jwkOf('a', { y: 'AAAA' })],
  ])('with a key %s has no such key', async (_what, jwk) => {
    expect(await open(JSON.stringify({ keys: [jwk] })).find('a')).toBeUndefined()
  })
})
