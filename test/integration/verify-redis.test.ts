/** The verifier with its proofs at a real Redis server: the one table by every way in, and what happens without the server. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Config } from '../../src/config.ts'
import { parseRedisUrl } from '../../src/ingress/redis-place.ts'
import { hasRedis, openRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'
import { openVerifyRig, type VerifyRig } from '../support/verify-rig.ts'
import { casesFor, expectAnswer, expectOneOfMany, statusAt } from '../support/verify-table.ts'
import { WAYS } from '../support/verify-ways.ts'

/** An agent whose replay store is the server; ready when it is. */
async function openOn(redis: TestRedis, onFailure: 'refuse' | 'local' = 'refuse'): Promise<VerifyRig> {
  const url = parseRedisUrl(redis.url)
  const rig = await openVerifyRig({
    config: (config): Config => {
      const replay = { ...config.verifier.replay, store: 'redis', url, onFailure } as const
      return { ...config, verifier: { ...config.verifier, replay } }
    },
  })
  await until('the Redis server to be in use', () => isInUse(rig))
  // Past the floor, which is when the server was first seen.
  rig.pass(8)
  return rig
}

const trouble = ({ agent }: VerifyRig) =>
  agent.health.degraded.find(({ code }) => code === 'replay_unavailable')
const isInUse = (rig: VerifyRig) =>
  trouble(rig) === undefined && rig.agent.records.some(({ event, allowed }) => event === 'replay' && allowed)

describe.skipIf(!hasRedis)('the verifier on a Redis server', () => {
  let redis: TestRedis
  let rig: VerifyRig

  beforeAll(async () => {
    redis = await openRedis()
    rig = await openOn(redis)
  })
  afterAll(async () => {
    await rig?.[Symbol.asyncDispose]()
    await redis?.[Symbol.asyncDispose]()
  })

  describe.each(WAYS.map((way) => [way.name, way] as const))('by %s', (_name, way) => {
    it.each(casesFor(way))('answers %s', async (_case, each) => expectAnswer(rig, way, each))

    it('takes one of 100 copies that come at once', async () =>
      expectOneOfMany(rig, (request) => way.ask(rig.socket, request)))
  })
})

describe.skipIf(!hasRedis)('without its Redis server', () => {
  it.each(WAYS.map((way) => [way.name, way] as const))(
    'the verifier refuses by %s, on record, and goes on when it is back',
    async (_name, way) => {
      await using redis = await openRedis()
      await using rig = await openOn(redis)
      expect((await way.ask(rig.socket, rig.request())).isAllowed).toBe(true)
      await redis.stop('SIGKILL')
      await until('the loss to be told', () => trouble(rig))
      const heard = await way.ask(rig.socket, rig.request())
      expect([heard.isAllowed, heard.status]).toEqual([false, statusAt(way, 503)])
      expect(rig.verdicts().at(-1)).toMatchObject({ allowed: false, reason: 'replay_unavailable' })
      expect(rig.agent.records.filter(({ event }) => event === 'replay').at(-1)).toMatchObject({
        allowed: false,
        reason: 'replay_unavailable',
        detail: 'refuse',
      })
      await redis.start()
      await until('the server to be in use again', () => trouble(rig) === undefined)
      rig.pass(20)
      expect((await way.ask(rig.socket, rig.request())).isAllowed).toBe(true)
    },
  )

  it('the verifier goes on with its own memory where policy says so, on record', async () => {
    await using redis = await openRedis()
    await using rig = await openOn(redis, 'local')
    const [way] = WAYS
    if (!way) throw new Error('no way')
    const before = rig.request()
    expect((await way.ask(rig.socket, before)).isAllowed).toBe(true)
    await redis.stop('SIGKILL')
    await until('the loss to be told', () => trouble(rig))
    expect((await way.ask(rig.socket, before)).reason).toBe('proof_replayed')
    await expectOneOfMany(rig, (request) => way.ask(rig.socket, request))
    expect(rig.agent.records.filter(({ event }) => event === 'replay').at(-1)).toMatchObject({
      allowed: false,
      reason: 'replay_unavailable',
      detail: 'local',
    })
    expect(await rig.agent.metrics.render()).toMatch(/holdfast_replay_local_total [1-9]/)
  })
})
