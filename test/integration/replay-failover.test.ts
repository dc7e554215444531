/** A Redis primary that is lost between two replays: whatever its replica knows, no proof is fresh twice. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nowSeconds, systemClock } from '../../src/base/clock.ts'
import { hasRedis, openRedis } from '../support/redis.ts'
import { openRedisPair, type RedisPair } from '../support/redis-pair.ts'
import { isOpen, later, openReplayNode, type ReplayNode, SKEW } from '../support/replay-node.ts'
import { until } from '../support/until.ts'

let pair: RedisPair
let nodes: readonly [ReplayNode, ReplayNode]

beforeEach(async () => {
  pair = await openRedisPair()
  const { url } = pair
  nodes = [openReplayNode({ url }), openReplayNode({ url })]
  for (const node of nodes) expect(await node.redis.first).toBeUndefined()
})

afterEach(async () => {
  for (const node of nodes) node.stop()
  await pair[Symbol.asyncDispose]()
})

/** Just above the floor of the start, so that a floor of now is above it. */
const made = () => nowSeconds(systemClock) + SKEW + 1
const isOlder = (of: number) =>
  until('the proof to be older than now', () => nowSeconds(systemClock) > of - SKEW)

async function bothLost(): Promise<void> {
  for (const node of nodes) await until('the loss', () => node.redis.fault)
}

describe.skipIf(!hasRedis)('a failover', () => {
  it('to a replica that has it all lets no proof pass again', async () => {
    const [a, b] = nodes
    const proof = { made: made() }
    expect(await a.use(proof)).toBe('fresh')
    await pair.caughtUp()
    await pair.primary.stop('SIGKILL')
    await bothLost()
    expect(await b.use(proof)).toBe('replay_unavailable')
    pair.failOver()
    await Promise.all(nodes.map(isOpen))
    expect([await b.use(proof), await a.use(proof)]).toEqual(['replayed', 'replayed'])
    expect(await b.use({ made: later(), jti: 'after' })).toBe('fresh')
  })

  it('to a replica that lags behind lets none of those pass again that it never heard of', async () => {
    const [a, b] = nodes
    await pair.caughtUp()
    pair.replica.cli('REPLICAOF', '127.0.0.1', '1')
    const proof = { made: made() }
    expect(await a.use(proof)).toBe('fresh')
    await pair.primary.stop('SIGKILL')
    await bothLost()
    await isOlder(proof.made)
    pair.failOver()
    await Promise.all(nodes.map(isOpen))
    expect([await b.use(proof), await a.use(proof)]).toEqual(['floor', 'floor'])
    expect(nodes.map(({ floors }) => floors)).toEqual([
      [false, true],
      [false, true],
    ])
    // One made after the failover, and one with a nonce, pass.
    expect(await b.use({ made: later(), jti: 'after' })).toBe('fresh')
  })

  it('of a server that was asked to hand over is seen by those who stay connected to it', async () => {
    const [a] = nodes
    const proof = { made: later() }
    expect(await a.use(proof)).toBe('fresh')
    await pair.caughtUp()
    pair.replica.cli('REPLICAOF', 'NO', 'ONE')
    // The old primary becomes a replica: it takes no writes, and its connections are of no use.
    const unix = pair.primary.cli('CONFIG', 'SET', 'replica-read-only', 'yes')
    expect(unix).toBe('OK')
    pair.primary.cli('REPLICAOF', '127.0.0.1', '1')
    await until('the next look', () => a.redis.fault)
    expect(a.redis.fault?.message).toContain('is a replica')
    expect(await a.use(proof)).toBe('replay_unavailable')
    pair.failOver()
    await isOpen(a)
    expect(await a.use(proof)).toBe('replayed')
  })
})

describe.skipIf(!hasRedis)('what is no primary by itself', () => {
  it('a server of a Redis Cluster, is refused with its cure', async () => {
    await using cluster = await openRedis({
      args: ['--cluster-enabled', 'yes', '--port', '0', '--cluster-port', '0'],
    })
    const node = openReplayNode({ url: cluster.url })
    try {
      const fault = await node.redis.first
      expect([fault?.reason, fault?.message]).toEqual([
        'replay_unavailable',
        'the Redis server is part of a Redis Cluster, wanted one primary',
      ])
      expect(fault?.action).toContain('Name a primary')
      expect(await node.use()).toBe('replay_unavailable')
    } finally {
      node.stop()
    }
  })
})
