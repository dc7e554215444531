/**
 * Which pod and container a process is in, by its cgroups alone. The path is read from the node's kubepods cgroup
 * inwards: pod first, then the container directly in it. What lies deeper is ignored, since a container may be able to
 * make cgroups of any name below its own; what lies above was made by the kubelet and the runtime.
 */
import type { Cgroup } from './cgroup.ts'

/** `own`: the container of the agent itself. `outside`: no place of a pod. */
export type PodPlace =
  | { readonly kind: 'own' }
  | { readonly kind: 'outside' }
  | { readonly kind: 'refused'; readonly why: string }
  | {
      readonly kind: 'container'
      /** With dashes, or 32 hex digits for a static pod; absent for containers of the agent's own pod (`/../ID`). */
      readonly podUid: string | undefined
      /** 64 lower-case hex digits. */
      readonly containerId: string
    }

export interface PodCgroupsOptions {
  /** The agent's own lines: they say where kubepods is. */
  readonly own: readonly Cgroup[]
  /** The parent of kubepods, such as `/` or `/kubelet.slice`; `auto` takes it from `own`. */
  readonly root: string
  /** Of the agent's own pod, where it is in one. */
  readonly podUid?: string | undefined
}

type Line = Exclude<PodPlace, { readonly kind: 'own' }>

const UUID = '[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}'
const UID = `(${UUID}|[0-9a-f]{32})`
const SLICE = '((?:[A-Za-z0-9_.:]+-)*kubepods)'
const RUNTIMES = 'cri-containerd|containerd|docker|crio|cri-o'
const KUBEPODS = new RegExp(`^${SLICE}(?:\\.slice)?$`)
const QOS = new RegExp(`^(?:burstable|besteffort|${SLICE}-(?:burstable|besteffort)\\.slice)$`)
const POD = new RegExp(`^(?:pod${UID}|${SLICE}(?:-burstable|-besteffort)?-pod${UID}\\.slice)$`)
/** What runc makes where the kubelet's cgroup driver is systemd and the runtime's is not. */
const POD_AND_CONTAINER = new RegExp(
  `^${SLICE}(?:-burstable|-besteffort)?-pod${UID}\\.slice:(?:${RUNTIMES}):([0-9a-f]{64})$`,
)
const CONTAINER = new RegExp(`^(?:(?:${RUNTIMES})-([0-9a-f]{64})\\.scope|(?:crio-|cri-o-)?([0-9a-f]{64}))$`)
const CONMON = /(?:^|-)conmon-[0-9a-f]{64}(?:\.scope)?$/
/** Where such a runtime itself is, and with it what it makes. */
const RUNTIME_SERVICE =
  /^\/system\.slice\/(?:containerd|docker|cri-docker|crio|k3s|k3s-agent|rke2-agent|rke2-server)\.service$/
const DELETED = ' (deleted)'
/** Levels from the agent's container up to kubepods: container, pod, QoS class, and one more that crun may add. */
const UPS_LIMIT = 4
const OWN_POD_UPS = 2

const OUTSIDE: Line = { kind: 'outside' }
const refused = (why: string): Line => ({ kind: 'refused', why })

/** Finds the container of a process, as the agent sees it from where it is. */
export class PodCgroups {
  readonly #options: PodCgroupsOptions
  readonly #ownPaths: ReadonlyMap<string, string>
  readonly #roots = new Map<string, string>()
  readonly #ownId: string | undefined

  constructor(options: PodCgroupsOptions) {
    this.#options = options
    this.#ownPaths = new Map(options.own.map(({ hierarchy, path }) => [hierarchy, path]))
    const own = this.#agree(options.own)
    this.#ownId = own.kind === 'container' ? own.containerId : undefined
  }

  /** The place of a process with these cgroups. */
  place(cgroups: readonly Cgroup[]): PodPlace {
    // The kernel shows no lines where a path is over 4096 bytes long: made to be misread.
    if (cgroups.length === 0 && this.#options.own.length > 0)
      return { kind: 'refused', why: 'its cgroup cannot be read' }
    const found = this.#agree(cgroups)
    if (found.kind === 'container' && found.containerId === this.#ownId) return { kind: 'own' }
    return found
  }

  #agree(cgroups: readonly Cgroup[]): Line {
    const lines = cgroups.map((cgroup) => ({ cgroup, line: this.#read(cgroup) }))
    const bad = lines.find(({ line }) => line.kind === 'refused')
    if (bad) return bad.line
    const [first, ...others] = lines.flatMap(({ line }) => (line.kind === 'container' ? [line] : []))
    if (!first) return OUTSIDE
    const isSame = others.every(
      ({ podUid, containerId }) => podUid === first.podUid && containerId === first.containerId,
    )
    const isStray = lines.some(({ line, cgroup }) => line.kind === 'outside' && !this.#isAbove(cgroup))
    return isSame && !isStray ? first : refused('its cgroups name two places')
  }

  #read({ hierarchy, path }: Cgroup): Line {
    if (path.endsWith(DELETED)) return refused('its cgroup was deleted')
    const steps = path.split('/').slice(1)
    if (steps[0] === '..') return this.#readRelative(steps)
    const root = this.#rootOf(hierarchy)
    const inside =
      root === '/' ? steps : path.startsWith(`${root}/`) ? steps.slice(root.split('/').length - 1) : []
    const [first = ''] = inside
    if (KUBEPODS.test(first)) return readTree(inside)
    if (POD_AND_CONTAINER.test(first)) return readPod(inside, undefined)
    if (RUNTIME_SERVICE.test(`/${steps.slice(0, 2).join('/')}`) && POD_AND_CONTAINER.test(steps[2] ?? ''))
      return readPod(steps.slice(2), undefined)
    return OUTSIDE
  }

  /** Seen from a cgroup namespace: up to an ancestor of the agent's container, then down (cgroup_namespaces(7)). */
  #readRelative(steps: readonly string[]): Line {
    const ups = steps.findIndex((step) => step !== '..')
    if (ups < 0) return OUTSIDE
    const down = steps.slice(ups)
    if (down.includes('..')) return refused('its cgroup is no path')
    const [first = ''] = down
    if (KUBEPODS.test(first)) return readTree(down)
    if (ups > UPS_LIMIT) return OUTSIDE
    if (QOS.test(first)) return readQos(down, undefined)
    if (POD.test(first) || POD_AND_CONTAINER.test(first)) return readPod(down, undefined)
    if (ups > OWN_POD_UPS) return OUTSIDE
    return CONTAINER.test(first) || CONMON.test(first) ? readContainer(down, this.#options.podUid) : OUTSIDE
  }

  /** The parent of kubepods in `hierarchy`. */
  #rootOf(hierarchy: string): string {
    const known = this.#roots.get(hierarchy)
    if (known !== undefined) return known
    const root = this.#findRoot(hierarchy)
    if (this.#ownPaths.has(hierarchy)) this.#roots.set(hierarchy, root)
    return root
  }

  #findRoot(hierarchy: string): string {
    const { root, podUid } = this.#options
    if (root !== 'auto') return root
    const steps = (this.#ownPaths.get(hierarchy) ?? '/').split('/').slice(1)
    // In a cluster inside a pod of another, the kubepods with the agent's own pod in it.
    const pod = podUid === undefined ? -1 : steps.findIndex((step) => podUidOf(step) === dashed(podUid))
    const kubepods = steps.findLastIndex((step, at) => (pod < 0 || at < pod) && KUBEPODS.test(step))
    const outermost = pod < 0 ? steps.findIndex((step) => KUBEPODS.test(step)) : kubepods
    return outermost <= 0 ? '/' : `/${steps.slice(0, outermost).join('/')}`
  }

  /** Whether a line that names no pod may stand beside one that does: the hierarchy is not used for containers. */
  #isAbove({ hierarchy, path }: Cgroup): boolean {
    const root = this.#rootOf(hierarchy)
    const isOnTheWay = path === '/' || path === root || root.startsWith(`${path}/`)
    return isOnTheWay || path === this.#ownPaths.get(hierarchy) || RUNTIME_SERVICE.test(path) || isUp(path)
  }
}

/** `/../../..`: an ancestor of the agent. */
function isUp(path: string): boolean {
  return /^(?:\/\.\.)+$/.test(path)
}

/** From kubepods: `[QoS]/pod/container`, all of one driver. */
function readTree(steps: readonly string[]): Line {
  const [kubepods = '', next = ''] = steps
  const slice = kubepods.endsWith('.slice') ? KUBEPODS.exec(kubepods)?.[1] : undefined
  if (steps.length < 3) return POD_AND_CONTAINER.test(next) ? readPod([next], slice) : refused(NO_CONTAINER)
  return QOS.test(next) ? readQos(steps.slice(1), slice) : readPod(steps.slice(1), slice)
}

const NO_CONTAINER = 'its cgroup is of the kubelet and of no container'

function readQos(steps: readonly string[], slice: string | undefined): Line {
  const [qos = '', ...rest] = steps
  const own = QOS.exec(qos)?.[1]
  if (slice !== undefined && own !== slice) return refused(ODD)
  return readPod(rest, own ?? slice)
}

const ODD = 'its cgroup has no shape that a kubelet makes'

function readPod(steps: readonly string[], slice: string | undefined): Line {
  const [first = '', ...rest] = steps
  const both = POD_AND_CONTAINER.exec(first)
  if (both) {
    const [, own, uid = '', containerId = ''] = both
    return slice === undefined || own === slice ? found(dashed(uid), containerId) : refused(ODD)
  }
  const pod = POD.exec(first)
  const uid = podUidOf(first)
  if (!pod || uid === undefined) return refused(ODD)
  if (slice !== undefined && pod[2] !== slice) return refused(ODD)
  return readContainer(rest, uid)
}

function readContainer(steps: readonly string[], podUid: string | undefined): Line {
  const [name = ''] = steps
  if (name === '') return refused(NO_CONTAINER)
  if (CONMON.test(name)) return refused('it is the monitor of a container, not the container')
  const match = CONTAINER.exec(name)
  const id = match?.[1] ?? match?.[2]
  return id === undefined ? refused(ODD) : found(podUid, id)
}

function found(podUid: string | undefined, containerId: string): Line {
  return { kind: 'container', podUid, containerId }
}

function podUidOf(step: string): string | undefined {
  const match = POD.exec(step) ?? POD_AND_CONTAINER.exec(step)
  const uid =
    match && [match[1], match[3], match[2]].find((part) => part !== undefined && UID_WHOLE.test(part))
  return uid === undefined || uid === null ? undefined : dashed(uid)
}

const UID_WHOLE = new RegExp(`^${UID}$`)

/** systemd's names have underscores where UIDs have dashes. */
function dashed(uid: string): string {
  return uid.replaceAll('_', '-')
}
