import { describe, expect, it } from 'vitest'
import { type PodRules, podFacts } from '../../../src/attest/pod-facts.ts'
import { parsePods } from '../../../src/attest/pod-list.ts'
import { type FakeContainer, type FakePod, podList } from '../../support/fake-kubelet.ts'

const UID = '0f9a1c2e-1111-4222-8333-444455556666'
const [CID, APP, SIDE, DEAD] = ['ab'.repeat(32), 'cd'.repeat(32), 'ef'.repeat(32), '99'.repeat(32)]
const RULES = {
  labels: [],
  terminating: 'serve',
  ephemeral: false,
  static: 'narrow',
  unlisted: 'refuse',
} as const

function answerTo(pod: Partial<FakePod>, rules: Partial<PodRules> = {}, podUid: string | undefined = UID) {
  const list = parsePods(podList([{ name: 'cart', uid: UID, containers: [], ...pod }]))
  return podFacts(list, { podUid, containerId: CID }, { ...RULES, ...rules }, (id) => id !== DEAD)
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

describe('where a container that is awaited counts before it is listed', () => {
  const rules = { unlisted: 'awaited' } as const
  const debug = { name: 'debug', image: 'busybox:1' }

  it.each<[string, Partial<FakePod>, string]>([
    ['the only one of its pod', { containers: [app(unwritten)] }, 'app'],
    ['the only one that has no status', { containers: [app(), side(unwritten)] }, 'side'],
    ['the only one that waits for its first start', { containers: [app(), { name: 'side' }] }, 'side'],
    ['the one that has ended and is started again', { containers: [app(ended), side()] }, 'app'],
    [
      'the one whose own status says that it waits',
      { containers: [app({ id: CID, state: 'waiting' }), side(unwritten)] },
      'app',
    ],
    [
      'the app after its sidecar',
      { init: [{ name: 'proxy', id: SIDE, restartPolicy: 'Always' }], containers: [app(unwritten)] },
      'app',
    ],
    [
      'the one beside a debugger that is listed',
      { containers: [app(unwritten)], ephemeral: [{ ...debug, id: SIDE }] },
      'app',
    ],
  ])('it is %s, of no image yet', (_what, pod, name) => {
    const answer = answerTo(pod, rules)
    if (!('facts' in answer)) throw answer.fault
    const { isListed, selectors } = answer.facts
    expect([isListed, selectors]).toEqual([
      false,
      [
        `k8s:pod-uid:${UID}`,
        'k8s:pod-name:cart',
        'k8s:node-name:node-1',
        `k8s:container-name:${name}`,
        'k8s:ns:shop',
        'k8s:sa:default',
      ],
    ])
  })

  it.each<[string, Partial<FakePod>, string]>([
    ['two are awaited', { containers: [app(unwritten), side(unwritten)] }, 'pod_facts_unavailable'],
    [
      'an init container is awaited too',
      { init: [{ name: 'setup' }], containers: [app(unwritten)] },
      'pod_facts_unavailable',
    ],
    [
      'another has no process left, and may have been started anew',
      { containers: [app({ id: DEAD }), side(unwritten)] },
      'pod_facts_unavailable',
    ],
    [
      'none is awaited, and one has no process left',
      { containers: [app({ id: DEAD }), side()] },
      'pod_facts_unavailable',
    ],
    [
      'a debugger was put in that is not listed',
      { containers: [app(unwritten)], ephemeral: [{ ...debug, isUnwritten: true }] },
      'pod_facts_unavailable',
    ],
    [
      'a debugger was put in that waits',
      { containers: [app(unwritten)], ephemeral: [debug] },
      'pod_facts_unavailable',
    ],
    [
      'it is a debugger that waits',
      { containers: [app()], ephemeral: [{ ...debug, id: CID, state: 'waiting' }] },
      'pod_facts_unavailable',
    ],
    ['all run', { containers: [app(), side()] }, 'container_refused'],
    ['the pod is over', { phase: 'Failed', containers: [app(unwritten)] }, 'container_refused'],
    ['it has ended', { containers: [app({ id: CID, ...ended }), side(unwritten)] }, 'container_refused'],
  ])('it is none when %s', (_when, pod, reason) => {
    const answer = answerTo(pod, rules)
    expect('fault' in answer && answer.fault.reason).toBe(reason)
  })

  it('it is none in a pod that is being deleted, where that ends identities', () => {
    const pod = { containers: [app(unwritten)], deleted: true }
    expect(answerTo(pod, rules)).toHaveProperty('facts')
    const answer = answerTo(pod, { ...rules, terminating: 'end' })
    expect('fault' in answer && answer.fault.reason).toBe('container_refused')
  })
})
