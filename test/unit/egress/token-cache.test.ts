import { setMaxListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import type { Workload } from '../../../src/attest/workload.ts'
import { Fault } from '../../../src/base/fault.ts'
import { Live } from '../../../src/base/live.ts'
import { Secret } from '../../../src/base/secret.ts'
import { type Subject, Subjects } from '../../../src/egress/subjects.ts'
import { TokenCache } from '../../../src/egress/token-cache.ts'
import type { TokenNeed } from '../../../src/egress/token-request.ts'
import type { BoundToken, TokenAsk } from '../../../src/egress/tokens.ts'
import { Vault } from '../../../src/keys/vault.ts'
import type { RuleBook } from '../../../src/policy/book.ts'
import type { Server, Target, TargetIdentity } from '../../../src/policy/grant.ts'
import { purposeOf } from '../../../src/sign/sign.ts'
import { entry as entryNamed } from '../../support/book.ts'
import { ecPair } from '../../support/certificates.ts'
import { ManualClock } from '../../support/clock.ts'
import { signToken } from '../../support/tokens.ts'

const SERVER: Server = { issuer: 'https://as.example.org', tokenEndpoint: undefined, client: undefined }
const TTL = 120

/** A request that the test answers. */
interface Asked {
  readonly need: TokenNeed
  readonly signal: AbortSignal
  answer(ttl?: number): void
  fail(fault: Fault): void
}

function open(limit = 100, random = 0) {
  const clock = new ManualClock()
  const vault = new Vault({ clock, rotation: 3_600 })
  const book = new Live({ hash: 'one' } as RuleBook)
  const asked: Asked[] = []
  const givenBack: string[] = []
  const settling: number[] = []
  const events: string[] = []
  const request = (need: TokenNeed, signal: AbortSignal) =>
    new Promise<BoundToken>((resolve, reject) => {
      const token = new Secret(`token-${asked.length}`)
      const answer = (ttl = TTL) =>
        resolve({ token, jkt: need.signer.jkt, expires: Math.floor(clock.now() / 1000) + ttl })
      asked.push({ need, signal, answer, fail: reject })
    })
  const cache = new TokenCache({
    requests: { request },
    revoker: {
      add: (_need, token) => givenBack.push(token.reveal()),
      settled: async (limit) => void settling.push(limit),
      stop: () => {},
    },
    vault,
    book,
    clock,
    renewBefore: 60,
    limit,
    random: () => random,
    onToken: (kind, fault) => events.push(fault ? `${kind}: ${fault.reason}` : kind),
  })
  return { cache, clock, vault, book, asked, givenBack, settling, events, get: getter(cache, vault) }
}

interface Lease {
  readonly workload: Workload
  end(): void
}

let count = 0

function lease(): Lease {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)
  count += 1
  const instance = { key: `process:${count}:1`, signal: controller.signal }
  return {
    workload: { instanceOf: () => instance } as unknown as Workload,
    end: () => controller.abort(),
  }
}

interface Over {
  readonly name?: string
  readonly entry?: string
  readonly server?: Server
  readonly identity?: Partial<TargetIdentity>
  readonly signal?: AbortSignal
  readonly subject?: Subject | undefined
}

function askOf(vault: Vault, { workload }: Lease, over: Over): TokenAsk {
  const { name = 'orders', server = SERVER } = over
  const entry = entryNamed(over.entry ?? 'web', ['unix:uid:1000'])
  const identity = {
    server,
    scopes: ['read'],
    resource: undefined,
    maxTtl: 300,
    ...over.identity,
  } as TargetIdentity
  const target: Target = { name, identity, platform: undefined, application: undefined }
  const owner = { spiffeId: entry.spiffeId, instance: workload.instanceOf(entry) }
  return {
    workload,
    entry,
    target,
    server,
    signer: vault.signerFor(owner, purposeOf(target), 300),
    subject: over.subject,
  }
}

const getter =
  (cache: TokenCache, vault: Vault) =>
  (one: Lease, over: Over = {}) => {
    const promise = cache.get(askOf(vault, one, over), over.signal ?? new AbortController().signal)
    return promise.then(
      ({ token }) => token.reveal(),
      (error: unknown) => (error instanceof Fault ? error.reason : String(error)),
    )
  }

/** Lets every promise that can go on go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve))

describe('tokens that are kept', () => {
  it('are fetched once for all who wait, and handed out while they live', async () => {
    const { get, asked, clock } = open()
    const one = lease()
    const waiting = [get(one), get(one), get(one)]
    await settle()
    asked[0]?.answer()
    expect(await Promise.all(waiting)).toEqual(['token-0', 'token-0', 'token-0'])
    clock.advance(30_000)
    expect(await get(one)).toBe('token-0')
    expect(asked).toHaveLength(1)
  })

  it.each<[string, Over]>([
    ['target', { name: 'stock' }],
    ['identity', { entry: 'batch' }],
    ['server', { server: { ...SERVER, issuer: 'https://other.example.org' } }],
    ['endpoint', { server: { ...SERVER, tokenEndpoint: 'https://as.example.org/t' } }],
    ['client', { server: { ...SERVER, client: { method: 'tls_client_auth', clientId: 'c' } } }],
    ['scope', { identity: { scopes: ['write'] } }],
    ['resource', { identity: { resource: 'https://r.example.org' } }],
    ['ceiling', { identity: { maxTtl: 60 } }],
  ])('are not shared across another %s', async (_what, over) => {
    const { get, asked } = open()
    const one = lease()
    void get(one)
    void get(one, over)
    await settle()
    expect(asked).toHaveLength(2)
  })

  it('are not shared across instances of one identity', async () => {
    const { get, asked } = open()
    void get(lease())
    void get(lease())
    await settle()
    expect(new Set(asked.map(({ need }) => need.instance.key)).size).toBe(2)
  })

  it('are not handed out in their last seconds', async () => {
    const { get, asked, clock } = open()
    const one = lease()
    const first = get(one)
    await settle()
    asked[0]?.answer(10)
    await first
    clock.advance(5_000)
    expect(await get(one)).toBe('token-0')
    clock.advance(1_000)
    const second = get(one)
    await settle()
    asked.at(-1)?.answer()
    expect(await second).not.toBe('token-0')
  })

  it('are bounded: the one used longest ago goes', async () => {
    const { get, asked, cache } = open(4)
    const leases = [lease(), lease(), lease()]
    for (const [index, one] of leases.entries()) {
      const promise = get(one)
      await settle()
      asked[index]?.answer()
      await promise
    }
    expect(cache.count).toBe(2)
    void get(leases[2] as Lease)
    void get(leases[0] as Lease)
    await settle()
    expect(asked).toHaveLength(4)
  })

  it('of one identity never displace those of another, in however many instances it asks', async () => {
    const { get, asked, cache } = open(8)
    const quiet = lease()
    const answered = async (one: Lease, entry: string) => {
      const promise = get(one, { entry })
      await settle()
      asked.at(-1)?.answer()
      return await promise
    }
    const token = await answered(quiet, 'db')
    for (let at = 0; at < 20; at += 1) await answered(lease(), 'web')
    expect(cache.count).toBe(5)
    expect(await get(quiet, { entry: 'db' })).toBe(token)
    for (const name of ['a', 'b', 'c', 'd', 'e']) await answered(lease(), name)
    expect(cache.count).toBe(8)
    expect(await answered(lease(), 'web')).toMatch(/^token-/)
    expect(cache.count).toBe(8)
  })

  it('are refused when all places are taken by requests under way', async () => {
    const { get } = open(1)
    void get(lease())
    await settle()
    expect(await get(lease())).toBe('overloaded')
  })

  it('has the token neither in its keys nor in what it prints', async () => {
    const { get, asked, cache, events } = open()
    const promise = get(lease())
    await settle()
    asked[0]?.answer()
    await promise
    expect(JSON.stringify([cache, events])).not.toContain('token-0')
  })
})

describe('renewal', () => {
  async function held(ttl = TTL, random = 0) {
    const parts = open(100, random)
    const one = lease()
    const promise = parts.get(one)
    await settle()
    parts.asked[0]?.answer(ttl)
    await promise
    return { ...parts, one }
  }

  it('comes a third of the life before the end when it is used, while callers get the old one', async () => {
    const { get, asked, clock, one, events } = await held()
    clock.advance(40_000)
    await get(one)
    clock.advance(39_999)
    expect(asked).toHaveLength(1)
    clock.advance(1)
    await settle()
    expect(asked).toHaveLength(2)
    expect(await get(one)).toBe('token-0')
    asked[1]?.answer()
    await settle()
    expect(await get(one)).toBe('token-1')
    expect(events).toContain('renewed')
  })

  it('comes at the setting for a long token', async () => {
    const { get, asked, clock, one } = await held(3_600)
    clock.advance(3_000_000)
    await get(one)
    clock.advance(539_999)
    expect(asked).toHaveLength(1)
    clock.advance(1)
    await settle()
    expect(asked).toHaveLength(2)
  })

  it.each([
    [0, 3_540],
    [0.5, 3_240],
    [1, 2_940],
  ])('of a long token is spread over a sixth of its life: random %d, after %d s', async (random, after) => {
    const { get, asked, clock, one } = await held(3_600, random)
    clock.advance(2_900_000)
    await get(one)
    clock.advance((after - 2_900) * 1_000 - 1)
    expect(asked).toHaveLength(1)
    clock.advance(1)
    await settle()
    expect(asked).toHaveLength(2)
  })

  it('does not come for what nobody used in the last half of its life', async () => {
    const { asked, clock, cache } = await held()
    clock.advance(TTL * 1_000)
    await settle()
    expect([asked.length, cache.count]).toEqual([1, 0])
  })

  it('that fails leaves the old token until it ends, and is tried again', async () => {
    const { get, asked, clock, one } = await held()
    clock.advance(60_000)
    await get(one)
    clock.advance(20_000)
    await settle()
    asked[1]?.fail(new Fault('issuer_unavailable'))
    await settle()
    expect(await get(one)).toBe('token-0')
    clock.advance(1_000)
    await settle()
    expect(asked).toHaveLength(3)
    asked[2]?.answer()
    await settle()
    expect(await get(one)).toBe('token-2')
  })

  it('is spread: two tokens of one moment are not renewed at one moment', async () => {
    const clock = new ManualClock()
    const times: number[] = []
    let next = 0
    const cache = new TokenCache({
      requests: {
        request: async ({ signer }) => {
          times.push(clock.monotonic())
          return { token: new Secret('t'), jkt: signer.jkt, expires: Math.floor(clock.now() / 1000) + TTL }
        },
      },
      revoker: { add: () => {}, settled: async () => {}, stop: () => {} },
      vault: new Vault({ clock, rotation: 3_600 }),
      book: new Live({ hash: 'one' } as RuleBook),
      clock,
      renewBefore: 60,
      limit: 10,
      random: () => (next++ % 2 === 0 ? 0 : 0.9),
      onToken: () => {},
    })
    const vault = new Vault({ clock, rotation: 3_600 })
    const leases = [lease(), lease()]
    for (const one of leases) await getter(cache, vault)(one)
    clock.advance(45_000)
    for (const one of leases) await getter(cache, vault)(one)
    for (let second = 0; second < 45; second += 1) {
      clock.advance(1_000)
      await settle()
    }
    expect(times.slice(2)).toEqual([62_000, 80_000])
  })
})

describe('a token goes', () => {
  async function held() {
    const parts = open()
    const one = lease()
    const promise = parts.get(one)
    await settle()
    parts.asked[0]?.answer()
    await promise
    return { ...parts, one }
  }

  it('and is given back when its lease ends; nobody gets it afterwards', async () => {
    const { one, givenBack, cache, vault } = await held()
    const ask = askOf(vault, one, {})
    one.end()
    expect([givenBack, cache.count]).toEqual([['token-0'], 0])
    await expect(cache.get(ask, new AbortController().signal)).rejects.toMatchObject({
      reason: 'lease_ended',
    })
  })

  it('and is given back when its key is destroyed', async () => {
    const { vault, asked, givenBack, cache } = await held()
    vault.destroy({ jkt: asked[0]?.need.signer.jkt ?? '' })
    expect([givenBack, cache.count]).toEqual([['token-0'], 0])
  })

  it('when its key is rotated, without being given back; those of other keys stay', async () => {
    const { get, asked, clock, cache, givenBack } = open()
    const one = lease()
    const other = { server: { ...SERVER, issuer: 'https://other.example.org' } }
    const first = get(one)
    await settle()
    asked[0]?.answer(7_200)
    await first
    clock.advance(1_000_000)
    const second = get(one, other)
    await settle()
    asked[1]?.answer(7_200)
    await second
    clock.advance(2_599_000)
    expect(cache.count).toBe(2)
    clock.advance(2_000)
    expect(cache.count).toBe(1)
    expect(await get(one, other)).toBe('token-1')
    expect(givenBack).toEqual([])
  })

  it('when policy changes', async () => {
    const { get, one, asked, book, cache } = await held()
    book.set({ hash: 'two' } as RuleBook)
    expect(cache.count).toBe(0)
    void get(one)
    await settle()
    expect(asked).toHaveLength(2)
  })

  it.each([
    ['target', { target: 'orders' }, 1],
    ['identity', { spiffeId: 'spiffe://example.test/web' }, 1],
    ['nothing', {}, 1],
    ['another target', { target: 'stock' }, 0],
    ['another instance', { instance: 'process:0:0' }, 0],
    ['another key', { jkt: 'A' }, 0],
  ])('by %s', async (_what, filter, dropped) => {
    const { cache, givenBack } = await held()
    expect(cache.drop(filter)).toBe(dropped)
    expect(givenBack).toHaveLength(dropped)
  })

  it('and is given back when the agent drains, for a limited time, and no other is had', async () => {
    const { cache, get, givenBack, settling } = await held()
    await cache.giveBack(3_000)
    expect([cache.count, givenBack, settling]).toEqual([0, ['token-0'], [3_000]])
    expect(await get(lease())).toBe('draining')
  })

  it('without being given back when the agent stops', async () => {
    const { cache, givenBack } = await held()
    cache.stop()
    expect([cache.count, givenBack]).toEqual([0, []])
  })
})

describe('a request under way', () => {
  it('goes on while one caller waits, and ends with the last', async () => {
    const { get, asked } = open()
    const one = lease()
    const [first, second] = [new AbortController(), new AbortController()]
    const waiting = [get(one, { signal: first.signal }), get(one, { signal: second.signal })]
    await settle()
    first.abort()
    expect(await waiting[0]).toBe('canceled')
    expect(asked[0]?.signal.aborted).toBe(false)
    second.abort()
    expect(await waiting[1]).toBe('canceled')
    expect(asked[0]?.signal.aborted).toBe(true)
  })

  it('is answered lease_ended when the lease ends, and what still comes is given back', async () => {
    const { get, asked, givenBack, cache } = open()
    const one = lease()
    const waiting = get(one)
    await settle()
    one.end()
    expect(['lease_ended', 'key_lost']).toContain(await waiting)
    asked[0]?.answer()
    await settle()
    expect([givenBack, cache.count]).toEqual([['token-0'], 0])
  })

  it('is cut off by a revocation and a stop', async () => {
    const { get, cache, asked } = open()
    const waiting = [get(lease()), get(lease(), { name: 'stock' })]
    await settle()
    cache.drop({ target: 'stock' })
    expect(await waiting[1]).toBe('revoked')
    cache.stop()
    expect(await waiting[0]).toBe('draining')
    expect(asked.map(({ signal }) => signal.aborted)).toEqual([true, true])
  })

  it('that policy overtook is brought to its callers and not kept', async () => {
    const { get, asked, book, cache } = open()
    const one = lease()
    const waiting = get(one)
    await settle()
    book.set({ hash: 'two' } as RuleBook)
    asked[0]?.answer()
    expect(await waiting).toBe('token-0')
    expect(cache.count).toBe(0)
  })

  it('of one identity waits behind its own, in however many instances it asks', async () => {
    const { get, asked } = open()
    for (let at = 0; at < 30; at += 1) void get(lease())
    void get(lease(), { entry: 'db' })
    await settle()
    expect(asked).toHaveLength(8)
    asked[0]?.answer()
    await settle()
    expect(asked[8]?.need.entry.spiffeId).toBe('spiffe://example.test/db')
  })

  it('is one of at most eight at a server, and a caller goes before a renewal', async () => {
    const { get, asked, clock } = open()
    const early = lease()
    const first = get(early)
    await settle()
    asked[0]?.answer()
    await first
    const crowd = Array.from({ length: 12 }, lease)
    clock.advance(79_000)
    await get(early)
    for (const one of crowd.slice(0, 8)) void get(one)
    await settle()
    expect(asked).toHaveLength(9)
    clock.advance(1_000)
    void get(crowd[8] as Lease)
    await settle()
    expect(asked).toHaveLength(9)
    asked[1]?.answer()
    await settle()
    expect(asked).toHaveLength(10)
    expect(asked[9]?.need.instance.key).not.toBe(asked[0]?.need.instance.key)
    asked[2]?.answer()
    await settle()
    expect(asked[10]?.need.instance.key).toBe(asked[0]?.need.instance.key)
  })
})

describe('after a failure', () => {
  it('of the server, nobody asks it until the time is over, then one does', async () => {
    const { get, asked, clock } = open()
    const waiting = get(lease())
    await settle()
    asked[0]?.fail(new Fault('issuer_unavailable'))
    expect(await waiting).toBe('issuer_unavailable')
    expect(await get(lease())).toBe('issuer_unavailable')
    expect(asked).toHaveLength(1)
    clock.advance(500)
    void get(lease())
    await settle()
    expect(asked).toHaveLength(2)
  })

  it('of the server, each one in a row doubles the wait', async () => {
    const { get, asked, clock } = open()
    const waits: number[] = []
    for (let attempt = 0; attempt < 4; attempt += 1) {
      const waiting = get(lease())
      await settle()
      asked.at(-1)?.fail(new Fault('issuer_unavailable'))
      await waiting
      let wait = 0
      for (const before = asked.length; asked.length === before; wait += 500) {
        clock.advance(500)
        const next = new AbortController()
        void get(lease(), { signal: next.signal })
        await settle()
        next.abort()
      }
      waits.push(wait)
    }
    expect(waits).toEqual([500, 1_000, 2_000, 4_000])
  })

  it('of one kind of token, others are asked for all the same', async () => {
    const { get, asked } = open()
    const one = lease()
    const waiting = get(one)
    await settle()
    asked[0]?.fail(new Fault('issued_too_long'))
    expect(await waiting).toBe('issued_too_long')
    expect(await get(one)).toBe('issued_too_long')
    void get(one, { name: 'stock' })
    await settle()
    expect(asked).toHaveLength(2)
  })

  it('those who wait at the gate are told without asking', async () => {
    const { get, asked } = open()
    const waiting = Array.from({ length: 10 }, () => get(lease()))
    await settle()
    for (const one of asked) one.fail(new Fault('issuer_unavailable'))
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['issuer_unavailable']))
    expect(asked).toHaveLength(8)
  })
})

describe('tokens of subjects', () => {
  function subjectOf(cache: ReturnType<typeof open>, one: Lease, sub: string, seconds = 600) {
    const { clock } = cache
    const subjects = new Subjects({ clock, perInstance: 10, limit: 10 })
    const exp = Math.floor(clock.now() / 1000) + seconds
    const token = signToken({ alg: 'ES256' }, { sub, exp }, ecPair())
    const owner = { spiffeId: 'spiffe://example.org/web', instance: one.workload.instanceOf({} as never) }
    return { subjects, subject: subjects.add(owner, new Secret(token)).subject }
  }

  it('are never those of another subject, nor of the workload itself', async () => {
    const cache = open()
    const { get, asked } = cache
    const one = lease()
    const subjects = [undefined, ...['ada', 'bob'].map((sub) => subjectOf(cache, one, sub).subject)]
    const waiting = subjects.map((subject) => get(one, { subject }))
    await settle()
    for (const each of asked) each.answer()
    expect(await Promise.all(waiting)).toEqual(['token-0', 'token-1', 'token-2'])
    expect(await Promise.all(subjects.map((subject) => get(one, { subject })))).toEqual([
      'token-0',
      'token-1',
      'token-2',
    ])
    expect(asked.map(({ need }) => need.subject)).toEqual(subjects)
    expect(cache.cache.drop({ subject: subjects[1]?.hash ?? '' })).toBe(1)
    expect(cache.cache.drop({ subject: '' })).toBe(1)
    expect(await get(one, { subject: subjects[2] })).toBe('token-2')
  })

  it('that break a server are a setback for their workload alone', async () => {
    const cache = open()
    const { get, asked } = cache
    const [one, other] = [lease(), lease()]
    const [ada, bob, eve] = ['ada', 'bob', 'eve'].map((sub) => subjectOf(cache, one, sub).subject)
    const waiting = get(one, { subject: ada })
    await settle()
    asked[0]?.fail(new Fault('issuer_unavailable'))
    expect(await waiting).toBe('issuer_unavailable')
    expect(await get(one, { subject: bob })).toBe('issuer_unavailable')
    void get(other)
    void get(one)
    void get(other, { subject: eve })
    await settle()
    expect(asked).toHaveLength(4)
  })

  it('leave the next place at a server to whoever has none', async () => {
    const cache = open()
    const { get, asked } = cache
    const [crowd, other] = [lease(), lease()]
    for (let at = 0; at < 10; at += 1) void get(crowd, { subject: subjectOf(cache, crowd, `${at}`).subject })
    void get(other)
    await settle()
    expect(asked).toHaveLength(8)
    asked[0]?.answer()
    await settle()
    expect(asked[8]?.need.instance).toBe(other.workload.instanceOf({} as never))
  })

  it('end with the handle, and a request under way with it', async () => {
    const cache = open()
    const { get, asked, givenBack } = cache
    const one = lease()
    const { subjects, subject } = subjectOf(cache, one, 'ada')
    const held = get(one, { subject })
    const waiting = get(one, { subject, name: 'stock' })
    await settle()
    asked[0]?.answer()
    expect(await held).toBe('token-0')
    subjects.end({})
    expect([await waiting, await get(one, { subject }), cache.cache.count]).toEqual([
      'subject_unknown',
      'subject_unknown',
      0,
    ])
    expect(givenBack).toEqual(['token-0'])
  })

  it('that end with their subject are used to their last second and not renewed', async () => {
    const cache = open()
    const { get, asked, clock } = cache
    const one = lease()
    const { subject } = subjectOf(cache, one, 'ada', TTL)
    const first = get(one, { subject })
    await settle()
    asked[0]?.answer()
    await first
    for (let second = 1; second < TTL; second += 1) {
      clock.advance(1_000)
      expect(await get(one, { subject })).toBe('token-0')
    }
    clock.advance(1_000)
    expect(await get(one, { subject })).toBe('subject_unknown')
    expect(asked).toHaveLength(1)
  })

  it('that end before their subject are renewed as others are', async () => {
    const cache = open()
    const { get, asked, clock } = cache
    const one = lease()
    const { subject } = subjectOf(cache, one, 'ada')
    const first = get(one, { subject })
    await settle()
    asked[0]?.answer()
    await first
    clock.advance(70_000)
    await get(one, { subject })
    clock.advance(20_000)
    await settle()
    expect(asked).toHaveLength(2)
  })
})
