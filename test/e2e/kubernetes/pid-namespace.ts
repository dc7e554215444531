/** An agent that cannot see the processes of its node. */
import { expect, it } from 'vitest'
import { agentPod } from '../../support/cluster/agent-pod.ts'
import { deletePod, getPod, logOf } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import type { Stage } from './stage.ts'

export function pidNamespaceSuite(stage: () => Stage): void {
  it('does not start, and says which line of its manifest is missing', async () => {
    const { cluster, agentOptions } = stage()
    const spec = { hostPID: false, restartPolicy: 'Never' }
    const object = agentPod('blind', { ...agentOptions, spec })
    await cluster.api.ask('POST', '/api/v1/namespaces/holdfast-system/pods', object)
    const ended = await until(
      'the agent to end',
      async () => {
        const { status } = await getPod(cluster, object)
        return status.containerStatuses?.[0]?.state.terminated
      },
      30_000,
    )
    expect(ended.exitCode).not.toBe(0)
    expect(await logOf(cluster, object)).toContain('hostPID: true')
    await deletePod(cluster, object)
  })
}
