/** Two agents that verify for one service on one Redis server: what is used up or revoked at one is so at the other. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseRedisUrl } from '../../src/ingress/redis-place.ts'
import { call } from '../support/call.ts'
import { hasRedis, openRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'
import { openVerifyRig, type VerifyRig } from '../support/verify-rig.ts'
import { WAYS, type Way } from '../support/verify-ways.ts'

const json = WAYS[0] as Way

describe.skipIf(!hasRedis)('two verifiers on one store', () => {
  let redis: TestRedis
  let [a, b]: [VerifyRig | undefined, VerifyRig | undefined] = [undefined, undefined]
  const open = (denylist?: string) =>
    openVerifyRig({
      config: (config) => ({
        ...config,
        verifier: {
          ...config.verifier,
          denylist: { ...config.verifier.denylist, file: denylist },
          replay: { ...config.verifier.replay, store: 'redis', url: parseRedisUrl(redis.url) },
        },
      }),
    })
  const rigs = (): readonly [VerifyRig, VerifyRig] => {
    if (!a || !b) throw new Error('not open')
    return [a, b]
  }
  const reasonAt = async (rig: VerifyRig, request = rig.request()) =>
    (await json.ask(rig.socket, request)).reason ?? 'ok'

  beforeAll(async () => {
    redis = await openRedis()
    const denylist = join(redis.dir, 'denylist.jsonl')
    writeFileSync(denylist, '{"sub":"eve","until":"2099-01-01","reason":"left"}\n')
    a = await open(denylist)
    b = await open()
    for (const rig of [a, b])
      await until('the store', () => rig.agent.records.some(({ event }) => event === 'replay'))
    // Past the floor of the store, which one of their clocks has set.
    for (const rig of [a, b]) rig.pass(20)
  })

  afterAll(async () => {
    for (const rig of [a, b]) await rig?.[Symbol.asyncDispose]()
    await redis?.[Symbol.asyncDispose]()
  })

  it('use proofs up over a server that they share', async () => {
    const [one] = rigs()
    const request = one.request()
    expect([await reasonAt(one, request), await reasonAt(one, request)]).toEqual(['ok', 'proof_replayed'])
    expect(redis.cli('KEYS', 'holdfast:*:of:*').split('\n').length).toBeGreaterThan(0)
  })

  it('deny what a denylist of one names, at both', async () => {
    for (const rig of rigs())
      await until(
        'the denial',
        async () => (await reasonAt(rig, rig.request({ claims: { sub: 'eve' } }))) === 'token_revoked',
      )
    for (const rig of rigs()) expect(await reasonAt(rig)).toBe('ok')
  })

  it('deny a key within two seconds of its revocation at the other, and take it again when that is lifted', async () => {
    const [one, other] = rigs()
    expect(await reasonAt(other)).toBe('ok')
    const admin = join(one.agent.dir, 'private', 'admin.sock')
    await call(admin, 'POST', '/v1/revoke', { body: { jkt: other.key.jkt } })
    await until('the denial', async () => (await reasonAt(other)) === 'token_revoked', 2_000)
    expect(await reasonAt(one)).toBe('ok')
    await call(admin, 'POST', '/v1/lift', { body: { jkt: other.key.jkt } })
    await until('the lift', async () => (await reasonAt(other)) === 'ok', 2_000)
  })

  it('refuse while the server is gone, and say why', async () => {
    const [one] = rigs()
    await redis.stop('SIGKILL')
    await until('the loss', async () => (await reasonAt(one)) === 'replay_unavailable')
    await redis.start()
    const again = async () => ['ok', 'replay_floor'].includes(await reasonAt(one))
    await until('the store', again)
    expect(await reasonAt(one)).toBe('replay_floor')
  })
})
