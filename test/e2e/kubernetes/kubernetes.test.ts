/** Holdfast on a real node of Kubernetes: real etcd, API server, kubelet, containerd and runc, agent and callers in pods. */
import { afterAll, beforeAll, describe, it } from 'vitest'
import { csiSuite } from './csi.ts'
import { identitySuite } from './identity.ts'
import { kubeletRestartSuite } from './kubelet-restart.ts'
import { lifecycleSuite } from './lifecycle.ts'
import { nodeSuite } from './node.ts'
import { outageSuite } from './outage.ts'
import { pidNamespaceSuite } from './pid-namespace.ts'
import { rightsSuite } from './rights.ts'
import { missing, openStage, type Stage, startAgent } from './stage.ts'
import { staticPodsSuite } from './static-pods.ts'
import { upgradeSuite } from './upgrade.ts'

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
  describe('an agent in a pod', () => {
    beforeAll(async () => void (await startAgent(stage, 'agent-1')), 60_000)
    describe('knows a caller:', () => identitySuite(() => stage))
    describe('knows a static pod, which', () => staticPodsSuite(() => stage))
    describe('follows a caller:', () => lifecycleSuite(() => stage))
    describe('pods', () => csiSuite(() => stage))
    describe('without an API server', () => outageSuite(() => stage))
    describe('while the kubelet starts again', () => kubeletRestartSuite(() => stage))
    describe('without the pids of its node', () => pidNamespaceSuite(() => stage))
    describe('and its successor', () => upgradeSuite(() => stage))
  })
}
