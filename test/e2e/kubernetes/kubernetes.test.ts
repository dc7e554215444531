/** Holdfast on a real node of Kubernetes: real etcd, API server, kubelet, containerd and runc, agent and callers in pods. */
import { afterAll, beforeAll, describe, it } from 'vitest'
import { nodeSuite } from './node.ts'
import { rightsSuite } from './rights.ts'
import { missing, openStage, type Stage } from './stage.ts'

if (missing) {
  console.warn(`SKIPPED: Kubernetes needs ${missing}`)
  it.skip('Kubernetes runs on real parts', () => {})
} else {
  let stage: Stage
  beforeAll(async () => {
    stage = await openStage()
  }, 300_000)
  afterAll(() => stage?.[Symbol.asyncDispose](), 60_000)

  describe('a node', () => nodeSuite(() => stage.cluster))
  describe('the rights of the agent', () => rightsSuite(() => stage))
}
