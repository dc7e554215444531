/** Custom resources as the chart's own agent follows them, with the rights and the token that the chart gives it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ROOT } from '../../support/built-agent.ts'
import type { Json } from '../../support/cluster/api.ts'
import { untilReady } from '../../support/cluster/pods.ts'
import { objectOf, parseManifests } from '../../support/manifests.ts'
import { until } from '../../support/until.ts'
import { applyAll, type Release, rolledOut } from './release.ts'
import { ask, callerPod } from './stage.ts'

const EXAMPLE = join(ROOT, 'deploy/examples/kubernetes/custom-resources.yaml')
const SHOP = '/apis/holdfast.dev/v1alpha1/clusterspiffeids/shop'

/** The release follows custom resources already. */
export function resourcesSuite(release: () => Release): void {
  it('name the pods that the example selects, and say that they are followed', async () => {
    const { cluster } = release()
    await rolledOut(cluster)
    const pod = labelledPod()
    await applyAll(cluster, [objectOf(parseManifests(readFileSync(EXAMPLE, 'utf8')), 'ClusterSPIFFEID'), pod])
    const ready = await untilReady(cluster, pod)
    const identities = async () => {
      const { status, body } = await ask(cluster, ready, 'http://localhost/v1/identity')
      return status === 200 && body.identities.map((each: Json) => each.spiffe_id)
    }
    expect(await until('an identity by the object', identities, 30_000)).toEqual([
      'spiffe://cluster.test/ns/shop/sa/default',
    ])
    const told = async () => (await cluster.api.ask('GET', SHOP)).status
    expect(await until('a status', told, 30_000)).toMatchObject({})
  }, 120_000)
}

/** The scheduler finds it its node. */
function labelledPod(): Json {
  const { metadata, spec, ...rest } = callerPod('by-resource', undefined, 'default')
  const labels = { 'holdfast.dev/identity': 'true' }
  return { ...rest, metadata: { ...metadata, labels }, spec: { ...spec, nodeName: undefined } }
}
