/** What a list of pods says of one container: that it is running in its pod, and the selectors that follow; or why not. */
import { Fault } from '../base/fault.ts'
import { makeSelector, type Selector } from '../spiffe/selector.ts'
import type { Pod, PodContainer, PodList } from './pod-list.ts'
import type { Awaited } from './pod-restarts.ts'

/** Where the cgroups of a caller say that it is. */
export interface ContainerPlace {
  readonly podUid: string | undefined
  readonly containerId: string
}

export interface PodRules {
  /** Labels that become selectors; `*` is all. */
  readonly labels: readonly string[]
  readonly terminating: 'serve' | 'end'
  readonly ephemeral: boolean
  readonly static: 'narrow' | 'full'
  /** What a container is that its pod does not list as running: nothing, or the one of its containers that is awaited. */
  readonly unlisted: 'refuse' | 'awaited'
}

export interface PodFacts {
  readonly podUid: string
  readonly selectors: readonly Selector[]
  /** Whether the kubelet lists it as running, or it can only be the one that is awaited. */
  readonly isListed: boolean
}

/** `mayCome`: a newer list may say otherwise, as of a container whose status is not written yet. */
export type PodAnswer =
  | { readonly facts: PodFacts }
  | { readonly fault: Fault; readonly mayCome: boolean; readonly isSilent?: true }

/** The facts of the container at `place`; `isAlive` says whether a container of that ID has a process. */
export function podFacts(
  list: PodList,
  place: ContainerPlace,
  rules: PodRules,
  isAlive: (containerId: string) => boolean,
): PodAnswer {
  const claims = list.byContainer.get(place.containerId) ?? []
  if (claims.length > 1) return refuse(`${claims.length} pods claim its container`)
  const pod = place.podUid === undefined ? claims[0] : list.byUid.get(place.podUid)
  if (!pod) {
    const what = place.podUid === undefined ? 'of its container' : `with the UID ${place.podUid}`
    // A pod is listed before its first container starts; only states come late.
    return {
      fault: new Fault('pod_unknown', `the kubelet knows no pod ${what}`),
      mayCome: place.podUid === undefined,
    }
  }
  if (claims[0] && claims[0] !== pod)
    return refuse(`its container is of ${nameOf(claims[0])}, and its cgroup of ${nameOf(pod)}`)
  const container = pod.containers.find(({ id }) => id === place.containerId)
  if (!container || container.state === 'waiting') return unlisted(pod, container, rules, isAlive)
  if (container.state === 'terminated')
    return refuse(`the container ${container.name} of ${nameOf(pod)} is terminated`)
  if (container.kind === 'ephemeral' && !rules.ephemeral)
    return refuse(`${container.name} is an ephemeral container, put into ${nameOf(pod)} by kubectl debug`)
  if (pod.isTerminating && rules.terminating === 'end') return refuse(`${nameOf(pod)} is being deleted`)
  return { facts: { podUid: pod.uid, selectors: selectorsOf(pod, container, rules), isListed: true } }
}

/** The selectors of each container of the pod `uid`, running or between two runs; none while no states are known. Or why it is over. */
export function wholePodFacts(
  list: PodList,
  uid: string,
  rules: PodRules,
): readonly (readonly Selector[])[] | Fault {
  const pod = list.byUid.get(uid)
  if (!pod) return new Fault('pod_unknown', `the kubelet knows no pod with the UID ${uid}`)
  if (pod.isOver) return new Fault('container_refused', `${nameOf(pod)} has ended`)
  if (pod.isTerminating && rules.terminating === 'end')
    return new Fault('container_refused', `${nameOf(pod)} is being deleted`)
  const may = pod.containers.filter(({ kind }) => kind !== 'ephemeral' || rules.ephemeral)
  const awaited = rules.unlisted === 'awaited' ? pod.awaited : []
  return [
    ...may.map((container) => selectorsOf(pod, container, rules)),
    ...awaited.map((container) => awaitedSelectors(pod, container, rules)),
  ]
}

/** Of a container that runs, for a process of it has called, and of which the list does not say so. */
function unlisted(
  pod: Pod,
  container: PodContainer | undefined,
  rules: PodRules,
  isAlive: (containerId: string) => boolean,
): PodAnswer {
  const ended = container ? [] : endedOf(pod, isAlive)
  const only = onlyAwaited(pod, container, ended)
  if (rules.unlisted === 'awaited' && only) {
    if (pod.isTerminating && rules.terminating === 'end') return refuse(`${nameOf(pod)} is being deleted`)
    return {
      facts: { podUid: pod.uid, selectors: awaitedSelectors(pod, only, rules), isListed: false },
    }
  }
  if (container) return late(pod, `${container.name} with that ID as not running yet`)
  return withoutContainer(pod, ended)
}

/** Listed as running, and no process is left of them: each may have been started anew. */
function endedOf({ containers }: Pod, isAlive: (containerId: string) => boolean): readonly PodContainer[] {
  return containers.filter(
    ({ id, kind, state }) => state === 'running' && kind !== 'ephemeral' && id !== undefined && !isAlive(id),
  )
}

/** The one that it can be, by its ID or since it alone is awaited; nothing where it may be another that was started anew, or a debugger. */
function onlyAwaited(
  { awaited, isDebugged }: Pod,
  named: PodContainer | undefined,
  ended: readonly PodContainer[],
): Pick<PodContainer, 'name'> | undefined {
  if (named) return named.kind === 'ephemeral' ? undefined : named
  const [only, ...others] = awaited
  return others.length === 0 && ended.length === 0 && !isDebugged ? only : undefined
}

function withoutContainer(pod: Pod, ended: readonly PodContainer[]): PodAnswer {
  const { awaited, containers } = pod
  const isSilent = containers.length === 0 ? { isSilent: true as const } : {}
  if (awaited.length > 0)
    return { ...late(pod, `${NONE}, and ${namesOf(awaited)} as not running yet`), ...isSilent }
  if (ended.length > 0)
    return late(pod, `${NONE}, and as running ${namesOf(ended)} of which no process is left`)
  const what = `${nameOf(pod)} has ${NONE}, and none of its own is to be started: it is the pause container, or was not made by the kubelet`
  return { fault: new Fault('container_refused', what), mayCome: true, ...isSilent }
}

const namesOf = (all: readonly Pick<Awaited, 'name'>[]) => all.map(({ name }) => name).join(', ')

const NONE = 'no container of that ID'

/** What the kubelet lists is what it has told the API server and heard back. */
const LATE =
  'Try again: a container is listed within seconds of its start, after an outage of the API server within minutes; by the Pods API of the kubelet sooner.'

function late(pod: Pod, what: string): Extract<PodAnswer, { readonly fault: Fault }> {
  const message = `the kubelet lists, for ${nameOf(pod)}, ${what}`
  return { fault: new Fault('pod_facts_unavailable', message, { action: LATE }), mayCome: true }
}

function refuse(what: string): PodAnswer {
  return { fault: new Fault('container_refused', what), mayCome: false }
}

const nameOf = ({ namespace, name }: Pod) => `the pod ${namespace}/${name}`

/** SPIRE's names and values. */
function selectorsOf(pod: Pod, container: PodContainer, rules: PodRules): readonly Selector[] {
  const k8s = (kind: string, value: string | number) => makeSelector(`k8s:${kind}`, value)
  const apps = pod.containers.filter(({ kind }) => kind === 'app')
  const inits = pod.containers.filter(({ kind }) => kind === 'init')
  const found = [
    ...awaitedSelectors(pod, container, rules),
    ...imagesOf([container]).map((image) => k8s('container-image', image)),
    ...imagesOf(apps).map((image) => k8s('pod-image', image)),
    k8s('pod-image-count', apps.length),
    ...imagesOf(inits).map((image) => k8s('pod-init-image', image)),
    k8s('pod-init-image-count', inits.length),
  ]
  return [...new Set(found)]
}

/** What is known before a status is written: all but the images. */
function awaitedSelectors(
  pod: Pod,
  container: Pick<PodContainer, 'name'>,
  rules: PodRules,
): readonly Selector[] {
  const k8s = (kind: string, value: string) => makeSelector(`k8s:${kind}`, value)
  return [
    k8s('pod-uid', pod.uid),
    k8s('pod-name', pod.name),
    ...(pod.nodeName === undefined ? [] : [k8s('node-name', pod.nodeName)]),
    k8s('container-name', container.name),
    ...(!pod.isStatic || rules.static === 'full' ? claimed(pod, rules) : []),
  ]
}

/** What the API server vouches for, and a manifest on the node only claims. */
function claimed(pod: Pod, { labels }: PodRules): readonly Selector[] {
  const k8s = (kind: string, value: string) => makeSelector(`k8s:${kind}`, value)
  const all = labels.includes('*')
  return [
    k8s('ns', pod.namespace),
    ...(pod.serviceAccount === undefined ? [] : [k8s('sa', pod.serviceAccount)]),
    ...Object.entries(pod.labels)
      .filter(([key]) => all || labels.includes(key))
      .map(([key, value]) => k8s('pod-label', `${key}:${value}`)),
    ...pod.owners.flatMap(({ kind, name, uid }) => [
      k8s('pod-owner', `${kind}:${name}`),
      k8s('pod-owner-uid', `${kind}:${uid}`),
    ]),
  ]
}

function imagesOf(containers: readonly PodContainer[]): readonly string[] {
  return containers.flatMap(({ image, imageId }) => [image, imageId]).filter((name) => name !== '')
}
