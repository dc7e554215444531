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
  awaited: ['side'],
  containers: [
    { name: 'app', id: APP, kind: 'app', state: 'running', image: 'cart:1', imageId: '' },
    { name: 'setup', id: OLD, kind: 'init', state: 'terminated', image: 'cart:1', imageId: '' },
    { name: 'side', id: undefined, kind: 'app', state: 'waiting', image: 'side:1', imageId: '' },
  ],
}
const RULES = { labels: ['*'], terminating: 'serve', ephemeral: false, static: 'narrow' } as const
const book = new Live(bookOfEntries(entry('cart', ['k8s:ns:shop', 'k8s:sa:cart'], { instance: 'container' })))
const attestation = {
  explainPod: async (namespace: string, name: string) =>
    podOf(indexPods([CART]), { namespace, name }, RULES, () => true),
}
const explain = (body: Record<string, unknown>) => explainPod({ attestation, book }, body)

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
      { attestation, book: new Live(bookOfEntries()) },
      { namespace: 'shop', name: 'cart-1' },
    )
    expect(podText(none, false)).toMatch(
      /app \(app, running\)\n {2}no identity: no entry matches these facts/,
    )
    const found = podText(await explain({ namespace: 'shop', name: 'cart-1' }), false)
    expect(found).toMatch(/^pod shop\/cart-1, service account cart, policy /)
    expect(found).toMatch(/ {2}spiffe:\/\/\S+ {2}entry cart .* as the container, delivers /)
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
