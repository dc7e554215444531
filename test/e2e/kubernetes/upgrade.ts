/** A new agent in place of the old one, as `maxSurge: 1` has it: the new one is ready before the old one goes. */
import { expect, it } from 'vitest'
import { SYSTEM } from '../../support/cluster/agent-pod.ts'
import { deletePod, logOf, podOf, untilGone } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { callerCommand, lastOf, linesOf, type Stage, startAgent, startCaller } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'

/** Replaces `agent-1` by `agent-2`. */
export function upgradeSuite(stage: () => Stage): void {
  it('loses no call', async () => {
    const { cluster } = stage()
    const callers = await Promise.all(
      ['one', 'two', 'three'].map((name) =>
        startCaller(stage(), `upgrade-${name}`, callerCommand('workload', IDENTITY, 20)),
      ),
    )
    await until('callers that are served', () => callers.every((pod) => /^200 /.test(lastOf(cluster, pod))))
    const next = await startAgent(stage(), 'agent-2')
    await until('the next agent to be ready', async () =>
      /"message":"ready"/.test(await logOf(cluster, next)),
    )
    // Whoever had connected to the old agent is answered before it is ended.
    const before = linesOf(cluster, callers[0]).length
    await until('calls of the next agent', () => linesOf(cluster, callers[0]).length > before + 20)
    const old = podOf(SYSTEM, 'agent-1')
    await deletePod(cluster, old)
    await untilGone(cluster, old)
    const counts = callers.map((pod) => linesOf(cluster, pod).length)
    const isServedOn = () =>
      callers.every((pod, index) => linesOf(cluster, pod).length > (counts[index] ?? 0) + 50)
    await until('calls after the upgrade', isServedOn, 30_000)
    const lines = callers.flatMap((pod) => linesOf(cluster, pod))
    expect(lines.filter((line) => !line.startsWith('200'))).toEqual([])
  }, 150_000)
}
