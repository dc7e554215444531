/** A pod of the kubelet's manifest directory: nobody but its manifest says whose it is. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { Json } from '../../support/cluster/api.ts'
import { listedPods } from '../../support/cluster/kubelet.ts'
import { until } from '../../support/until.ts'
import { ask, callerPod, STATIC, type Stage } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'

export function staticPodsSuite(stage: () => Stage): void {
  it('has the name of its pod and container, and no namespace that it claims', async () => {
    const { cluster } = stage()
    const manifest = join(cluster.node.dir, 'kubelet/static/static.json')
    const { metadata, spec } = callerPod('static')
    const { serviceAccountName: _none, nodeName: _node, ...rest } = spec
    const labels = { app: 'cart' }
    writeFileSync(
      manifest,
      JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { ...metadata, labels }, spec: rest }),
    )
    try {
      const pod = await until('the static pod', () => runningStatic(stage()), 40_000)
      // Its UID is the hash of its manifest, and no pod of the API server has it.
      expect(pod.metadata.uid).toMatch(/^[0-9a-f]{32}$/)
      const { status, body } = await ask(cluster, pod, IDENTITY)
      expect([status, body.identities.map((each: Json) => each.spiffe_id)]).toEqual([200, [STATIC]])
      expect(body.selectors).toContain(`k8s:pod-uid:${pod.metadata.uid}`)
      expect(
        body.selectors.filter((each: string) => /^k8s:(?:ns|sa|pod-label|pod-owner)/.test(each)),
      ).toEqual([])
    } finally {
      rmSync(manifest)
    }
  }, 60_000)
}

async function runningStatic({ cluster }: Stage): Promise<Json> {
  const found = (await listedPods(cluster.node)).find(({ metadata }) => metadata.name === 'static-node-1')
  return found?.status.containerStatuses?.[0]?.state.running && found
}
