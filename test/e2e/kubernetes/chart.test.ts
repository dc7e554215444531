/** The agent as the chart runs it, on a real kubelet: it gets ready, hands its sockets over, and takes another policy without a restart. */
import { lstatSync, readlinkSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { call } from '../../support/call.ts'
import type { Json } from '../../support/cluster/api.ts'
import { type Cluster, makeNamespace, openCluster } from '../../support/cluster/cluster.ts'
import { IMAGE } from '../../support/cluster/images.ts'
import { NODE_NAME } from '../../support/cluster/kubelet.ts'
import { missingForCluster } from '../../support/cluster/parts.ts'
import { deletePod, getPod, logOf, startPod } from '../../support/cluster/pods.ts'
import { missingForHelm, NAMESPACE, objectOf, render } from '../../support/manifests.ts'
import { until } from '../../support/until.ts'

const missing = missingForCluster() ?? missingForHelm()
const [repository, tag] = IMAGE.split(':')
const VALUES = {
  trustDomain: 'cluster.test',
  image: { repository, tag, pullPolicy: 'Never' },
  config: { authority: { nodes: 'one' } },
}
const PUBLIC = '/run/holdfast/public'

if (missing) {
  console.warn(`SKIPPED: Kubernetes needs ${missing}`)
  it.skip('Kubernetes runs on real parts', () => {})
} else {
  let cluster: Cluster

  beforeAll(async () => {
    cluster = await openCluster()
    await makeNamespace(cluster, NAMESPACE, [], { 'pod-security.kubernetes.io/enforce': 'privileged' })
    for (const object of render(VALUES)) {
      const { status, body } = await cluster.api.apply(object)
      if (status >= 300) throw new Error(`${object.kind}: ${JSON.stringify(body)}`)
    }
  }, 300_000)
  afterAll(() => cluster?.[Symbol.asyncDispose](), 60_000)

  /** No controllers run here: the pod of the DaemonSet is made by hand, from its template. */
  const agentPod = (name: string): Json => {
    const { metadata, spec } = objectOf(render(VALUES), 'DaemonSet').spec.template
    return {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { ...metadata, namespace: NAMESPACE, name },
      spec: { ...spec, nodeName: NODE_NAME },
    }
  }
  const holder = async () => {
    const { body } = await call(cluster.node.path(`${PUBLIC}/workload.sock`), 'GET', '/v1/identity').catch(
      () => ({ body: undefined }),
    )
    return body
  }

  it('is ready by its probes, with its sockets and their other names on the node', async () => {
    const pod = agentPod('first')
    await startPod(cluster, pod).catch(async (error) => {
      throw new Error(`${error.message}\n${await logOf(cluster, pod)}`)
    })
    const inode = (name: string) => lstatSync(cluster.node.path(`${PUBLIC}/${name}`))
    expect(inode('workload.sock').isSocket()).toBe(true)
    expect(inode('egress.sock').isSocket()).toBe(true)
    const aliases = ['socket', 'api.sock', 'spire-agent.sock']
    expect(aliases.map((name) => readlinkSync(cluster.node.path(`${PUBLIC}/${name}`)))).toEqual(
      aliases.map(() => 'workload.sock'),
    )
    expect((inode('.').mode & 0o777).toString(8)).toBe('755')
    expect((lstatSync(cluster.node.path('/run/holdfast/private')).mode & 0o777).toString(8)).toBe('700')
    expect(await holder()).toBeDefined()
  })

  it('takes another policy over as it runs, and keeps the last good one', async () => {
    const policy = (text: string) =>
      cluster.api.ask(
        'PATCH',
        `/api/v1/namespaces/${NAMESPACE}/configmaps/holdfast-policy`,
        { data: { 'identity.yaml': text } },
        'application/merge-patch+json',
      )
    const log = () => logOf(cluster, agentPod('first'))
    await policy(
      'layer: identity\nentries:\n  - {spiffe_id: "spiffe://cluster.test/ns/a/sa/b", selectors: ["k8s:ns:a"], deliver: {x509: true, jwt: false, wit: false}}\n',
    )
    await until('another policy', async () => /policy loaded/.test(await log()), 150_000)
    await policy('layer: identity\nentries: 7\n')
    await until('a broken policy', async () => /the last good policy stays/.test(await log()), 150_000)
    const { status } = await getPod(cluster, agentPod('first'))
    expect([status.containerStatuses[0].restartCount, status.containerStatuses[0].ready]).toEqual([0, true])
  }, 310_000)

  it('is followed by one that is ready before the first ends', async () => {
    const before = lstatSync(cluster.node.path(`${PUBLIC}/workload.sock`)).ino
    await cluster.api.ask(
      'PATCH',
      `/api/v1/namespaces/${NAMESPACE}/configmaps/holdfast-policy`,
      { data: { 'identity.yaml': 'layer: identity\nentries: []\n' } },
      'application/merge-patch+json',
    )
    await startPod(cluster, agentPod('second'))
    expect(lstatSync(cluster.node.path(`${PUBLIC}/workload.sock`)).ino).not.toBe(before)
    await deletePod(cluster, agentPod('first'))
    expect(await holder()).toBeDefined()
  })
}
