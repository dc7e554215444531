/**
 * Instances: what keys hang on. A process, its systemd unit, container or pod, or the identity on this node; each lives while something
 * uses it and ends for good with what it stands for, connections or not. One timer asks the kernel for all of them.
 */
import { setMaxListeners } from 'node:events'
import type { Clock, Millis } from '../base/clock.ts'
import { Counts } from '../base/counts.ts'
import { Fault } from '../base/fault.ts'
import { descriptorLimit } from '../base/native.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { LeaseFilter } from './attested.ts'
import type { Container, Containers } from './containers.ts'
import type { Kernel } from './kernel.ts'
import { type Owner, ownerOfPlace, ownerOfUid } from './owner.ts'
import type { OpenPeer } from './peer.ts'
import { openUnit, type Unit, type UnitRun } from './systemd.ts'
import type { WholePod } from './whole-pods.ts'
import type { Instance } from './workload.ts'

/** One entry's hold on an instance: ends with the instance, and earlier when the entry goes. */
interface Lease {
  readonly entry: Entry
  /** The selectors of the caller that asked last; the entry must go on matching them. */
  selectors: ReadonlySet<Selector>
  readonly controller: AbortController
  readonly instance: Instance
}

/** An instance and what hangs on it. */
export interface Holder {
  readonly instance: Instance
  readonly controller: AbortController
  /** Each connection's way to hear that the process has ended. */
  readonly callers: Set<(fault: Fault) => void>
  readonly leases: Map<string, Lease>
  /** A process has a pidfd and an owner, a unit its run, the identity neither. */
  readonly process?: { readonly pidfd: number; readonly owner: Owner; readonly peer: OpenPeer }
  readonly run?: UnitRun
  /** What a process or a container ends with. */
  readonly container?: Container | undefined
  readonly pod?: WholePod
}

export interface InstanceLimits {
  /** Processes known at once, of all callers. */
  readonly processes: number
  /** Of one uid, or of one pod. */
  readonly processesPerOwner: number
}

// Made once: most instances end like this.
const UNUSED = new Fault('lease_ended')
const LOOK_EVERY: Millis = 250
const PROCESSES_LIMIT = 32_768

/** Each process costs a descriptor: half of them are for the rest of the agent, and no owner has more than a quarter of the others. */
export function limitsBy(descriptors: number): InstanceLimits {
  const processes = Math.min(PROCESSES_LIMIT, Math.floor(descriptors / 2))
  return { processes, processesPerOwner: Math.floor(processes / 4) }
}

/** A controller whose signal thousands may listen to. */
export function makeController(): AbortController {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)
  return controller
}

/** All instances of the agent. */
export class Instances {
  readonly #clock: Clock
  readonly #kernel: Kernel
  readonly #limits: InstanceLimits
  readonly #containers: Containers | undefined
  readonly #holders = new Map<string, Holder>()
  readonly #processesOf = new Counts<Owner>()
  readonly #byPid = new Map<number, Holder>()
  #processes = 0
  #isArmed = false
  #cancel = () => {}

  constructor(
    clock: Clock,
    kernel: Kernel,
    limits: Partial<InstanceLimits> = {},
    containers?: Containers | undefined,
  ) {
    this.#containers = containers
    this.#clock = clock
    this.#kernel = kernel
    this.#limits = { ...limitsBy(descriptorLimit()), ...limits }
  }

  get count(): number {
    return this.#holders.size
  }

  /** What was proved of `pid`, if it is a process that something here hangs on and that lives. */
  knownProcess(pid: number): OpenPeer | undefined {
    const known = this.#byPid.get(pid)?.process
    return known && this.#kernel.isPidfdAlive(known.pidfd) ? known.peer : undefined
  }

  /** The peer's process. Owns `peer.pidfd` from here on; throws overloaded or too_many_connections at its limits. */
  openProcess(peer: OpenPeer, container?: Container | undefined): Holder {
    const key = processKey(peer)
    const known = this.#holders.get(key)
    // While the known pidfd lives, its pid is nobody else's.
    const isKnown = known?.process && this.#kernel.isPidfdAlive(known.process.pidfd)
    if (isKnown && known.container === container) {
      this.#kernel.closeFd(peer.pidfd)
      return known
    }
    if (known) this.end(known, new Fault('peer_gone'))
    const owner = container ? ownerOfPlace(container.place) : ownerOfUid(peer.uid)
    try {
      this.#makeRoom(owner)
    } catch (error) {
      this.#kernel.closeFd(peer.pidfd)
      throw error
    }
    this.#processes += 1
    this.#processesOf.add(owner, 1)
    const holder = this.#hold(key, {
      process: { pidfd: peer.pidfd, owner, peer },
      container,
    })
    this.#byPid.set(peer.pid, holder)
    return holder
  }

  /** The current run of `unit`; throws attestation_failed when its cgroup cannot be seen. */
  openUnit(unit: Unit): Holder {
    const run = openUnit(unit, this.#kernel)
    if (!run || run.hasEnded())
      throw new Fault('attestation_failed', `the cgroup of ${unit.name} cannot be seen`)
    const key = `unit:${unit.name}:${run.invocation}`
    return this.#holders.get(key) ?? this.#hold(key, { run })
  }

  /** The container; throws attestation_failed while the kubelet has not named it. */
  openContainer(container: Container): Holder {
    if (container.fault || container.podKey === undefined)
      throw container.fault ?? new Fault('attestation_failed')
    const name = `${container.key}@${container.podKey}`
    return this.#holders.get(name) ?? this.#hold(name, { container })
  }

  /** The pod around the container, for all of its containers; throws attestation_failed while the kubelet has not named it. */
  openPod(container: Container): Holder {
    const pod = this.#containers?.holdPod(container)
    if (!pod) throw new Fault('attestation_failed')
    return this.#holders.get(pod.key) ?? this.#hold(pod.key, { pod })
  }

  /** The facts of `container` have changed: leases whose entry they do not give any more end. */
  applyFacts(container: Container, book: RuleBook): void {
    const fault = new Fault('lease_ended', 'the facts of the pod have changed')
    for (const holder of [...this.#holders.values()]) {
      if (holder.container !== container) continue
      for (const lease of holder.leases.values())
        lease.selectors = withFacts(lease.selectors, container.selectors)
      this.#endLeases(holder, (lease) => !isGiven(book, lease), fault)
    }
  }

  /** The facts of `pod` have changed: leases whose entry they give to none of its containers any more end. */
  applyPodFacts(pod: WholePod, book: RuleBook): void {
    const holder = this.#holders.get(pod.key)
    if (holder?.pod !== pod) return
    const isOver = (lease: Lease) =>
      !pod.containers.some((facts) =>
        isGiven(book, { ...lease, selectors: withFacts(lease.selectors, facts) }),
      )
    this.#endLeases(holder, isOver, new Fault('lease_ended', 'the facts of the pod have changed'))
  }

  /** The container or the pod is over: so is everything that hangs on it. */
  endPlace(place: Container | WholePod, fault: Fault): void {
    for (const holder of [...this.#holders.values()])
      if (holder.container === place || holder.pod === place) this.end(holder, fault)
  }

  /** The identity on this node: ends with the agent. */
  openIdentity(): Holder {
    return this.#holders.get('identity') ?? this.#hold('identity', {})
  }

  /** `holder` for `entry` alone: its signal aborts when either ends. Keys hang on this, so it keeps the holder. */
  lease(holder: Holder, entry: Entry, selectors: ReadonlySet<Selector>): Instance {
    const known = holder.leases.get(entry.spiffeId)
    if (known) {
      known.selectors = selectors
      return known.instance
    }
    const controller = makeController()
    const instance = { key: holder.instance.key, signal: controller.signal }
    holder.leases.set(entry.spiffeId, { entry, selectors, controller, instance })
    return instance
  }

  /** Forgets `holder` when no connection and no lease needs it; whatever else listens to it ends with it. */
  release(holder: Holder): void {
    if (holder.callers.size === 0 && holder.leases.size === 0) this.end(holder, UNUSED)
  }

  /** Ends an instance and everything that hangs on it. */
  end(holder: Holder, fault: Fault): void {
    const { key } = holder.instance
    if (this.#holders.get(key) !== holder) return
    this.#holders.delete(key)
    if (holder.container) this.#containers?.release(holder.container)
    if (holder.pod) this.#containers?.releasePod(holder.pod)
    if (holder.process) this.#forgetProcess(holder.process)
    if (holder.process && this.#byPid.get(holder.process.peer.pid) === holder)
      this.#byPid.delete(holder.process.peer.pid)
    for (const lease of holder.leases.values()) lease.controller.abort(fault)
    holder.leases.clear()
    holder.controller.abort(fault)
    for (const tell of [...holder.callers]) tell(fault)
  }

  /** Ends the processes and leases that `filter` names; how many leases. A whole process ends with all it holds. */
  revoke(filter: LeaseFilter, fault: Fault): number {
    let count = 0
    for (const holder of [...this.#holders.values()]) {
      if (!isProcessOf(filter, holder)) continue
      if (filter.spiffeId === undefined) {
        count += holder.leases.size
        this.end(holder, fault)
      } else count += this.#endLeases(holder, (lease) => lease.entry.spiffeId === filter.spiffeId, fault)
    }
    return count
  }

  /** Ends the leases whose entry the new book does not give any more. */
  applyBook(book: RuleBook): void {
    const fault = new Fault('lease_ended', 'the entry was changed or withdrawn')
    for (const holder of [...this.#holders.values()])
      this.#endLeases(holder, (lease) => !isGiven(book, lease), fault)
  }

  #endLeases(holder: Holder, isOver: (lease: Lease) => boolean, fault: Fault): number {
    const over = [...holder.leases].filter(([, lease]) => isOver(lease))
    for (const [id, lease] of over) {
      holder.leases.delete(id)
      lease.controller.abort(fault)
    }
    this.release(holder)
    return over.length
  }

  stop(fault: Fault): void {
    for (const holder of [...this.#holders.values()]) this.end(holder, fault)
    this.#cancel()
    this.#isArmed = false
  }

  #hold(key: string, rest: Pick<Holder, 'process' | 'run' | 'container' | 'pod'>): Holder {
    const controller = makeController()
    const instance = { key, signal: controller.signal }
    const holder = {
      instance,
      controller,
      callers: new Set<(fault: Fault) => void>(),
      leases: new Map(),
      ...rest,
    }
    this.#holders.set(key, holder)
    if (holder.container) this.#containers?.retain(holder.container)
    this.#arm()
    return holder
  }

  #forgetProcess({ pidfd, owner }: { readonly pidfd: number; readonly owner: Owner }): void {
    this.#kernel.closeFd(pidfd)
    this.#processes -= 1
    this.#processesOf.add(owner, -1)
  }

  #makeRoom(owner: Owner): void {
    if (!this.#isFull(owner)) return
    this.#endFinished()
    if (this.#processes >= this.#limits.processes)
      throw new Fault('overloaded', `${this.#processes} processes hold identities`)
    if (this.#isFull(owner))
      throw new Fault(
        'too_many_connections',
        `${this.#processesOf.of(owner)} processes of ${owner} hold identities`,
      )
  }

  #isFull(owner: Owner): boolean {
    const { processes, processesPerOwner } = this.#limits
    return this.#processes >= processes || this.#processesOf.of(owner) >= processesPerOwner
  }

  #arm(): void {
    if (this.#isArmed) return
    this.#isArmed = true
    this.#cancel = this.#clock.after(LOOK_EVERY, () => {
      this.#isArmed = false
      this.#endFinished()
      if (this.#holders.size > 0) this.#arm()
    })
  }

  #endFinished(): void {
    const holders = [...this.#holders.values()]
    const processes = holders.flatMap((holder) => (holder.process ? [{ holder, ...holder.process }] : []))
    const ended = this.#kernel.endedPidfds(processes.map(({ pidfd }) => pidfd))
    const gone = ended.flatMap((index) => processes[index]?.holder ?? [])
    const fault = new Fault('peer_gone')
    for (const holder of gone) this.end(holder, fault)
    for (const holder of holders) {
      if (holder.run?.hasEnded())
        this.end(holder, new Fault('lease_ended', `${holder.run.unit.name} has ended`))
    }
  }
}

/** Names a process on this machine since boot. */
export function processKey(process: { readonly pid: number; readonly startTime: string }): string {
  return `process:${process.pid}:${process.startTime}`
}

/** Whether a filter by process means this instance; one without means all. */
function isProcessOf(filter: LeaseFilter, holder: Holder): boolean {
  const { key } = holder.instance
  const isOfPid = filter.pid === undefined || key.startsWith(`process:${filter.pid}:`)
  return isOfPid && (filter.process === undefined || filter.process === key)
}

/** What a caller is known by, with what the kubelet says now. */
function withFacts(selectors: ReadonlySet<Selector>, facts: readonly Selector[]): ReadonlySet<Selector> {
  return new Set([...[...selectors].filter((selector) => !selector.startsWith('k8s:')), ...facts])
}

function isGiven(book: RuleBook, lease: Lease): boolean {
  const { spiffeId, instance } = lease.entry
  const isSame = (entry: Entry) => entry.spiffeId === spiffeId && entry.instance === instance
  return (
    (instance === 'identity' && book.entries.some(isSame)) || book.entriesFor(lease.selectors).some(isSame)
  )
}
