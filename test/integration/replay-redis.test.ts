/** The shared replay store on a real Redis server: once over all nodes, and never again after its history is lost. */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Clock, nowSeconds, systemClock } from '../../src/base/clock.ts'
import { parseRedisUrl } from '../../src/ingress/redis-place.ts'
import { hasRedis, openRedis, type TestRedis } from '../support/redis.ts'
import {
  isOpen,
  KEEP,
  later,
  openReplayNode,
  type ReplayNode,
  type ReplayNodeOptions,
  SKEW,
} from '../support/replay-node.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const nodes: ReplayNode[] = []
let redis: TestRedis

beforeEach(async () => {
  redis = await openRedis()
})

afterEach(async () => {
  for (const node of nodes.splice(0)) node.stop()
  await redis[Symbol.asyncDispose]()
})

function open(over: Partial<ReplayNodeOptions> = {}): ReplayNode {
  const node = openReplayNode({ url: redis.url, ...over })
  nodes.push(node)
  return node
}

describe.skipIf(!hasRedis)('a shared replay store', () => {
  it('lets one of 100 parallel replays over two nodes pass', async () => {
    const [a, b] = [open(), open()]
    await Promise.all([a.redis.first, b.redis.first])
    const made = later()
    const words = await Promise.all(Array.from({ length: 100 }, (_, n) => (n % 2 ? a : b).use({ made })))
    expect(words.filter((word) => word === 'fresh')).toHaveLength(1)
    expect(words.filter((word) => word === 'replayed')).toHaveLength(99)
  })

  it('tells proofs of another jti, key or hop apart, and names nobody in its keys', async () => {
    const node = open()
    await node.redis.first
    const proofs = [{}, { jti: 'two' }, { jkt: 'other' }, { scope: 'carts' }, { jkt: 'ke', jti: 'yone' }]
    expect(await Promise.all(proofs.map(node.use))).toEqual(Array(5).fill('fresh'))
    const keys = redis.cli('KEYS', '*').split('\n')
    expect(keys.filter((key) => !/^holdfast:(?:epoch|[0-9a-f]{32}:(?:of:)?[0-9a-f]{64})$/.test(key))).toEqual(
      [],
    )
    const ends = keys.filter((key) => key !== 'holdfast:epoch').map((key) => Number(redis.cli('PTTL', key)))
    // The proofs are of in 30 s: their keys stay as long as they could come.
    expect(ends.filter((ms) => ms <= 0 || ms > (KEEP + 30) * 1000)).toEqual([])
    expect(ends.filter((ms) => ms > (KEEP + 25) * 1000)).toHaveLength(proofs.length)
  })

  it('lets no subject take more than its share', async () => {
    const node = open({ share: 2 })
    await node.redis.first
    const words = []
    for (const jti of ['one', 'two', 'three', 'one']) words.push(await node.use({ jti }))
    expect(words).toEqual(['fresh', 'fresh', 'share', 'replayed'])
    expect(await node.use({ jti: 'three', subject: 'other' })).toBe('fresh')
  })

  it('refuses what was made before its start, or so that a fast clock may have made it before', async () => {
    const node = open()
    await node.redis.first
    const now = nowSeconds(systemClock)
    const words = [now - 1, now + SKEW, now + 2 * SKEW].map((made, n) => node.use({ made, jti: `${n}` }))
    expect(await Promise.all(words)).toEqual(['floor', 'floor', 'fresh'])
    expect(await node.use({ made: now - 1, jti: 'n', hasNonce: true })).toBe('floor')
    expect(await node.use({ made: now + 2, jti: 'n', hasNonce: true })).toBe('fresh')
  })

  it('raises its floor when FLUSHALL comes between two replays, and says so', async () => {
    const [a, b] = [open(), open()]
    await Promise.all([a.redis.first, b.redis.first])
    const made = nowSeconds(systemClock) + SKEW + 1
    expect(await a.use({ made })).toBe('fresh')
    await until('the proof to be older than now', () => nowSeconds(systemClock) >= made - SKEW)
    redis.cli('FLUSHALL')
    expect([await b.use({ made }), await a.use({ made })]).toEqual(['floor', 'floor'])
    expect([a.floors, b.floors]).toEqual([
      [false, true],
      [false, true],
    ])
    expect(await b.use({ made: later(), jti: 'after' })).toBe('fresh')
  })

  it('raises its floor when the server is another run, whatever it still knows', async () => {
    const node = open()
    await node.redis.first
    const made = nowSeconds(systemClock) + SKEW + 1
    expect(await node.use({ made })).toBe('fresh')
    redis.cli('SAVE')
    redis.cli(
      'DEL',
      redis
        .cli('KEYS', 'holdfast:*:*')
        .split('\n')
        .find((key) => !key.includes(':of:')) ?? '',
    )
    redis.cli('SAVE')
    await redis.stop('SIGKILL')
    await until('the loss', () => node.redis.fault)
    expect(await node.use({ made })).toBe('replay_unavailable')
    await until('the proof to be older than now', () => nowSeconds(systemClock) >= made - SKEW)
    await redis.start()
    expect(redis.cli('EXISTS', 'holdfast:epoch')).toBe('1')
    await isOpen(node)
    expect(await node.use({ made })).toBe('floor')
    expect(node.floors).toEqual([false, true])
  })

  it('loads its scripts again when the server has forgotten them', async () => {
    const node = open()
    await node.redis.first
    redis.cli('SCRIPT', 'FLUSH')
    expect([await node.use(), await node.use()]).toEqual(['fresh', 'replayed'])
  })

  it('refuses while the server is down, and goes on when it is back', async () => {
    const node = open()
    await node.redis.first
    await redis.stop()
    await until('the loss', () => node.redis.fault)
    expect(await node.use()).toBe('replay_unavailable')
    await redis.start()
    await isOpen(node)
    expect(await node.use()).toBe('fresh')
  })

  it('refuses while the server is slow', async () => {
    const node = open()
    await node.redis.first
    redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
    const sleeping = import('node:child_process').then(({ spawn }) =>
      spawn('redis-cli', ['-s', join(redis.dir, 'redis.sock'), 'DEBUG', 'SLEEP', '2'], { stdio: 'ignore' }),
    )
    await sleeping
    await until(
      'a slow answer',
      async () => (await node.use({ jti: `${performance.now()}` })) === 'replay_unavailable',
    )
    expect(node.states.at(-1)?.message).toMatch(/does not answer in time|connection/)
    await isOpen(node)
    expect(await node.use({ jti: 'after' })).toBe('fresh')
  })

  it('goes on with the memory of the node where policy takes that, which knows what it has seen', async () => {
    const node = open({ isLocal: true })
    await node.redis.first
    const made = later()
    expect(await node.use({ made })).toBe('fresh')
    await redis.stop()
    await until('the loss', () => node.redis.fault)
    expect([await node.use({ made }), await node.use({ made, jti: 'two' })]).toEqual(['replayed', 'fresh'])
    expect(node.alone.map(({ reason }) => reason)).toEqual(['replay_unavailable'])
    await redis.start()
    await isOpen(node)
    expect(await node.use({ made, jti: 'two' })).toBe('replayed')
  })

  it('refuses a server that evicts keys, at start and later', async () => {
    await using evicting = await openRedis({ args: ['--maxmemory-policy', 'allkeys-lru'] })
    const refused = open({ url: evicting.url })
    expect(String(await refused.redis.first)).toContain(
      'evicts keys (maxmemory-policy allkeys-lru), wanted noeviction',
    )
    expect(await refused.use()).toBe('replay_unavailable')
    const node = open()
    await node.redis.first
    redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'volatile-ttl')
    await until('the next look', () => node.redis.fault)
    expect(node.redis.fault?.message).toContain('volatile-ttl')
  })

  it('refuses when the memory is full', async () => {
    const node = open()
    await node.redis.first
    redis.cli('CONFIG', 'SET', 'maxmemory', '1mb')
    expect(await node.use()).toBe('replay_unavailable')
  })

  it('refuses a replica', async () => {
    await using replica = await openRedis({ args: ['--replicaof', '127.0.0.1', '1'] })
    expect(String(await open({ url: replica.url }).redis.first)).toContain('is a replica')
  })

  it('works over TLS with the shipped ACL, which allows nothing else', async () => {
    const ca = makeTestCa()
    const files = {
      ...ca.serverFiles(),
      ca: ca.pem,
      other: makeTestCa().pem,
      password: 'correct horse\n',
      wrong: 'no',
    }
    const paths = Object.fromEntries(
      Object.entries(files).map(([name, text]) => {
        writeFileSync(join(redis.dir, name), text, { mode: 0o600 })
        return [name, join(redis.dir, name)]
      }),
    ) as Record<keyof typeof files, string>
    const shipped = readFileSync(new URL('../../deploy/redis/users.acl', import.meta.url), 'utf8')
    const hash = createHash('sha256').update('correct horse').digest('hex')
    const acl = join(redis.dir, 'users.acl')
    writeFileSync(acl, shipped.replace('replace-by-the-sha256-of-the-password-in-hex', hash))
    await using guarded = await openRedis({ args: ['--aclfile', acl], tls: paths })
    const url = guarded.tlsUrl.replace('//', '//holdfast@')
    const [passwordFile, caFile] = [paths.password, paths.ca]
    const node = open({ url, passwordFile, caFile })
    expect(await node.redis.first).toBeUndefined()
    expect([await node.use(), await node.use()]).toEqual(['fresh', 'replayed'])
    await until('two looks', () => node.redis.fault === undefined)
    const refusals = [
      open({ url, passwordFile: paths.wrong, caFile }),
      open({ url, caFile }),
      open({ url, passwordFile, caFile: paths.other }),
    ]
    const whys = await Promise.all(refusals.map(({ redis: { first } }) => first.then(String)))
    expect(whys[0]).toContain('WRONGPASS')
    expect(whys[1]).toContain('NOAUTH')
    expect(whys[2]).toContain('cannot be reached (SELF_SIGNED_CERT_IN_CHAIN)')
    const as = ['--user', 'holdfast', '--pass', 'correct horse', '--no-auth-warning']
    for (const command of [['FLUSHALL'], ['KEYS', '*'], ['GET', 'else'], ['CONFIG', 'SET', 'maxmemory', '0']])
      expect(guarded.cli(...as, ...command)).toContain('NOPERM')
  })
})

describe.skipIf(!hasRedis)('clocks', () => {
  const off = (seconds: number): Clock => ({
    ...systemClock,
    now: () => systemClock.now() + seconds * 1000,
  })

  it.each([
    [
      600,
      /the clock of this node is (?:599|60[01]) s ahead of that of the Redis server, wanted 60 s at most/,
    ],
    [-600, /the clock of this node is (?:599|60[01]) s behind that of the Redis server/],
  ])('of a node that is off by %i s: nothing is taken until it is right', async (seconds, message) => {
    const right = open()
    await right.redis.first
    const node = open({ clock: off(seconds) })
    expect((await node.redis.first)?.message).toMatch(message)
    expect(await node.use({ made: nowSeconds(off(seconds)) + SKEW + 1 })).toBe('replay_unavailable')
    // Nor has it raised the floor of others.
    expect(await right.use()).toBe('fresh')
  })

  it('of a node that jumps between two looks are found by the next proof', async () => {
    let shift = 0
    const node = open({ clock: { ...systemClock, now: () => systemClock.now() + shift } })
    await node.redis.first
    const made = later()
    expect(await node.use({ made })).toBe('fresh')
    shift = -600_000
    expect(await node.use({ made })).toBe('replay_unavailable')
    shift = 600_000
    expect(await node.use({ made: made + 600 })).toBe('replay_unavailable')
    shift = 0
    await isOpen(node)
    expect(await node.use({ made })).toBe('replayed')
  })

  it('of a node that is behind bring back nothing that the server has let go of', async () => {
    const node = open({ clock: off(-50) })
    await node.redis.first
    redis.cli('HSET', 'holdfast:epoch', 'floor', '0')
    const words = [KEEP + 1, KEEP - 5].map((age) =>
      node.use({ made: nowSeconds(systemClock) - age, jti: `${age}` }),
    )
    expect(await Promise.all(words)).toEqual(['floor', 'fresh'])
  })

  it('of the server that go back raise the floor: keys may have ended early', async () => {
    const node = open()
    await node.redis.first
    const made = nowSeconds(systemClock) + SKEW
    redis.cli('HSET', 'holdfast:epoch', 'floor', '0', 'time', `${nowSeconds(systemClock) + 30}`)
    expect(await node.use({ made })).toBe('floor')
    expect(node.floors).toEqual([false, true])
    expect(await node.use({ made: later() })).toBe('fresh')
  })

  it('that gave a nonce of far ahead are not believed, and nothing is remembered of it', async () => {
    const node = open()
    await node.redis.first
    expect(await node.use({ made: nowSeconds(systemClock) + 3_700, hasNonce: true })).toBe(
      'replay_unavailable',
    )
    expect(redis.cli('KEYS', 'holdfast:*:*')).toBe('')
  })
})

describe.skipIf(!hasRedis)('a Redis server that asks for a certificate', () => {
  it('is shown that of the agent, read for each connection', async () => {
    const ca = makeTestCa()
    const own = ca.serverFiles({ dns: 'agent.example.org' })
    const strange = makeTestCa().serverFiles()
    const texts = {
      ...ca.serverFiles(),
      ca: ca.pem,
      ownCert: own.cert,
      ownKey: own.key,
      otherCert: strange.cert,
    }
    const path = (name: string, text: string) => {
      writeFileSync(join(redis.dir, name), text, { mode: 0o600 })
      return join(redis.dir, name)
    }
    const files = Object.fromEntries(
      Object.entries({ ...texts, otherKey: strange.key }).map(([name, text]) => [name, path(name, text)]),
    ) as Record<keyof typeof texts | 'otherKey', string>
    await using guarded = await openRedis({ tls: { ...files, asksClients: true } })
    const [url, caFile] = [guarded.tlsUrl, files.ca]
    const pair = (certificateFile: string, keyFile: string) => ({ client: { certificateFile, keyFile } })
    const good = open({ url, caFile, ...pair(files.ownCert, files.ownKey) })
    expect([await good.redis.first, await good.use(), await good.use()]).toEqual([
      undefined,
      'fresh',
      'replayed',
    ])
    const refused = [
      open({ url, caFile }),
      open({ url, caFile, ...pair(files.otherCert, files.otherKey) }),
      open({ url, caFile, ...pair(files.ownCert, files.otherKey) }),
    ]
    const whys = await Promise.all(refused.map(({ redis: { first } }) => first.then(String)))
    expect(whys[0]).toMatch(/the Redis server/)
    expect(whys[1]).toMatch(/the Redis server/)
    expect(whys[2]).toContain('are no pair in PEM')
    expect(await Promise.all(refused.map((node) => node.use()))).toEqual(Array(3).fill('replay_unavailable'))
    // A new pair in the same files needs no restart.
    const renewed = ca.serverFiles({ dns: 'agent.example.org' })
    path('otherCert', renewed.cert)
    path('otherKey', renewed.key)
    await isOpen(refused[1] as ReplayNode)
  })
})

describe('the URL of a Redis server', () => {
  it.each([
    ['rediss://r.example.org', { host: 'r.example.org', port: 6379 }, true, undefined, 0],
    ['rediss://hf@r.example.org:7000/3', { host: 'r.example.org', port: 7000 }, true, 'hf', 3],
    ['redis://[::1]:7000', { host: '::1', port: 7000 }, false, undefined, 0],
    ['redis+unix:///run/redis.sock', { path: '/run/redis.sock' }, false, undefined, 0],
    ['redis+unix://hf@localhost/run/redis.sock', { path: '/run/redis.sock' }, false, 'hf', 0],
  ])('may be %s', (text, at, isTls, user, database) => {
    expect(parseRedisUrl(text)).toEqual({ at, isTls, user, database })
  })

  it.each([
    'redis://r.example.org',
    'rediss://hf:secret@r.example.org',
    'rediss://:secret@r.example.org',
    'rediss://r.example.org/a',
    'rediss://r.example.org/1/2',
    'rediss://r.example.org?db=1',
    'http://localhost',
    'redis+unix://',
    'redis+unix://else/run/redis.sock',
    'redis.example.org:6379',
  ])('may not be %s, which is not quoted', (text) => {
    let said = ''
    try {
      parseRedisUrl(text)
    } catch (error) {
      said = String(error)
    }
    expect(said).toContain('Fault')
    expect(said).not.toContain('secret')
  })
})
