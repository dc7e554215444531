/**
 * The pods of a node as its kubelet lists them (core/v1 PodList), as far as an identity may rest on them; in the form of
 * their JSON, or of their protobuf messages, which differ in times only.
 */
import { Fault } from '../base/fault.ts'
import { itemsOf, type Members, membersOf } from '../base/members.ts'
import { type Awaited, awaitedOf, hasUnwrittenDebugger } from './pod-restarts.ts'

export interface PodContainer {
  readonly name: string
  /** 64 hex digits; absent while it waits for its first start. */
  readonly id: string | undefined
  readonly kind: 'app' | 'init' | 'ephemeral'
  readonly state: 'running' | 'waiting' | 'terminated'
  readonly image: string
  readonly imageId: string
}

export interface PodOwner {
  readonly kind: string
  readonly name: string
  readonly uid: string
}

export interface Pod {
  readonly uid: string
  readonly name: string
  readonly namespace: string
  readonly serviceAccount: string | undefined
  readonly nodeName: string | undefined
  readonly labels: Readonly<Record<string, string>>
  readonly owners: readonly PodOwner[]
  /** From a manifest on the node rather than from the API server. */
  readonly isStatic: boolean
  readonly isTerminating: boolean
  /** Succeeded or failed: its containers will not be started again. */
  readonly isOver: boolean
  readonly containers: readonly PodContainer[]
  /** Those that may be started: a list may be behind. */
  readonly awaited: readonly Awaited[]
  /** Whether a debugger was put in of which no container is listed yet. */
  readonly isDebugged: boolean
}

/** One list, whole. */
export interface PodList {
  readonly byUid: ReadonlyMap<string, Pod>
  /** Two pods that claim one container are both here. */
  readonly byContainer: ReadonlyMap<string, readonly Pod[]>
}

export const PODS_LIMIT = 10_000
const OVER: ReadonlySet<string> = new Set(['Succeeded', 'Failed'])

/** The list in `value`; throws pod_facts_unavailable when any part of it is not what it should be. */
export function parsePods(value: unknown): PodList {
  const { kind, items } = (value ?? {}) as { readonly kind?: unknown; readonly items?: unknown }
  if (kind !== 'PodList') throw odd('is no PodList')
  // Go writes an empty list as null.
  const list = items === null || items === undefined ? [] : items
  if (!Array.isArray(list) || list.length > PODS_LIMIT) throw odd('has no list of pods that can be read')
  return indexPods(list.map(podOf))
}

export function indexPods(pods: readonly Pod[]): PodList {
  const byContainer = new Map<string, Pod[]>()
  for (const pod of pods) {
    for (const { id } of pod.containers) {
      if (id === undefined) continue
      const there = byContainer.get(id)
      if (there) there.push(pod)
      else byContainer.set(id, [pod])
    }
  }
  return { byUid: new Map(pods.map((pod) => [pod.uid, pod])), byContainer }
}

function odd(what: string): Fault {
  return new Fault('pod_facts_unavailable', `the answer of the kubelet ${what}`)
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

function need(value: unknown, what: string): string {
  const text = textOf(value)
  if (text === undefined) throw odd(`has a pod without ${what}`)
  return text
}

function podOf(item: unknown): Pod {
  const { metadata, spec, status } = membersOf(item)
  const meta = membersOf(metadata)
  const { serviceAccountName, nodeName } = membersOf(spec)
  const source = textOf(membersOf(meta['annotations'])['kubernetes.io/config.source'])
  return {
    uid: need(meta['uid'], 'a uid'),
    name: need(meta['name'], 'a name'),
    namespace: need(meta['namespace'], 'a namespace'),
    serviceAccount: textOf(serviceAccountName),
    nodeName: textOf(nodeName),
    labels: Object.fromEntries(
      Object.entries(membersOf(meta['labels'])).flatMap(([key, value]) =>
        typeof value === 'string' ? [[key, value] as const] : [],
      ),
    ),
    owners: itemsOf(meta['ownerReferences']).flatMap(ownerOf),
    isStatic: source !== undefined && source !== 'api',
    isTerminating: !!meta['deletionTimestamp'],
    isOver: OVER.has(textOf(membersOf(status)['phase']) ?? ''),
    containers: containersOf(membersOf(status)),
    awaited: awaitedOf(membersOf(spec), membersOf(status)),
    isDebugged: hasUnwrittenDebugger(membersOf(spec), membersOf(status)),
  }
}

function ownerOf(owner: Members): readonly PodOwner[] {
  const [kind, name, uid] = [textOf(owner['kind']), textOf(owner['name']), textOf(owner['uid'])]
  return kind !== undefined && name !== undefined && uid !== undefined ? [{ kind, name, uid }] : []
}

function containersOf(status: Members): readonly PodContainer[] {
  const of = (key: string, kind: PodContainer['kind']) =>
    itemsOf(status[key]).map((each) => containerOf(each, kind))
  return [
    ...of('containerStatuses', 'app'),
    ...of('initContainerStatuses', 'init'),
    ...of('ephemeralContainerStatuses', 'ephemeral'),
  ]
}

/** `containerd://ID`; what came before it (`lastState`) is not read. */
const CONTAINER_ID = /^[a-z0-9.-]+:\/\/([0-9a-f]{64})$/

function containerOf(status: Members, kind: PodContainer['kind']): PodContainer {
  const state = membersOf(status['state'])
  const isRunning = typeof state['running'] === 'object' && state['running'] !== null
  const hasEnded = typeof state['terminated'] === 'object' && state['terminated'] !== null
  return {
    name: need(status['name'], 'a name of a container'),
    id: CONTAINER_ID.exec(textOf(status['containerID']) ?? '')?.[1],
    kind,
    state: isRunning && !hasEnded ? 'running' : hasEnded ? 'terminated' : 'waiting',
    image: textOf(status['image']) ?? '',
    imageId: textOf(status['imageID']) ?? '',
  }
}
