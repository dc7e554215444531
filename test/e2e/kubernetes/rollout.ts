/** Upgrades of the chart by the DaemonSet controller itself, while pods call the Workload API. */
import { expect, it } from 'vitest'
import type { Json } from '../../support/cluster/api.ts'
import type { Cluster } from '../../support/cluster/cluster.ts'
import { logOf, untilReady } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { agentPods, applyAll, type Release, rolledOut } from './release.ts'
import { CALLER } from './release-values.ts'
import { callerCommand, callerPod, lastOf, linesOf } from './stage.ts'

const HTTP = callerCommand('workload', 'http://localhost/v1/identity', 20)
const GRPC = ['/bin/node', '/app/workload-caller.mjs', '/run/holdfast/workload.sock', '20']
const COMMANDS = { 'http-1': HTTP, 'http-2': HTTP, 'grpc-1': GRPC, 'grpc-2': GRPC }
/** What each caller is told before and after a change. */
const MANY = 50

export function rolloutSuite(release: () => Release): void {
  let callers: readonly Json[] = []
  const served = (count: number) => servedSince(release().cluster, callers, count)
  const refused = () =>
    callers.flatMap((pod) => linesOf(release().cluster, pod)).filter((line) => !line.startsWith('200'))

  it('is replaced by its next version without a refused call', async () => {
    const { cluster, upgrade } = release()
    await upgrade()
    const before = await rolledOut(cluster)
    callers = await startCallers(cluster)
    await served(MANY)
    expect(lastOf(cluster, callers.at(-1))).toBe(`200 ${CALLER}`)
    await upgrade({ image: { tag: '0.1.1' } })
    const after = await rolledOut(cluster)
    expect([before, after].map(({ spec }) => spec.containers[0].image)).toEqual([
      'holdfast:0.1.0',
      'holdfast:0.1.1',
    ])
    expect(after.metadata.uid).not.toBe(before.metadata.uid)
    await served(MANY)
    expect(refused()).toEqual([])
  }, 200_000)

  it('stays as it is while a next one cannot start, and an upgrade after that mends it', async () => {
    const { cluster, upgrade } = release()
    const before = await rolledOut(cluster)
    await upgrade({
      image: { tag: '0.1.1' },
      config: { authority: { nodes: 'one' }, log: { level: 'nonsense' } },
    })
    const broken = await until('a pod that cannot start', () => crashed(cluster), 60_000)
    expect(await logOf(cluster, broken)).toContain('nonsense')
    await served(MANY)
    const [first] = await agentPods(cluster)
    expect([first.metadata.uid, first.metadata.deletionTimestamp]).toEqual([before.metadata.uid, undefined])
    await upgrade()
    const { spec } = await rolledOut(cluster)
    expect(spec.containers[0].image).toBe('holdfast:0.1.0')
    await served(MANY)
    expect(refused()).toEqual([])
  }, 250_000)
}

/** The scheduler finds them their node. */
async function startCallers(cluster: Cluster): Promise<readonly Json[]> {
  const account = {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'caller', namespace: 'shop' },
  }
  const pods = Object.entries(COMMANDS).map(([name, command]) => {
    const { spec, ...rest } = callerPod(`upgrade-${name}`, command, 'caller')
    return { ...rest, spec: { ...spec, nodeName: undefined } }
  })
  await applyAll(cluster, [account, ...pods])
  return Promise.all(pods.map((pod) => untilReady(cluster, pod)))
}

/** Until each caller has `count` more answers than now. */
async function servedSince(cluster: Cluster, callers: readonly Json[], count: number): Promise<void> {
  const begun = callers.map((pod) => linesOf(cluster, pod).length)
  const isServed = () => callers.every((pod, at) => linesOf(cluster, pod).length >= (begun[at] ?? 0) + count)
  await until('callers that are served', isServed, 60_000).catch((error) => {
    const ends = callers.map((pod) => `${pod.metadata.name}: ${linesOf(cluster, pod).at(-1)}`)
    throw new Error(`${error.message}\n${ends.join('\n')}`)
  })
}

/** The agent's pod whose container ended by itself. */
async function crashed(cluster: Cluster): Promise<Json | undefined> {
  const hasEnded = ({ status }: Json) => {
    const [{ state, lastState } = { state: {}, lastState: {} }] = status.containerStatuses ?? []
    return state.terminated !== undefined || lastState.terminated !== undefined
  }
  return (await agentPods(cluster)).find((pod) => hasEnded(pod) && !pod.metadata.deletionTimestamp)
}
