import { describe, expect, it } from 'vitest'
import { explainPod as podOf } from '../../../src/attest/explain-pod.ts'
import { indexPods, type Pod } from '../../../src/attest/pod-list.ts'
import { Live } from '../../../src/base/live.ts'
import { podText } from '../../../src/cli/explain-pod.ts'
import { explainPod } from '../../../src/operate/explain-pod.ts'
import { bookOfEntries, entry } from '../../support/book.ts'

const [APP, OLD] = ['ab'.repeat(32), 'cd'.repeat(32)]
const CART: Pod = {
  uid: '0f9a1c2e-1111-4222-8333-444455556666',
  name: 'cart-1',
  namespace: 'shop',
  serviceAccount: 'cart',
  nodeName: 'node-1',
  labels: { app: 'cart' },
  owners: [],
  isStatic: false,
  isTerminating: false,
  isOver: false,
  awaited: [{ name: 'side', kind: 'app' }],
  isDebugged: false,
  containers: [
    { name: 'app', id: APP, kind: 'app', state: 'running', image: 'cart:1', imageId: '' },
    { name: 'setup', id: OLD, kind: 'init', state: 'terminated', image: 'cart:1', imageId: '' },
    { name: 'side', id: undefined, kind: 'app', state: 'waiting', image: 'side:1', imageId: '' },
  ],
}
const RULES = {
  labels: ['*'],
  terminating: 'serve',
  ephemeral: false,
  static: 'narrow',
  unlisted: 'refuse',
} as const
const book = new Live(bookOfEntries(entry('cart', ['k8s:ns:shop', 'k8s:sa:cart'], { instance: 'container' })))
const attestation = {
  explainPod: async (namespace: string, name: string) =>
    podOf(indexPods([CART]), { namespace, name }, RULES, () => true),
}
const status = () => ({ degraded: [] })
const explain = (body: Record<string, unknown>) => explainPod({ attestation, book, status }, body)

describe('explainPod', () => {
  it('says who the running container is, and why the others are nobody', async () => {
    const { containers, service_account: account } = await explain({ namespace: 'shop', name: 'cart-1' })
    expect(account).toBe('cart')
    expect(
      containers.map(({ name, identities, why }) => [name, identities.map((each) => each.entry), why]),
    ).toEqual([
      ['app', ['cart'], undefined],
      ['setup', [], expect.stringContaining('terminated')],
      ['side', [], 'it has not started yet'],
    ])
    expect(containers[0]?.selectors).toEqual(
      expect.arrayContaining(['k8s:ns:shop', 'k8s:pod-label:app:cart']),
    )
  })

  it('shows it with its cure where no entry matches', async () => {
    const none = await explainPod(
      { attestation, book: new Live(bookOfEntries()), status },
      { namespace: 'shop', name: 'cart-1' },
    )
    expect(podText(none, false)).toMatch(
      /app \(app, running\)\n {2}no identity: no entry matches these facts/,
    )
    const found = podText(await explain({ namespace: 'shop', name: 'cart-1' }), false)
    expect(found).toMatch(/^pod shop\/cart-1, service account cart, policy /)
    expect(found).toMatch(/ {2}spiffe:\/\/\S+ {2}entry cart .* as the container, delivers /)
  })

  it('shows what weakens the facts, the pod, its containers and its entries', async () => {
    const pod: Pod = {
      ...CART,
      isStatic: true,
      isTerminating: true,
      containers: [
        { name: 'app', id: OLD, kind: 'app', state: 'running', image: 'cart:1', imageId: '' },
        { name: 'debug', id: APP, kind: 'ephemeral', state: 'running', image: 'tools:1', imageId: '' },
      ],
    }
    const rules = { ...RULES, ephemeral: true, static: 'full', unlisted: 'awaited' } as const
    const found = await explainPod(
      {
        attestation: {
          explainPod: async (namespace, name) =>
            podOf(indexPods([pod]), { namespace, name }, rules, (id) => id === APP),
        },
        book: new Live(bookOfEntries(entry('any', ['k8s:sa:cart', 'k8s:container-image:cart:1']))),
        status: () => ({
          degraded: [
            { code: 'kubelet_unverified', message: 'the kubelet is not verified', action: '' },
            { code: 'pidfd_missing', message: 'the kernel is old', action: '' },
          ],
        }),
      },
      { namespace: 'shop', name: 'cart-1' },
    )
    expect(
      podText(found, false)
        .split('\n')
        .filter((line) => /^ *(?:weak|note|\w+ \()/.test(line)),
    ).toEqual([
      '  weak: the kubelet is not verified',
      expect.stringMatching(/^ {2}weak: it is a static pod/),
      expect.stringMatching(/^ {2}note: until it is listed, /),
      expect.stringMatching(/^ {2}note: it is being deleted/),
      'app (app, running)',
      expect.stringMatching(/^ {2}weak: no process of it is left/),
      expect.stringMatching(/^ {4}weak: it names no namespace/),
      expect.stringMatching(/^ {4}weak: k8s:container-image:cart:1 names an image by its tag/),
      'debug (ephemeral, running)',
      expect.stringMatching(/^ {2}weak: it is an ephemeral container/),
    ])
  })

  it('says what a static pod has not', async () => {
    const { notes, weaknesses } = podOf(
      indexPods([{ ...CART, isStatic: true }]),
      { namespace: 'shop', name: 'cart-1' },
      RULES,
      () => true,
    )
    expect([notes, weaknesses]).toEqual([[expect.stringMatching(/only claimed/)], []])
  })

  it('knows the pods of its own node only', async () => {
    await expect(explain({ namespace: 'shop', name: 'cart-2' })).rejects.toMatchObject({
      reason: 'pod_unknown',
    })
  })

  it.each([
    [{ name: 'cart-1' }],
    [{ namespace: 'shop' }],
    [{ namespace: '../kube-system', name: 'cart-1' }],
    [{ namespace: 'shop', name: 'a/b' }],
  ])('takes no %j', async (body) => {
    await expect(explain(body)).rejects.toMatchObject({ reason: 'invalid_request' })
  })
})
