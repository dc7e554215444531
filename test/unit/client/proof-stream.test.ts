/** The proof stream: coalescing, order, refusals, reconnection, limits of time and number. */
import { describe, expect, it } from 'vitest'
import type { Fault } from '../../../src/base/fault.ts'
import { CODE } from '../../../src/client/grpc.ts'
import { type AskProofOptions, ProofStream } from '../../../src/client/proof-stream.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeAgent, tick } from '../../support/fake-agent.ts'

function setup() {
  const clock = new ManualClock()
  const agent = new FakeAgent()
  const stream = new ProofStream({ agent, clock })
  const ask = (url: string, options: AskProofOptions = {}, size = url.length) =>
    stream.ask({ id: 0, dpop: { url } }, size, options)
  const proofOf = async (url: string) => (await ask(url))['proof']
  return { clock, agent, stream, ask, proofOf }
}

const outcome = (promise: Promise<unknown>) =>
  promise.then(
    () => 'proof',
    (error: Fault) => error.reason ?? String(error),
  )

describe('coalescing', () => {
  it('sends all calls of one tick as one message, numbered from 1', async () => {
    const { agent, proofOf } = setup()
    const proofs = ['a', 'b', 'c'].map(proofOf)
    await tick()
    agent.last.ready()
    expect(agent.streams).toHaveLength(1)
    expect(agent.last.sent).toHaveLength(1)
    expect(agent.last.requests(0).map(({ id, dpop }) => [id, dpop['url']])).toEqual([
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
    ])
    agent.last.prove(0)
    expect(await Promise.all(proofs)).toEqual(['proof of a', 'proof of b', 'proof of c'])
  })

  it('puts at most 64 requests into a message', async () => {
    const { agent, proofOf } = setup()
    for (let index = 0; index < 100; index++) void proofOf(`u${index}`)
    await tick()
    agent.last.ready()
    expect(agent.last.sent.map((_, index) => agent.last.requests(index).length)).toEqual([64, 36])
  })

  it('cuts a message that would be too large for the agent', async () => {
    const { agent, ask } = setup()
    for (let index = 0; index < 5; index++) void ask('u', {}, 60 * 1024)
    await tick()
    agent.last.ready()
    expect(agent.last.sent.map((_, index) => agent.last.requests(index).length)).toEqual([4, 1])
  })

  it('lets calls wait for the next message while two are unanswered', async () => {
    const { agent, proofOf } = setup()
    void proofOf('a')
    await tick()
    agent.last.ready()
    for (const url of ['b', 'c', 'd']) {
      void proofOf(url)
      await tick()
    }
    expect(agent.last.sent).toHaveLength(2)
    agent.last.prove(0)
    await tick()
    expect(agent.last.requests(2).map(({ dpop }) => dpop['url'])).toEqual(['c', 'd'])
  })

  it('sends nothing while the stream takes no more', async () => {
    const { agent, proofOf } = setup()
    void proofOf('a')
    await tick()
    agent.last.takesMore = false
    agent.last.ready()
    void proofOf('b')
    await tick()
    expect(agent.last.sent).toHaveLength(1)
    agent.last.ready()
    expect(agent.last.sent).toHaveLength(2)
  })
})

describe('refusals', () => {
  it('rejects one refused item with its reason, words and owner, and no other', async () => {
    const { agent, proofOf } = setup()
    const [good, bad] = [proofOf('good'), proofOf('bad').catch((error: Fault) => error)]
    await tick()
    agent.last.ready()
    const refusal = { reason: 'target_unknown', message: 'no such', action: 'add it', owner: 'platform' }
    agent.last.say({
      results: [
        { id: 2, refusal },
        { id: 1, proof: { proof: 'p' } },
      ],
    })
    expect(await good).toBe('p')
    expect(await bad).toMatchObject(refusal)
  })

  it('keeps the words of a reason that this version does not know', async () => {
    const { agent, proofOf } = setup()
    const refused = proofOf('a').catch((error: Fault) => error)
    await tick()
    agent.last.ready().say({ results: [{ id: 1, refusal: { reason: 'moon_phase', message: 'not today' } }] })
    expect(await refused).toMatchObject({ reason: 'bug', message: 'moon_phase: not today' })
  })

  it.each([
    ['is left out of the answer', [{ id: 1, proof: {} }]],
    [
      'has an id that nobody chose',
      [
        { id: 1, proof: {} },
        { id: 7, proof: {} },
      ],
    ],
  ])('rejects a request that %s', async (_what, results) => {
    const { agent, proofOf } = setup()
    const outcomes = [outcome(proofOf('a')), outcome(proofOf('b'))]
    await tick()
    agent.last.ready().say({ results })
    expect(await Promise.all(outcomes)).toEqual(['proof', 'bug'])
  })

  it('refuses a request over 64 KiB and more than 8192 that wait', async () => {
    const { ask } = setup()
    expect(await outcome(ask('u', {}, 65_537))).toBe('invalid_request')
    for (let index = 0; index < 8_192; index++) void ask('u')
    expect(await outcome(ask('u'))).toBe('overloaded')
  })
})

describe('reconnection', () => {
  it('asks again on a new stream what the old one left unanswered, in order and nothing twice', async () => {
    const { agent, proofOf } = setup()
    const first = proofOf('a')
    await tick()
    agent.last.ready().prove(0)
    expect(await first).toBe('proof of a')
    const rest = ['b', 'c'].map(proofOf)
    await tick()
    agent.last.end(CODE.UNAVAILABLE)
    expect(agent.streams).toHaveLength(2)
    agent.last.ready()
    expect(agent.last.requests(0).map(({ dpop }) => dpop['url'])).toEqual(['b', 'c'])
    agent.last.prove(0)
    expect(await Promise.all(rest)).toEqual(['proof of b', 'proof of c'])
  })

  it('puts what was sent before what had to wait', async () => {
    const { agent, proofOf } = setup()
    void proofOf('a')
    await tick()
    agent.last.ready().prove(0)
    for (const url of ['b', 'c', 'd', 'e']) {
      void proofOf(url)
      await tick()
    }
    expect(agent.last.sent).toHaveLength(3)
    agent.last.end(CODE.UNAVAILABLE)
    agent.last.ready()
    expect(agent.last.requests(0).map(({ dpop }) => dpop['url'])).toEqual(['b', 'c', 'd', 'e'])
  })

  it('takes a new lease when the old one ends, and believes the new refusal', async () => {
    const { agent, proofOf } = setup()
    void proofOf('a')
    await tick()
    agent.last.ready().prove(0)
    await tick()
    const refused = outcome(proofOf('b'))
    await tick()
    agent.last.end(CODE.PERMISSION_DENIED, 'lease_ended')
    expect(agent.streams).toHaveLength(2)
    agent.last.end(CODE.PERMISSION_DENIED, 'revoked')
    expect(await refused).toBe('revoked')
  })

  it.each([
    ['header_missing', CODE.INVALID_ARGUMENT],
    ['no_identity', CODE.PERMISSION_DENIED],
    ['too_many_connections', CODE.RESOURCE_EXHAUSTED],
    ['unimplemented', CODE.UNIMPLEMENTED],
  ] as const)('rejects at once with %s when a fresh stream ends with it', async (reason, code) => {
    const { agent, proofOf } = setup()
    const refused = outcome(proofOf('a'))
    await tick()
    agent.last.end(code, reason)
    expect(await refused).toBe(reason)
  })

  it('waits ever longer between tries while no agent answers', async () => {
    const { agent, clock, ask } = setup()
    void ask('a', { timeoutMs: 60_000 }).catch(() => {})
    await tick()
    const waits: number[] = []
    for (let attempt = 0; attempt < 7; attempt++) {
      const { length } = agent.streams
      agent.last.end(CODE.UNAVAILABLE)
      let waited = 0
      for (; agent.streams.length === length; waited += 10) clock.advance(10)
      waits.push(waited)
    }
    const full = [100, 200, 400, 800, 1600, 3200, 5000]
    for (const [index, wait] of waits.entries()) {
      expect(wait).toBeGreaterThanOrEqual((full[index] ?? 0) / 2)
      expect(wait).toBeLessThanOrEqual((full[index] ?? 0) + 10)
    }
  })

  it('opens no stream while nobody asks', async () => {
    const { agent, clock, proofOf } = setup()
    void proofOf('a')
    await tick()
    agent.last.ready().prove(0)
    agent.last.end(CODE.UNAVAILABLE)
    clock.advance(60_000)
    await tick()
    expect(agent.streams).toHaveLength(1)
    void proofOf('b')
    await tick()
    expect(agent.streams).toHaveLength(2)
  })
})

describe('time', () => {
  it('rejects each call after its own time, with why no agent answered', async () => {
    const { agent, clock, ask } = setup()
    const [short, long] = [outcome(ask('a', { timeoutMs: 50 })), outcome(ask('b'))]
    await tick()
    agent.last.end(CODE.UNAVAILABLE, 'agent_unreachable')
    clock.advance(51)
    expect(await short).toBe('agent_unreachable')
    expect(await Promise.race([long, tick().then(() => 'pending')])).toBe('pending')
    clock.advance(5_000)
    expect(await long).toBe('agent_unreachable')
  })

  it('replaces a stream that has gone silent, and rejects what waited for it', async () => {
    const { agent, clock, proofOf } = setup()
    const late = outcome(proofOf('a'))
    await tick()
    const silent = agent.last.ready()
    clock.advance(5_001)
    expect(await late).toBe('deadline')
    expect(silent.isCancelled).toBe(true)
    clock.advance(200)
    const next = proofOf('b')
    await tick()
    expect(agent.last).not.toBe(silent)
    agent.last.ready().prove(0)
    expect(await next).toBe('proof of b')
  })

  it('ignores the answer to a call that has ended meanwhile', async () => {
    const { agent, clock, ask } = setup()
    const [gone, there] = [outcome(ask('a', { timeoutMs: 10 })), outcome(ask('b'))]
    await tick()
    agent.last.ready()
    clock.advance(11)
    agent.last.prove(0)
    expect(await Promise.all([gone, there])).toEqual(['deadline', 'proof'])
  })
})

describe('the end', () => {
  it('rejects with the reason of the signal and never sends what was aborted in time', async () => {
    const { agent, ask } = setup()
    const controller = new AbortController()
    const aborted = ask('a', { signal: controller.signal }).catch((error: unknown) => error)
    const kept = outcome(ask('b'))
    const reason = new Error('no longer wanted')
    controller.abort(reason)
    await tick()
    agent.last.ready().prove(0)
    expect(await aborted).toBe(reason)
    expect(await kept).toBe('proof')
    expect(agent.last.requests(0).map(({ dpop }) => dpop['url'])).toEqual(['b'])
  })

  it('refuses a call whose signal has aborted before', async () => {
    const { ask } = setup()
    const reason = new Error('too late')
    await expect(ask('a', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })

  it('leaves no listener on a signal that outlives its calls', async () => {
    const { agent, ask } = setup()
    const { signal } = new AbortController()
    let listeners = 0
    const add = signal.addEventListener.bind(signal)
    const remove = signal.removeEventListener.bind(signal)
    signal.addEventListener = ((...args: Parameters<typeof add>) => {
      listeners += 1
      add(...args)
    }) as typeof signal.addEventListener
    signal.removeEventListener = ((...args: Parameters<typeof remove>) => {
      listeners -= 1
      remove(...args)
    }) as typeof signal.removeEventListener
    const done = ask('a', { signal })
    expect(listeners).toBe(1)
    await tick()
    agent.last.ready().prove(0)
    await done
    expect(listeners).toBe(0)
  })

  it('rejects pending and later calls with canceled once it is closed', async () => {
    const { agent, stream, proofOf } = setup()
    const pending = outcome(proofOf('a'))
    await tick()
    stream.close()
    stream.close()
    expect(await pending).toBe('canceled')
    expect(await outcome(proofOf('b'))).toBe('canceled')
    expect(agent.last.isCancelled).toBe(true)
  })
})
