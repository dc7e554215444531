/**
 * An agent that knows pods by the Pods API of a real kubelet: with a mounted socket, without a token and without any right.
 * All that holds by `GET /pods` holds, and an API server that is away keeps no container from its identity.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Json } from '../../support/cluster/api.ts'
import { containerOf } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { identitySuite } from './identity.ts'
import { kubeletRestartSuite } from './kubelet-restart.ts'
import { lifecycleSuite } from './lifecycle.ts'
import { openPodsApiStage } from './pods-api-stage.ts'
import { callerCommand, lastOf, linesOf, missing, type Stage, startAgent, startCaller } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'

function outageSuite(stage: () => Stage): void {
  it('knows a container that was started without the API server', async () => {
    const { cluster } = stage()
    const pod = await startCaller(stage(), 'renewed', callerCommand('workload', IDENTITY, 100))
    await until('an answer', () => /^200 /.test(lastOf(cluster, pod)))
    await cluster.plane.stop()
    try {
      // Longer than the kubelet remembers whose token it was shown.
      await new Promise((resolve) => setTimeout(resolve, 6_000))
      const before = linesOf(cluster, pod).length
      cluster.containers.ctr('task', 'kill', '--signal', 'SIGKILL', containerOf(pod))
      await until('the next container', () => linesOf(cluster, pod).length > before + 50, 60_000)
      const refused = linesOf(cluster, pod).filter((line) => !line.startsWith('200'))
      expect(refused).toEqual([])
    } finally {
      await cluster.plane.start()
    }
  }, 150_000)
}

if (missing) {
  console.warn(`SKIPPED: the Pods API needs ${missing}`)
  it.skip('the Pods API of a real kubelet is asked', () => {})
} else {
  let stage: Stage
  let agent: Json
  beforeAll(async () => {
    stage = await openPodsApiStage()
    agent = await startAgent(stage, 'agent-1')
  }, 300_000)
  afterAll(() => stage?.[Symbol.asyncDispose](), 60_000)

  it('its pod has the socket, and no token', async () => {
    const run = (...command: readonly string[]) => stage.cluster.containers.exec(containerOf(agent), command)
    const config = ['--config', '/etc/holdfast/holdfast.yaml']
    const { out } = await run(
      '/bin/node',
      '/app/dist/holdfast.js',
      'check',
      '--pre',
      ...config,
      '--output',
      'json',
    )
    const found = JSON.parse(out).groups.flatMap(({ findings }: Json) => findings)
    expect(found).toContainEqual(expect.objectContaining({ id: 'k8s_pods_api', grade: 'ok' }))
    const account = '/var/run/secrets/kubernetes.io'
    expect((await run('/bin/busybox', 'ls', account)).err).toMatch(/No such file/)
  })

  describe('an agent without a token knows a caller:', () => identitySuite(() => stage))
  describe('an agent without a token follows a caller:', () => lifecycleSuite(() => stage))
  describe('an agent without an API server', () => outageSuite(() => stage))
  describe('while the kubelet starts again', () => kubeletRestartSuite(() => stage))
}
