/** Revocations over a real Redis server: at one agent, at every verifier within two seconds, and until they end. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nowSeconds, systemClock } from '../../src/base/clock.ts'
import type { Fault } from '../../src/base/fault.ts'
import { parseDenyRule } from '../../src/ingress/deny-rule.ts'
import { Denylist } from '../../src/ingress/denylist.ts'
import { parseRedisUrl } from '../../src/ingress/redis-place.ts'
import { openRedisReplays } from '../../src/ingress/replay-open.ts'
import { Revocations } from '../../src/policy/revocations.ts'
import { hasRedis, openRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

const WITHIN = 2_000
const clock = systemClock
let redis: TestRedis
const stops: (() => void)[] = []

beforeEach(async () => {
  redis = await openRedis()
})

afterEach(async () => {
  for (const stop of stops.splice(0)) stop()
  await redis[Symbol.asyncDispose]()
})

async function open() {
  const revocations = new Revocations(undefined, clock)
  const denylist = new Denylist({ clock, revocations, limit: 20_000 })
  const troubles: (Fault | undefined)[] = []
  const opened = openRedisReplays({
    clock,
    place: parseRedisUrl(redis.url),
    passwordFile: undefined,
    caFile: undefined,
    client: undefined,
    deadline: 500,
    prefix: 'holdfast',
    keep: 60,
    skew: 5,
    share: 1000,
    local: undefined,
    onFloor: () => {},
    onState: () => {},
    onLocal: () => {},
    denylist,
    onDenials: (fault) => troubles.push(fault),
  })
  stops.push(opened.stop)
  await opened.redis.first
  const denies = (jkt: string) => {
    try {
      denylist.check({
        spiffeId: undefined,
        issuer: undefined,
        subject: jkt,
        clientId: undefined,
        actor: undefined,
        tokenId: undefined,
        jkt,
        issuedAt: undefined,
      })
      return false
    } catch {
      return true
    }
  }
  const rule = (sub: string) => parseDenyRule({ sub, until: nowSeconds(clock) + 60, reason: 'x' })
  return { ...opened, denylist, denies, revocations, rule, troubles }
}

describe.skipIf(!hasRedis)('a revocation at one agent', () => {
  it('reaches every verifier, and is lifted there too', async () => {
    const [a, b] = [await open(), await open()]
    a.revocations.add('jkt', 'stolen')
    a.tell()
    await until('the other to hear', () => b.denies('stolen'), WITHIN)
    expect(b.denies('other')).toBe(false)
    a.revocations.lift('jkt', 'stolen')
    expect(a.denies('stolen')).toBe(false)
    await until('the lift', () => !b.denies('stolen'), WITHIN)
    a.revocations.add('jkt', 'stolen')
    a.tell()
    await until('it again', () => b.denies('stolen'), WITHIN)
  })

  it('of a list reaches those who start later', async () => {
    const a = await open()
    a.denylist.replace('file', [a.rule('ann'), a.rule('bob')])
    await until('it to be said', () => redis.cli('ZCARD', 'holdfast:denials') === '2', WITHIN)
    const b = await open()
    expect([b.denies('ann'), b.denies('bob'), b.denies('eve')]).toEqual([true, true, false])
    a.denylist.replace('file', [a.rule('bob')])
    await until('the lift', () => !b.denies('ann'), WITHIN)
    expect(b.denies('bob')).toBe(true)
  })

  it('is heard without the channel as well', async () => {
    const [a, b] = [await open(), await open()]
    redis.cli('CLIENT', 'KILL', 'TYPE', 'pubsub')
    a.denylist.replace('events', [a.rule('ann')])
    await until('the other to hear', () => b.denies('ann'), WITHIN)
  })

  it('outlives the server, and is said again when that has forgotten it', async () => {
    const [a, b] = [await open(), await open()]
    a.denylist.replace('events', [a.rule('ann')])
    await until('the other to hear', () => b.denies('ann'), WITHIN)
    redis.cli('FLUSHALL')
    await until('it to be said again', () => redis.cli('ZCARD', 'holdfast:denials') === '1', WITHIN)
    expect(b.denies('ann')).toBe(true)
    await redis.stop('SIGKILL')
    await until('the loss', () => b.redis.fault)
    expect([a.denies('ann'), b.denies('ann')]).toEqual([true, true])
  })

  it('that nobody understands is left out, and does no harm', async () => {
    const a = await open()
    for (const member of [
      'no json',
      '{"sub":1}',
      '{"lift":1}',
      '{"sub":"ann","until":9999999999,"reason":"x","n":1}',
    ])
      redis.cli('ZADD', 'holdfast:denials', '9999999999', member)
    redis.cli('SET', 'holdfast:denials:version', 'x')
    a.denylist.replace('file', [a.rule('bob')])
    const b = await open()
    expect([b.denies('bob'), b.denies('ann')]).toEqual([true, false])
    expect(b.redis.fault).toBeUndefined()
  })

  it('that finds the set full is told as trouble', async () => {
    const a = await open()
    const b = await open()
    a.denylist.replace(
      'file',
      Array.from({ length: 20_000 }, (_, n) => a.rule(`user-${n}`)),
    )
    await until('the set to be full', () => redis.cli('ZCARD', 'holdfast:denials') === '20000', 20_000)
    b.denylist.replace('events', [b.rule('ann')])
    await until('trouble', () => b.troubles.at(-1)?.reason === 'overloaded', 20_000)
    expect(b.denies('ann')).toBe(true)
  })
})
