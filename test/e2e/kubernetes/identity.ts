/** What a pod gets of the agent on its node, by whom the kubelet says it is. */
import { expect, it } from 'vitest'
import { containerOf } from '../../support/cluster/pods.ts'
import { ask, CART, CLIENT, SOMEBODY, type Stage, startCaller } from './stage.ts'

export function identitySuite(stage: () => Stage): void {
  it('gives SVIDs and bundles of every kind to a client that nobody here wrote', async () => {
    const pod = await startCaller(stage(), 'client')
    const { containers } = stage().cluster
    const { out, err } = await containers.exec(containerOf(pod), [CLIENT, 'fetch'], SOMEBODY)
    expect(err).toBe('')
    const result = JSON.parse(out)
    const mine = [expect.objectContaining({ spiffe_id: CART, verified: CART })]
    expect([result.x509, result.jwt, result.wit]).toEqual([mine, mine, mine])
    expect(result.mtls_peer).toBe(CART)
  })

  it('makes a request with a token and a proof for somebody who has neither', async () => {
    const pod = await startCaller(stage(), 'egress')
    const { status, body } = await ask(stage().cluster, pod, 'http://orders/v1/items', 'egress')
    expect([status, body]).toEqual([200, expect.objectContaining({ jkt: expect.any(String) })])
    expect(stage().upstream.orders.bytes).toMatch(/^authorization: DPoP /im)
  })

  it('gives nothing to a pod with another service account', async () => {
    const pod = await startCaller(stage(), 'other', undefined, 'till')
    const { status, body } = await ask(stage().cluster, pod, 'http://localhost/v1/identity')
    expect([status, body.error.reason]).toEqual([403, 'no_identity'])
  })
}
