/** What the agent's service account may do, as the API server and the kubelet see it. */
import { beforeAll, expect, it } from 'vitest'
import { watchKubeletRights } from '../../../src/attest/kubelet-rights.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { ACCOUNT, SYSTEM } from '../../support/cluster/agent-pod.ts'
import { type Api, openApi } from '../../support/cluster/api.ts'
import { NODE_NAME } from '../../support/cluster/kubelet.ts'
import { until } from '../../support/until.ts'
import { SHOP, type Stage } from './stage.ts'

export function rightsSuite(stage: () => Stage): void {
  let api: Api
  let kubelet: Api

  beforeAll(async () => {
    const token = await tokenOf(ACCOUNT)
    api = stage().cluster.api.as(token)
    kubelet = kubeletBy(token)
  })

  const tokenOf = async (account: string): Promise<string> => {
    const place = `/api/v1/namespaces/${SYSTEM}/serviceaccounts/${account}/token`
    const asked = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} }
    return (await stage().cluster.api.ask('POST', place, asked)).status.token
  }
  const kubeletBy = (token: string) => {
    const { node, pki } = stage().cluster
    return openApi(`https://${node.network.node}:10250`, pki.ca, token)
  }
  /** What the agent finds out of the token that `at` shows. */
  const told = async (at: Api): Promise<readonly string[]> => {
    const health = new Health()
    const ending = new AbortController()
    let answers = 0
    const ask = async (path: string) => {
      const { status } = await at.call('GET', path)
      answers += 1
      return { status, bytes: Buffer.alloc(0) }
    }
    watchKubeletRights({ https: { ask }, clock: systemClock, health, signal: ending.signal })
    await until('an answer', () => answers > 0)
    await new Promise((resolve) => setImmediate(resolve))
    ending.abort()
    return health.degraded.map(({ code }) => code)
  }

  it('are found out by the agent where they are more than it needs', async () => {
    expect(await told(kubelet)).toEqual([])
    const { api: admin } = stage().cluster
    const metadata = { name: 'overpowered' }
    const group = 'rbac.authorization.k8s.io'
    const subject = { kind: 'ServiceAccount', name: metadata.name, namespace: SYSTEM }
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { ...metadata, namespace: SYSTEM } }
    const rules = [{ apiGroups: [''], resources: ['nodes/proxy'], verbs: ['get'] }]
    const role = { apiVersion: `${group}/v1`, kind: 'ClusterRole', metadata, rules }
    const roleRef = { apiGroup: group, kind: 'ClusterRole', name: metadata.name }
    const binding = { ...role, kind: 'ClusterRoleBinding', rules: undefined, roleRef, subjects: [subject] }
    for (const object of [account, role, binding])
      expect((await admin.apply(object)).status).toBeLessThan(300)
    const token = await tokenOf(metadata.name)
    // The kubelet remembers a refusal for half a minute: it is asked when the API server knows of the binding.
    const review = `/api/v1/nodes/${NODE_NAME}/proxy/healthz`
    await until('the binding', async () => (await admin.as(token).call('GET', review)).status !== 403)
    const powerful = kubeletBy(token)
    expect(await told(powerful)).toEqual(['kubelet_overpowered'])
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
