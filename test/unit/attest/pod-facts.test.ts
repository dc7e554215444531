import { describe, expect, it } from 'vitest'
import { podFacts } from '../../../src/attest/pod-facts.ts'
import { parsePods } from '../../../src/attest/pod-list.ts'
import { type FakeContainer, type FakePod, podList } from '../../support/fake-kubelet.ts'

const UID = '0f9a1c2e-1111-4222-8333-444455556666'
const [CID, APP, SIDE, DEAD] = ['ab'.repeat(32), 'cd'.repeat(32), 'ef'.repeat(32), '99'.repeat(32)]
const RULES = { labels: [], terminating: 'serve', ephemeral: false, static: 'narrow' } as const

function answerTo(pod: Partial<FakePod>) {
  const list = parsePods(podList([{ name: 'cart', uid: UID, containers: [], ...pod }]))
  return podFacts(list, { podUid: UID, containerId: CID }, RULES, (id) => id !== DEAD)
}

function refusalOf(pod: Partial<FakePod>) {
  const answer = answerTo(pod)
  if ('facts' in answer) throw new Error('it is known')
  return answer
}

const app = (more: Partial<FakeContainer> = {}): FakeContainer => ({ name: 'app', id: APP, ...more })
const side = (more: Partial<FakeContainer> = {}): FakeContainer => ({ name: 'side', id: SIDE, ...more })
const ended = { state: 'terminated' } as const
const failed = { ...ended, exitCode: 1 }
const unwritten = { isUnwritten: true }

describe('a container that the list of its pod lacks may be a later one, and is to try again,', () => {
  it.each<[string, Partial<FakePod>, string]>([
    ['while no status is written', { containers: [app(unwritten), side(unwritten)] }, 'app, side'],
    ['while one of two has no status', { containers: [app(), side(unwritten)] }, 'side'],
    ['while one waits for its first start', { containers: [app(), { name: 'side' }] }, 'side'],
    ['while one waits to be started again', { containers: [app({ state: 'waiting' }), side()] }, 'app'],
    ['when one has ended that is started again', { containers: [app(ended), side()] }, 'app'],
    [
      'when one has failed that is started again after a failure',
      { restartPolicy: 'OnFailure', containers: [app(failed), side()] },
      'app',
    ],
    [
      'when one has a policy of its own',
      { restartPolicy: 'Never', containers: [app({ ...ended, restartPolicy: 'Always' }), side()] },
      'app',
    ],
    [
      'while an init container waits',
      { init: [{ name: 'setup' }], containers: [{ name: 'app' }] },
      'setup, app',
    ],
    [
      'when an init container has failed',
      { init: [{ name: 'setup', id: SIDE, ...failed }], containers: [app()] },
      'setup',
    ],
    [
      'when a sidecar has ended',
      { init: [{ name: 'proxy', id: SIDE, restartPolicy: 'Always', ...ended }], containers: [app()] },
      'proxy',
    ],
    [
      'when no process is left of one that is listed as running',
      { containers: [app({ id: DEAD }), side()] },
      'app',
    ],
  ])('%s', (_when, pod, names) => {
    const { fault, mayCome } = refusalOf(pod)
    expect([fault.reason, mayCome]).toEqual(['pod_facts_unavailable', true])
    expect(fault.message).toMatch(
      new RegExp(`lists, for the pod shop/cart, no container .* (?:and|running) ${names} `),
    )
    expect(fault.action).toMatch(/Try again/)
  })

  it('and while its own status says that it waits', () => {
    const { fault, mayCome } = refusalOf({ containers: [app({ id: CID, state: 'waiting' })] })
    expect([fault.reason, mayCome]).toEqual(['pod_facts_unavailable', true])
  })

  it('and says so of a kubelet that knows no states', () => {
    expect(refusalOf({ containers: [app(unwritten)] }).isSilent).toBe(true)
    expect(refusalOf({ containers: [app(), side(unwritten)] }).isSilent).toBeUndefined()
  })
})

describe('a container that the list of its pod lacks is none that the kubelet made', () => {
  it.each<[string, Partial<FakePod>]>([
    ['when all run', { containers: [app(), side()] }],
    [
      'beside an init container that is done',
      { init: [{ name: 'setup', id: DEAD, ...ended }], containers: [app()] },
    ],
    ['when the others are not started again', { restartPolicy: 'Never', containers: [app(failed), side()] }],
    ['when another has succeeded', { restartPolicy: 'OnFailure', containers: [app(ended), side()] }],
    ['when the pod is over', { phase: 'Failed', containers: [app(failed), side(failed)] }],
    [
      'beside an ephemeral one that has ended',
      { containers: [app()], ephemeral: [{ name: 'debug', id: SIDE, ...ended }] },
    ],
  ])('%s', (_when, pod) => {
    const { fault, mayCome } = refusalOf(pod)
    expect([fault.reason, mayCome]).toEqual(['container_refused', true])
  })
})

it('a container that has ended is refused for good, whatever else is to start', () => {
  const { fault, mayCome } = refusalOf({
    containers: [app({ id: CID, ...ended }), side({ isUnwritten: true })],
  })
  expect([fault.reason, mayCome]).toEqual(['container_refused', false])
})
