/** Attestation: from an accepted socket to a Workload, and from what changes afterwards to the end of its lease. */
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { Health } from '../telemetry/health.ts'
import { Accounts } from './accounts.ts'
import { Attested, type AttestedWorkload, type LeaseFilter } from './attested.ts'
import { containerOf } from './cgroup.ts'
import type { Container, Containers } from './containers.ts'
import type { PodExplained } from './explain-pod.ts'
import { Hasher, type HasherOptions } from './hash.ts'
import { type InstanceLimits, Instances, processKey } from './instances.ts'
import { type Kernel, systemKernel } from './kernel.ts'
import { type Owner, ownerOf, ownerOfUid } from './owner.ts'
import { type OpenPeer, openPeer, openProcess } from './peer.ts'
import { PodCgroups } from './pod-cgroup.ts'
import { systemdSelectors, unitOf } from './systemd.ts'
import { idSelectors, type OverflowIds, pathSelectors, readOverflowIds } from './unix.ts'

export type { AttestedWorkload, LeaseFilter } from './attested.ts'

/** What the agent sees of a process, for an operator. */
export interface Description {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** The instance key, `process:PID:START`. */
  readonly key: string
  readonly selectors: readonly Selector[]
  readonly entries: readonly Entry[]
  readonly notes: readonly string[]
}

export interface AttestationOptions {
  readonly clock: Clock
  readonly book: Live<RuleBook>
  readonly health: Health
  /** Refuse callers on kernels without SO_PEERPIDFD; default false. */
  readonly requirePidfd?: boolean
  readonly limits?: Partial<InstanceLimits>
  readonly hashing?: Pick<HasherOptions, 'deadline' | 'maxBytes'>
  readonly kernel?: Kernel
  /** Knows callers in pods; without it callers in containers have no selectors. */
  readonly pods?: PodsOptions | undefined
}

export interface PodsOptions {
  readonly containers: Containers
  /** The parent of kubepods, or `auto`. */
  readonly cgroupRoot: string
  /** Of the agent's own pod. */
  readonly podUid: string | undefined
}

/** What the caller is known by at accept. */
interface Selection {
  readonly selectors: readonly Selector[]
  readonly note: string | undefined
  readonly container?: Container
  /** While its container is looked up. */
  readonly known?: Promise<void> | undefined
  readonly refusal?: Fault
}

const NO_PATH =
  'unix:path is missing: the program cannot be read, or its name leads elsewhere in the mount namespace of the agent'

const NO_ATTESTOR = 'the caller is in a container, and no container attestor is configured'
const OF_NO_POD: Selection = {
  selectors: [],
  note: 'the caller is in a container of no pod of this node',
  refusal: new Fault('container_refused', 'the caller is in a container of no pod of this node'),
}

/** Attests callers and keeps their leases. */
export class Attestation {
  readonly #kernel: Kernel
  readonly #book: Live<RuleBook>
  readonly #health: Health
  readonly #requirePidfd: boolean
  readonly #accounts: Accounts
  readonly #hasher: Hasher
  readonly #instances: Instances
  readonly #overflow: OverflowIds = readOverflowIds()
  readonly #ownContainer: string | undefined
  readonly #pods: { readonly containers: Containers; readonly cgroups: PodCgroups } | undefined
  readonly #attested = new Set<Attested>()
  readonly #unwatch: () => void
  #isStopped = false

  constructor(options: AttestationOptions) {
    this.#kernel = options.kernel ?? systemKernel
    this.#book = options.book
    this.#health = options.health
    this.#requirePidfd = options.requirePidfd ?? false
    this.#accounts = new Accounts(options.clock)
    this.#hasher = new Hasher({ ...options.hashing, clock: options.clock, kernel: this.#kernel })
    const { pods } = options
    this.#instances = new Instances(options.clock, this.#kernel, options.limits, pods?.containers)
    const own = this.#kernel.readProcess(process.pid)?.cgroups ?? []
    this.#ownContainer = containerOf(own)
    if (pods) {
      const { containers, cgroupRoot: root, podUid } = pods
      this.#pods = { containers, cgroups: new PodCgroups({ own, root, podUid }) }
      containers.watch((container, ended) => this.#applyFacts(container, ended))
      containers.pods.watch((pod, ended) => {
        if (ended) this.#instances.endPlace(pod, ended)
        else this.#instances.applyPodFacts(pod, this.#book.get())
      })
    }
    this.#unwatch = options.book.watch((book) => this.#applyBook(book))
  }

  /** Open connections and live instances. */
  get counts(): { readonly connections: number; readonly instances: number } {
    return { connections: this.#attested.size, instances: this.#instances.count }
  }

  /**
   * The workload at the other end of the accepted unix socket `fd`; the caller closes it with the connection. Throws
   * peer_gone, peer_foreign, attestation_failed, too_many_connections, overloaded; draining after `stop`.
   */
  attest(fd: number): AttestedWorkload {
    if (this.#isStopped) throw new Fault('draining')
    const peer = openPeer(fd, {
      kernel: this.#kernel,
      requirePidfd: this.#requirePidfd,
      known: (pid) => this.#instances.knownProcess(pid),
      degraded: () => this.#reportMissingPidfd(),
    })
    const workload: Attested = this.#open(peer, () => this.#attested.delete(workload))
    this.#attested.add(workload)
    return workload
  }

  /**
   * Who answers for what the caller `pid` takes up, before it is attested; by where it is now, which is good enough to
   * count by.
   */
  ownerOf(pid: number, uid: number): Owner {
    if (!this.#pods) return ownerOfUid(uid)
    return ownerOf(uid, this.#pods.cgroups.place(this.#kernel.readCgroups(pid)))
  }

  /** What the process `pid` would be attested as; throws peer_gone or attestation_failed. */
  async describe(pid: number): Promise<Description> {
    const peer = openProcess(pid, this.#kernel)
    const workload = this.#open(peer, () => {})
    try {
      await workload.ready
      const { uid, gid } = peer
      const { selectors, notes } = workload
      return { pid, uid, gid, key: processKey(peer), selectors, notes, entries: workload.entries() }
    } finally {
      workload.close()
    }
  }

  /** What the containers of a pod of this node would be known by; throws pod_unknown, pod_facts_unavailable, not_found. */
  async explainPod(namespace: string, name: string): Promise<PodExplained> {
    if (this.#pods) return this.#pods.containers.explain(namespace, name)
    throw new Fault('not_found', 'no attestor of pods is configured', {
      action: 'Set kubernetes.attestor to auto, kubelet or pods_api.',
    })
  }

  /** Ends the matching leases at once: streams through their workloads, keys through their instances. */
  revoke(
    filter: LeaseFilter,
    fault = new Fault('revoked'),
  ): { readonly workloads: number; readonly leases: number } {
    const matching = [...this.#attested].filter((workload) => workload.matches(filter))
    const leases = this.#instances.revoke(filter, fault)
    for (const workload of matching) workload.end(fault)
    return { workloads: matching.length, leases }
  }

  /** Ends every lease and gives everything back to the kernel. */
  stop(fault = new Fault('draining')): void {
    this.#isStopped = true
    this.#unwatch()
    for (const workload of [...this.#attested]) workload.end(fault)
    this.#instances.stop(fault)
    this.#pods?.containers.stop()
    this.#hasher.stop()
  }

  #open(peer: OpenPeer, forget: () => void): Attested {
    const parts = {
      kernel: this.#kernel,
      book: this.#book,
      hasher: this.#hasher,
      instances: this.#instances,
    }
    const selection = { container: undefined, known: undefined, refusal: undefined, ...this.#select(peer) }
    const holder = parts.instances.openProcess(peer, selection.container)
    try {
      return new Attested({ ...parts, ...selection, peer, holder, forget })
    } catch (error) {
      parts.instances.release(holder)
      throw error
    }
  }

  #select(peer: OpenPeer): Selection {
    return (this.#pods && this.#selectPod(peer, this.#pods.cgroups)) ?? this.#selectHost(peer)
  }

  /** What a caller in a pod is known by; undefined when it is in none. */
  #selectPod(peer: OpenPeer, cgroups: PodCgroups): Selection | undefined {
    const place = cgroups.place(peer.cgroups)
    if (place.kind === 'own' || place.kind === 'outside') return undefined
    if (place.kind === 'container') {
      const found = this.#pods?.containers.find(place)
      const selectors = idSelectors(peer, this.#accounts, this.#overflow, 'numbers')
      return found && { selectors, note: undefined, container: found.container, known: found.ready }
    }
    const refusal = new Fault('container_refused', `the caller has no pod: ${place.why}`)
    return { selectors: [], note: refusal.message, refusal }
  }

  #selectHost(peer: OpenPeer): Selection {
    const container = containerOf(peer.cgroups)
    // In a container uids and paths are the container's own; without an attestor that knows it, they say nothing.
    if (peer.namespacePids.length !== 1 || (container !== undefined && container !== this.#ownContainer))
      return this.#pods ? OF_NO_POD : { selectors: [], note: NO_ATTESTOR }
    const ids = idSelectors(peer, this.#accounts, this.#overflow)
    if (ids.length === 0)
      return { selectors: [], note: `uid ${peer.uid} is the overflow uid: the caller may be anyone` }
    const paths = pathSelectors(peer, this.#kernel)
    const selectors = [...ids, ...paths, ...systemdSelectors(unitOf(peer.cgroups))]
    return { selectors, note: paths.length > 0 ? undefined : NO_PATH }
  }

  #applyBook(book: RuleBook): void {
    this.#instances.applyBook(book)
    for (const workload of [...this.#attested]) workload.applyBook()
  }

  /** A container that is over ends what hangs on it; one that has changed gives its callers other entries. */
  #applyFacts(container: Container, ended: Fault | undefined): void {
    if (ended) {
      this.#instances.endPlace(container, ended)
      return
    }
    this.#instances.applyFacts(container, this.#book.get())
    for (const workload of [...this.#attested]) workload.applyFacts(container)
  }

  #reportMissingPidfd(): void {
    this.#health.degrade({
      code: 'pidfd_missing',
      message: 'callers are attested without SO_PEERPIDFD: the kernel is older than 6.5',
      action: 'Run Linux 6.5 or newer; kernel.require_pidfd: true refuses callers until then.',
    })
  }
}
