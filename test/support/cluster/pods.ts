/** Pods bound to the one node by hand, and what becomes of them. */
import { until } from '../until.ts'
import type { Json } from './api.ts'
import type { Cluster } from './cluster.ts'
import { IMAGE } from './images.ts'
import { NODE_NAME } from './kubelet.ts'

/** A container that waits until it is ended. */
export const WAITING = {
  name: 'app',
  image: IMAGE,
  imagePullPolicy: 'Never',
  command: ['/bin/busybox', 'sleep', '2147483647'],
  resources: { requests: { cpu: '20m' } },
}

export interface PodOptions {
  readonly account?: string
  readonly labels?: Readonly<Record<string, string>>
  /** Changes to the specification. */
  readonly spec?: Json
}

/** The object of a pod that runs `WAITING`, or what `options.spec` says. */
export function podOf(namespace: string, name: string, options: PodOptions = {}): Json {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace, name, labels: options.labels ?? {} },
    spec: {
      nodeName: NODE_NAME,
      serviceAccountName: options.account ?? 'default',
      terminationGracePeriodSeconds: 1,
      containers: [WAITING],
      ...options.spec,
    },
  }
}

const placeOf = ({ metadata: { namespace, name } }: Json) => `/api/v1/namespaces/${namespace}/pods/${name}`

/** Makes the pod and waits until its containers are ready. */
export async function startPod(cluster: Cluster, object: Json): Promise<Json> {
  await cluster.api.ask('POST', `/api/v1/namespaces/${object.metadata.namespace}/pods`, object)
  return untilReady(cluster, object)
}

/** The pod as the API server has it. */
export const getPod = ({ api }: Cluster, object: Json): Promise<Json> => api.ask('GET', placeOf(object))

export function untilReady(cluster: Cluster, object: Json): Promise<Json> {
  let last: Json
  return until(
    `pod ${object.metadata.name} to be ready`,
    async () => {
      last = await getPod(cluster, object)
      const statuses: readonly Json[] = last.status.containerStatuses ?? []
      return statuses.length > 0 && statuses.every((each) => each.ready) ? last : undefined
    },
    40_000,
  ).catch((error) => {
    throw new Error(`${error.message}: ${JSON.stringify(last?.status)}`)
  })
}

/** The id of a container of a pod, as containerd knows it. */
export function containerOf(pod: Json, name?: string): string {
  const statuses: readonly Json[] = pod.status.containerStatuses ?? []
  const status = name === undefined ? statuses[0] : statuses.find((each) => each.name === name)
  return String(status?.containerID ?? '').replace('containerd://', '')
}

/** Deletes the pod; by force, the API server forgets it at once, while its processes may still run. */
export async function deletePod({ api }: Cluster, object: Json, isForced = false): Promise<void> {
  const options = isForced ? { gracePeriodSeconds: 0 } : {}
  await api.ask('DELETE', placeOf(object), { apiVersion: 'v1', kind: 'DeleteOptions', ...options })
}

export async function untilGone(cluster: Cluster, object: Json): Promise<void> {
  const isGone = async () => (await cluster.api.call('GET', placeOf(object))).status === 404
  await until(`pod ${object.metadata.name} to be gone`, isGone, 30_000)
}

/** What the containers of a pod wrote. */
export async function logOf({ api }: Cluster, object: Json, container?: string): Promise<string> {
  const which = container === undefined ? '' : `?container=${container}`
  const { body } = await api.call('GET', `${placeOf(object)}/log${which}`)
  return typeof body === 'string' ? body : JSON.stringify(body)
}
