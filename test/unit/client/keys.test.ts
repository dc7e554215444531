/** Keys as the agent tells of them: rotated, lost, gone with an epoch or with the identity. */
import { describe, expect, it } from 'vitest'
import { CODE } from '../../../src/client/grpc.ts'
import { type KeysChange, KeyWatch } from '../../../src/client/keys.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeAgent, tick } from '../../support/fake-agent.ts'

function setup() {
  const agent = new FakeAgent()
  const clock = new ManualClock()
  const watch = new KeyWatch(agent, clock)
  const heard: KeysChange[] = []
  const stop = watch.listen((change) => heard.push(change))
  const say = (epoch: string, ...keys: readonly string[]) =>
    agent.last.say({ epoch, changes: keys.map((key) => change(key)) })
  const last = () => {
    const { keys = [], lost = [] } = heard.at(-1) ?? {}
    return [keys.map(({ jkt }) => jkt), lost.map(({ jkt }) => jkt)]
  }
  return { agent, clock, watch, heard, stop, say, last }
}

/** `a` is current, `-a` lost, `~a` retired. */
function change(text: string) {
  const jkt = text.replace(/^[-~]/, '')
  const state = text.startsWith('-') ? 'LOST' : text.startsWith('~') ? 'RETIRED' : 'CURRENT'
  const retired = state === 'RETIRED' ? { retired: 7 } : {}
  return {
    change: state,
    key: { jkt, purpose: 'dpop:x', spiffe_id: 'spiffe://a/b', alg: 'ES256', created: 1, ...retired },
  }
}

describe('the keys', () => {
  it('are told whole, and nothing is lost by a rotation', () => {
    const { say, last, heard } = setup()
    say('e1', 'a')
    say('e1', '~a', 'b')
    expect(last()).toEqual([['a', 'b'], []])
    expect(heard.at(-1)?.keys[0]).toEqual({
      spiffeId: 'spiffe://a/b',
      purpose: 'dpop:x',
      jkt: 'a',
      alg: 'ES256',
      created: 1,
      retired: 7,
    })
  })

  it('are lost when the agent says so', () => {
    const { say, last } = setup()
    say('e1', 'a', 'b')
    say('e1', '-a', 'b')
    expect(last()).toEqual([['b'], ['a']])
  })

  it('are lost when a message was missed and the next full set lacks them', () => {
    const { say, last } = setup()
    say('e1', 'a', 'b')
    say('e1', 'b')
    expect(last()).toEqual([['b'], ['a']])
  })

  it('are all lost in a new epoch, also over a restart of the agent', () => {
    const { agent, clock, say, last } = setup()
    say('e1', 'a')
    agent.last.end(CODE.UNAVAILABLE)
    expect(last()).toEqual([['a'], []])
    clock.advance(30_000)
    expect(agent.streams).toHaveLength(2)
    say('e2', 'c')
    expect(last()).toEqual([['c'], ['a']])
  })

  it('are all lost with the identity', () => {
    const { agent, say, last } = setup()
    say('e1', 'a')
    agent.last.end(CODE.PERMISSION_DENIED, 'revoked')
    expect(last()).toEqual([[], ['a']])
  })

  it('are told to whoever listens later', async () => {
    const { agent, watch, say } = setup()
    say('e1', 'a')
    const late: KeysChange[] = []
    watch.listen((heard) => late.push(heard))
    await tick()
    expect(late).toMatchObject([{ epoch: 'e1', keys: [{ jkt: 'a' }], lost: [] }])
    expect(agent.streams).toHaveLength(1)
  })

  it('are followed only while somebody listens', () => {
    const { agent, stop } = setup()
    stop()
    expect(agent.last.isCancelled).toBe(true)
  })
})
