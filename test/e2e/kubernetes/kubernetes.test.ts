/** Holdfast on a real node of Kubernetes: real etcd, API server, kubelet, containerd and runc, agent and callers in pods. */
import { afterAll, beforeAll, describe, it } from 'vitest'
import { type Cluster, openCluster } from '../../support/cluster/cluster.ts'
import { missingForCluster } from '../../support/cluster/parts.ts'
import { nodeSuite } from './node.ts'

const missing = missingForCluster()

if (missing) {
  console.warn(`SKIPPED: Kubernetes needs ${missing}`)
  it.skip('Kubernetes runs on real parts', () => {})
} else {
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await openCluster()
  }, 180_000)
  afterAll(() => cluster?.[Symbol.asyncDispose]())

  describe('a node', () => nodeSuite(() => cluster))
}
