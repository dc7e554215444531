/** An outage of the API server, and with it of what the kubelet knows of tokens: what pods see of it. */
import type { Json } from '../../support/cluster/api.ts'
import type { Cluster } from '../../support/cluster/cluster.ts'
import { listedPods } from '../../support/cluster/kubelet.ts'
import { containerOf, deletePod } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { callerCommand, lastOf, linesOf, type Stage, startCaller } from './stage.ts'

const IDENTITY = 'http://localhost/v1/identity'
const ITEMS = 'http://orders/v1/items'

export interface Outage {
  /** What a pod that was known before asked from beginning to end, line by line. */
  readonly known: readonly string[]
  /** What a new container heard meanwhile, line by line. */
  readonly told: readonly string[]
  /** ms from when the API server is ready and the kubelet lists that container as running, to its first identity. */
  readonly recovery: number
  /** The same from when the API server is ready: the kubelet takes its time to tell what it started meanwhile. */
  readonly whole: number
}

/** Ends the API server, has a container start meanwhile, and starts it again. */
export async function outageOf(stage: Stage, name = ''): Promise<Outage> {
  const { cluster } = stage
  const [known, renewed] = await Promise.all([
    startCaller(stage, `known${name}`, callerCommand('egress', ITEMS, 100)),
    startCaller(stage, `renewed${name}`, callerCommand('workload', IDENTITY, 100)),
  ])
  const isServed = (pod: Json) => /^200 /.test(lastOf(cluster, pod))
  await until('both to be served', () => isServed(known) && isServed(renewed))
  await cluster.plane.stop()
  let begun = 0
  try {
    begun = linesOf(cluster, renewed).length
    // The kubelet starts it again by itself: a container that the agent has not heard of.
    cluster.containers.ctr('task', 'kill', '--signal', 'SIGKILL', containerOf(renewed))
    const isTold = () => /^503 .*"pod_facts_unavailable"/.test(lastOf(cluster, renewed))
    await until('a new container to be told to try again', isTold, 40_000)
    const before = linesOf(cluster, known).length
    await until('more requests of a known pod', () => linesOf(cluster, known).length > before + 20)
  } finally {
    await cluster.plane.start()
  }
  const ready = performance.now()
  const since = () => performance.now() - ready
  const [listing, whole] = await Promise.all([
    until('the kubelet to list it', () => isListed(cluster, renewed), KUBELET_LIMIT).then(since),
    until('the new container to be served', () => isServed(renewed), KUBELET_LIMIT + 10_000).then(since),
  ])
  const told = linesOf(cluster, renewed).slice(begun)
  const answers = linesOf(cluster, known)
  await Promise.all([known, renewed].map((pod) => deletePod(cluster, pod, true)))
  return { known: answers, told, recovery: Math.max(0, whole - listing), whole }
}

/**
 * GET /pods has no state that the API server has not confirmed (GetPods of the kubelet): a container that was started meanwhile
 * is listed when the kubelet has told of it and its own watch is back, seen to take up to 75 s on a busy machine.
 */
const KUBELET_LIMIT = 240_000

/** Whether the kubelet lists another container of `pod`, which runs; without the API server it takes its time. */
async function isListed({ node }: Cluster, pod: Json): Promise<boolean> {
  const found = (await listedPods(node)).find(({ metadata }) => metadata.uid === pod.metadata.uid)
  const [status] = found?.status.containerStatuses ?? []
  return status?.state.running !== undefined && containerOf(found) !== containerOf(pod)
}
