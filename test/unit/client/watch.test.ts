/** A followed stream: what ends it, and how soon it is opened again. */
import { describe, expect, it } from 'vitest'
import { CODE, type Message } from '../../../src/client/grpc.ts'
import { watchStream } from '../../../src/client/watch.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeAgent } from '../../support/fake-agent.ts'

function setup() {
  const clock = new ManualClock()
  const agent = new FakeAgent()
  const heard: Message[] = []
  const ends: boolean[] = []
  const close = watchStream({
    agent,
    clock,
    method: 'SpiffeWorkloadAPI/FetchX509SVID',
    onMessage: (message) => heard.push(message),
    onEnd: (_ending, isFinal) => ends.push(isFinal),
  })
  const waitForNext = () => {
    const { length } = agent.streams
    let waited = 0
    for (; agent.streams.length === length && waited < 100_000; waited += 10) clock.advance(10)
    return waited
  }
  return { clock, agent, heard, ends, close, waitForNext }
}

describe('a followed stream', () => {
  it.each([
    ['INVALID_ARGUMENT', CODE.INVALID_ARGUMENT, undefined],
    ["CANCELLED as the agent's own word", CODE.CANCELLED, 'canceled'],
  ] as const)('is over for good after %s', (_name, code, reason) => {
    const { clock, agent, ends } = setup()
    agent.last.end(code, reason)
    clock.advance(120_000)
    expect(agent.streams).toHaveLength(1)
    expect(ends).toEqual([true])
  })

  it.each([
    ['UNAVAILABLE', CODE.UNAVAILABLE],
    ['PERMISSION_DENIED', CODE.PERMISSION_DENIED],
    ['UNIMPLEMENTED', CODE.UNIMPLEMENTED],
    ['a stream that was cut off', CODE.CANCELLED],
    ['an end without error', CODE.OK],
  ])('is opened again after %s', (_name, code) => {
    const { agent, ends, waitForNext } = setup()
    agent.last.end(code)
    waitForNext()
    expect(agent.streams).toHaveLength(2)
    expect(ends).toEqual([false])
  })

  it('waits from 1 s up to 30 s, ever longer', () => {
    const { agent, waitForNext } = setup()
    const full = [2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
    for (const most of full) {
      agent.last.end(CODE.UNAVAILABLE)
      const waited = waitForNext()
      expect(waited).toBeGreaterThanOrEqual(most / 2)
      expect(waited).toBeLessThanOrEqual(most + 10)
    }
  })

  it('is opened again almost at once when it has been steady, as at a hand-over', () => {
    const { clock, agent, waitForNext } = setup()
    agent.last.end(CODE.UNAVAILABLE)
    waitForNext()
    agent.last.say({ n: 1 })
    clock.advance(2_000)
    agent.last.end(CODE.UNAVAILABLE)
    expect(waitForNext()).toBeLessThanOrEqual(110)
  })

  it('begins anew with the shortest wait once it has been heard of', () => {
    const { agent, waitForNext } = setup()
    for (let attempt = 0; attempt < 4; attempt++) {
      agent.last.end(CODE.UNAVAILABLE)
      waitForNext()
    }
    agent.last.say({ n: 1 })
    agent.last.end(CODE.UNAVAILABLE)
    expect(waitForNext()).toBeLessThanOrEqual(2_010)
  })

  it('is not opened in a loop by an agent that says something and ends it', () => {
    const { agent, waitForNext } = setup()
    for (let round = 0; round < 3; round++) {
      agent.last.say({ round })
      agent.last.end(CODE.UNAVAILABLE)
      expect(waitForNext()).toBeGreaterThanOrEqual(1_000)
    }
  })

  it('is neither heard of nor opened again once it is closed', () => {
    const { clock, agent, ends, close } = setup()
    const { last } = agent
    close()
    last.end(CODE.UNAVAILABLE)
    clock.advance(120_000)
    expect([last.isCancelled, agent.streams.length, ends]).toEqual([true, 1, []])
  })

  it('is not opened again when it is closed while it waits', () => {
    const { clock, agent, close } = setup()
    agent.last.end(CODE.UNAVAILABLE)
    close()
    clock.advance(120_000)
    expect(agent.streams).toHaveLength(1)
  })
})
