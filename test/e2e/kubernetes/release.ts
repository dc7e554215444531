/** The chart as an operator installs it, in a cluster whose controllers make its pods: nothing of it is started by hand. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { kubernetesGroup } from '../../../src/cli/check-kubernetes.ts'
import type { Json } from '../../support/cluster/api.ts'
import { type Cluster, openCluster } from '../../support/cluster/cluster.ts'
import { startControllers } from '../../support/cluster/controllers.ts'
import { IMAGE } from '../../support/cluster/images.ts'
import { missingForControllers } from '../../support/cluster/parts.ts'
import { logOf } from '../../support/cluster/pods.ts'
import { startProxy } from '../../support/cluster/proxy.ts'
import { keptIo } from '../../support/io.ts'
import { CHART, missingForHelm, NAMESPACE, render } from '../../support/manifests.ts'
import {
  openProbeRig,
  type ProbedService,
  type ProbeRig,
  startProbedService,
} from '../../support/probed-service.ts'
import { until } from '../../support/until.ts'
import { secretsOf, valuesFor } from './release-values.ts'

/** The image of the chart's own default values, and of the version after it. */
const IMAGES = ['docker.io/library/holdfast:0.1.0', 'docker.io/library/holdfast:0.1.1']
/** The image of the examples' app. */
const CURL_PROGRAM = '/usr/bin/curl'
const CURL = 'docker.io/curlimages/curl:8.17.0'
const PLACE = `/api/v1/namespaces/${NAMESPACE}`
const DAEMON_SET = `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets/holdfast-agent`

/** What this machine lacks; undefined when the suites can run. */
export const missing =
  missingForControllers() ?? missingForHelm() ?? (existsSync(CURL_PROGRAM) ? undefined : CURL_PROGRAM)

export interface Release extends AsyncDisposable {
  readonly cluster: Cluster
  readonly rig: ProbeRig
  /** A service that refuses every thief, and one that takes a bound token as a bearer. */
  readonly services: Readonly<Record<'good' | 'bad', ProbedService>>
  /** What `helm upgrade` with the values of the install and these over them does. */
  upgrade(values?: Json): Promise<void>
}

/** Opens the cluster and installs the chart; nobody waits for its pods yet. */
export async function openRelease(): Promise<Release> {
  const cluster = await openCluster({ [CURL_PROGRAM.slice(1)]: CURL_PROGRAM })
  const open: AsyncDisposable[] = [cluster]
  const close = async () => {
    for (const each of open) await each[Symbol.asyncDispose]()
  }
  try {
    for (const name of [...IMAGES, CURL]) cluster.containers.ctr('images', 'tag', IMAGE, name)
    const rig = await openProbeRig(120, true, {
      name: 'upstream.cluster.test',
      address: cluster.node.network.outside,
    })
    open.push(rig)
    const good = await startProbedService({ rig })
    const bad = await startProbedService({ rig, flaws: ['takes_bearer'] })
    open.push(good, bad)
    await startControllers(cluster)
    await applyAll(cluster, [...NAMESPACES, ...definitions(), ...secretsOf(rig)])
    const kubelet = { podsApiDirectory: join(cluster.node.dir, 'kubelet/pods-api') }
    const first = { ...valuesFor(rig, good), kubelet }
    const upgrade = (values: Json = {}) => applyAll(cluster, render({ ...first, ...values }))
    await upgrade()
    return { cluster, rig, services: { good, bad }, upgrade, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}

const namespaceOf = (name: string) => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name, labels: { 'pod-security.kubernetes.io/enforce': 'privileged' } },
})
const NAMESPACES = [NAMESPACE, 'shop'].map(namespaceOf)

/** What `helm install` makes before all else, and `helm template` leaves out. */
const definitions = () =>
  readdirSync(join(CHART, 'crds')).map((file) => parse(readFileSync(join(CHART, 'crds', file), 'utf8')))

export async function applyAll({ api }: Cluster, objects: readonly Json[]): Promise<void> {
  for (const object of objects) {
    const { status, body } = await api.apply(object)
    if (status >= 300) throw new Error(`${object.kind} ${object.metadata.name}: ${JSON.stringify(body)}`)
  }
}

/** The pods of the agent, the oldest first; those that are on their way out are among them. */
export async function agentPods({ api }: Cluster): Promise<readonly Json[]> {
  const { items } = await api.ask('GET', `${PLACE}/pods?labelSelector=app.kubernetes.io/component=agent`)
  const born = (pod: Json) => Date.parse(pod.metadata.creationTimestamp)
  return items.sort((one: Json, other: Json) => born(one) - born(other))
}

/** How often its pods were to be other ones. */
export async function generationOf({ api }: Cluster): Promise<number> {
  return (await api.ask('GET', DAEMON_SET)).metadata.generation
}

/** As `kubectl rollout status` waits: every pod of the DaemonSet is of its latest template, and available; the one pod. */
export async function rolledOut(cluster: Cluster): Promise<Json> {
  const isDone = async () => {
    const { metadata, status } = await cluster.api.ask('GET', DAEMON_SET)
    const { observedGeneration, desiredNumberScheduled: wanted } = status
    const isSeen = observedGeneration === metadata.generation && wanted === 1
    if (!isSeen || status.updatedNumberScheduled !== wanted || status.numberAvailable !== wanted)
      return undefined
    const pods = await agentPods(cluster)
    return pods.length === 1 && pods[0]
  }
  return until('the agents to be rolled out', isDone, 90_000).catch(async (error) => {
    throw new Error(`${error.message}\n${await describe(cluster)}`)
  })
}

/** What an operator would look at. */
async function describe(cluster: Cluster): Promise<string> {
  const { status } = await cluster.api.ask('GET', DAEMON_SET)
  const { items } = await cluster.api.ask('GET', `${PLACE}/events`)
  const pods = await agentPods(cluster)
  const logs = await Promise.all(pods.map(async (pod) => (await logOf(cluster, pod)).slice(-4_000)))
  const events = items.map(({ reason, message }: Json) => `${reason}: ${message}`)
  return [JSON.stringify(status), ...events, ...pods.map((pod) => JSON.stringify(pod.status)), ...logs].join(
    '\n',
  )
}

/** What `holdfast check --kubernetes` finds, through what `kubectl proxy` is: `ID GRADE` each. */
export async function findingsOf({ api }: Cluster): Promise<readonly string[]> {
  await using proxy = await startProxy(api)
  const io = keptIo({ environment: { pod: undefined } })
  const { findings } = await kubernetesGroup({ server: proxy.url }, io)
  return findings.map(({ id, grade }) => `${id} ${grade}`)
}
