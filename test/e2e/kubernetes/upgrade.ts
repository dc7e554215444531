/** A new agent in place of the old one, as `maxSurge: 1` has it: the new one is ready before the old one goes. */
import { expect, it } from 'vitest'
import { SYSTEM } from '../../support/cluster/agent-pod.ts'
import { deletePod, logOf, podOf, untilGone } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { callerCommand, lastOf, linesOf, type Stage, startAgent, startCaller } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'

/** Replaces `agent-1` by `agent-2`. */
export function upgradeSuite(stage: () => Stage): void {
  it('serves every caller, who at most has to connect once more', async () => {
    const { cluster } = stage()
    const callers = await Promise.all(
      ['one', 'two', 'three'].map((name) =>
        startCaller(stage(), `upgrade-${name}`, callerCommand('workload', IDENTITY, 20)),
      ),
    )
    await until('callers that are served', () => callers.every((pod) => /^200 /.test(lastOf(cluster, pod))))
    const next = await startAgent(stage(), 'agent-2')
    await until('the next agent to have the socket', async () => /"ready"/.test(await logOf(cluster, next)))
    const old = podOf(SYSTEM, 'agent-1')
    await deletePod(cluster, old)
    await untilGone(cluster, old)
    const counts = callers.map((pod) => linesOf(cluster, pod).length)
    const isServedOn = () =>
      callers.every((pod, index) => linesOf(cluster, pod).length > (counts[index] ?? 0) + 50)
    await until('calls after the upgrade', isServedOn, 30_000)
    const lines = callers.flatMap((pod) => linesOf(cluster, pod))
    // Who had just connected to the old agent is told to connect again, or is cut off before it was heard.
    const isTold = (line: string) => line === '0 read ECONNRESET' || /^503 .*"draining"/.test(line)
    expect(lines.filter((line) => !line.startsWith('200') && !isTold(line))).toEqual([])
  }, 150_000)
}
