/** Upgrades of the chart by the DaemonSet controller itself, while pods call the Workload API. */
import { expect, it } from 'vitest'
import type { Json } from '../../support/cluster/api.ts'
import type { Cluster } from '../../support/cluster/cluster.ts'
import { containerOf, getPod, logOf, untilReady } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { agentPods, applyAll, findingsOf, type Release, rolledOut } from './release.ts'
import { CALLER } from './release-values.ts'
import { callerCommand, callerPod, lastOf, linesOf } from './stage.ts'

const HTTP = callerCommand('workload', 'http://localhost/v1/identity', 20)
const GRPC = ['/bin/node', '/app/workload-caller.mjs', '/run/holdfast/workload.sock']
const COMMANDS = {
  stream: [...GRPC, 'stream'],
  http: HTTP,
  grpc: [...GRPC, '20'],
}
/** What each caller is told before and after a change. */
const MANY = 50
const NEXT = { image: { tag: '0.1.1' }, customResources: { enabled: true } }

/** Starts and ends with the values of the install; in between, the next version runs, which follows custom resources. */
export function rolloutSuite(release: () => Release, meanwhile: () => void): void {
  let [stream, ...busy]: readonly Json[] = []
  const served = () => servedSince(release().cluster, busy, MANY)
  const refused = () =>
    [stream, ...busy].flatMap((pod) => linesOf(release().cluster, pod)).filter((line) => !/^200 /.test(line))
  /** A stream ends with its agent, and the next one has an answer. */
  const streamsAgain = async (change: () => Promise<void>) => {
    const { cluster } = release()
    const before = linesOf(cluster, stream).length
    await change()
    await until('a stream of the new agent', () => linesOf(cluster, stream).length > before, 30_000)
    expect(lastOf(cluster, stream)).toBe(`200 ${CALLER}`)
  }

  it('is replaced by its next version without a refused call', async () => {
    const { cluster, upgrade } = release()
    await upgrade()
    const before = await rolledOut(cluster)
    ;[stream, ...busy] = await startCallers(cluster)
    await served()
    await streamsAgain(async () => {
      await upgrade(NEXT)
      const after = await rolledOut(cluster)
      expect([imageOf(before), imageOf(after)]).toEqual(['holdfast:0.1.0', 'holdfast:0.1.1'])
    })
    await served()
    expect(refused()).toEqual([])
  }, 200_000)

  meanwhile()

  it('stays while a next one cannot start, as the check says, and an upgrade after that mends it', async () => {
    const { cluster, upgrade } = release()
    const before = await rolledOut(cluster)
    await upgrade({ ...NEXT, config: { log: { level: 'nonsense' } } })
    const broken = await until('a pod that cannot start', () => crashed(cluster), 60_000)
    // A container that has just started once more has said nothing yet.
    await until('what is wrong', async () => (await logOf(cluster, broken)).includes('nonsense'), 60_000)
    await served()
    const [first] = await agentPods(cluster)
    expect([first.metadata.uid, first.metadata.deletionTimestamp]).toEqual([before.metadata.uid, undefined])
    expect(await findingsOf(cluster)).toContain('k8s_agents warn')
    await streamsAgain(async () => {
      await upgrade()
      expect(imageOf(await rolledOut(cluster))).toBe('holdfast:0.1.0')
    })
    await served()
    expect(refused()).toEqual([])
  }, 250_000)

  it('comes back by itself when its process was killed', async () => {
    const { cluster } = release()
    const before = await rolledOut(cluster)
    cluster.containers.ctr('task', 'kill', '--signal', 'SIGKILL', containerOf(before))
    await until(
      'its container to be ready again',
      async () => {
        const { restartCount, ready } = agentOf(await getPod(cluster, before))
        return ready && restartCount > agentOf(before).restartCount
      },
      60_000,
    )
    await served()
  }, 250_000)
}

const agentOf = ({ status }: Json): Json => status.containerStatuses[0]
const imageOf = ({ spec }: Json): string => spec.containers[0].image

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
