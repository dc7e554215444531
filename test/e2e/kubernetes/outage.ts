/** While the API server is away, and with it what the kubelet knows of tokens. */
import { expect, it } from 'vitest'
import { containerOf } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { callerCommand, lastOf, linesOf, type Stage, startCaller } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'
const ITEMS = 'http://orders/v1/items'

export function outageSuite(stage: () => Stage): void {
  it('serves the pods that it knows, tells new ones to try again, and recovers', async () => {
    const { cluster } = stage()
    const [known, renewed] = await Promise.all([
      startCaller(stage(), 'known', callerCommand('egress', ITEMS, 100)),
      startCaller(stage(), 'renewed', callerCommand('workload', IDENTITY, 100)),
    ])
    const isServed = (pod: unknown) => /^200 /.test(lastOf(cluster, pod))
    await until('both to be served', () => isServed(known) && isServed(renewed))
    await cluster.plane.stop()
    try {
      // The kubelet starts it again by itself: a container that the agent has not heard of.
      cluster.containers.ctr('task', 'kill', '--signal', 'SIGKILL', containerOf(renewed))
      const isTold = () => /^503 .*"pod_facts_unavailable"/.test(lastOf(cluster, renewed))
      await until('a new container to be told to try again', isTold, 40_000)
      const before = linesOf(cluster, known).length
      await until('more requests of a known pod', () => linesOf(cluster, known).length > before + 20)
    } finally {
      await cluster.plane.start()
    }
    await until('the new container to be served', () => isServed(renewed), 20_000)
    expect(linesOf(cluster, known).filter((line) => !line.startsWith('200'))).toEqual([])
  }, 150_000)
}
