/** What the agent's service account may do, as the API server and the kubelet see it. */
import { beforeAll, expect, it } from 'vitest'
import { ACCOUNT, SYSTEM } from '../../support/cluster/agent-pod.ts'
import { type Api, openApi } from '../../support/cluster/api.ts'
import { NODE_NAME } from '../../support/cluster/kubelet.ts'
import { SHOP, type Stage } from './stage.ts'

export function rightsSuite(stage: () => Stage): void {
  let api: Api
  let kubelet: Api

  beforeAll(async () => {
    const { cluster } = stage()
    const place = `/api/v1/namespaces/${SYSTEM}/serviceaccounts/${ACCOUNT}/token`
    const asked = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} }
    const { token } = (await cluster.api.ask('POST', place, asked)).status
    api = cluster.api.as(token)
    kubelet = openApi(`https://${cluster.node.network.node}:10250`, cluster.pki.ca, token)
  })

  it('are the list of the pods of its node, at the kubelet', async () => {
    const { status, body } = await kubelet.call('GET', '/pods')
    expect([status, body.kind]).toEqual([200, 'PodList'])
  })

  it.each([
    ['a command in a pod', 'POST', '/exec/shop/client/app?command=id&output=1'],
    ['the same by WebSocket', 'GET', '/exec/shop/client/app?command=id&output=1'],
    ['a command in one go', 'POST', '/run/shop/client/app?cmd=id'],
    ['the output of a pod', 'GET', '/containerLogs/shop/client/app'],
    ['the configuration', 'GET', '/configz'],
  ])('are not %s, at the kubelet', async (_what, method, path) => {
    expect((await kubelet.call(method, path)).status).toBe(403)
  })

  it.each([
    ['a command in a pod', 'POST', `/api/v1/namespaces/${SHOP}/pods/client/exec?command=id&stdout=1`],
    ['the kubelet through the API server', 'GET', `/api/v1/nodes/${NODE_NAME}/proxy/pods`],
    ['pods', 'GET', '/api/v1/pods'],
    ['secrets', 'GET', `/api/v1/namespaces/${SYSTEM}/secrets`],
    ['tokens of others', 'POST', `/api/v1/namespaces/${SHOP}/serviceaccounts/cart/token`],
    ['its own rights', 'GET', '/apis/rbac.authorization.k8s.io/v1/clusterroles'],
  ])('are not %s, at the API server', async (_what, method, path) => {
    const { status, body } = await api.call(method, path, method === 'POST' ? {} : undefined)
    expect([status, body.reason]).toEqual([403, 'Forbidden'])
  })
}
