/** One connection's workload: the peer, what it may be by the current policy, and the lease that ends with either. */
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import { entryOf } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { makeSelector, type Selector } from '../spiffe/selector.ts'
import type { Container } from './containers.ts'
import { type Hasher, mayChange, type ProgramHash } from './hash.ts'
import type { HashFailure } from './hash-worker.ts'
import { type Holder, type Instances, makeController } from './instances.ts'
import type { Kernel } from './kernel.ts'
import { ownerOfUid } from './owner.ts'
import { checkProgram, type OpenPeer } from './peer.ts'
import { unitOf } from './systemd.ts'
import type { Instance, Peer, Workload } from './workload.ts'

/** A Workload as its door holds it: until the connection closes. */
export interface AttestedWorkload extends Workload {
  /** While a selector is still being read (`unix:sha256`): await it, then ask `entries()`. Never rejects. */
  readonly ready: Promise<void> | undefined
  /** Why selectors are missing, in sentences for `explain`. */
  readonly notes: readonly string[]
  /** Aborts when this workload loses the SPIFFE ID of `entry`, or ends; throws lease_ended when it has lost it. */
  entrySignal(entry: Entry): AbortSignal
  /** The connection has closed: the lease ends, keys of a living process stay. */
  close(): void
}

/** Whose leases to end; absent members match all. */
export interface LeaseFilter {
  readonly spiffeId?: string
  readonly pid?: number
  /** An instance key, `process:PID:START`. */
  readonly process?: string
}

/** What a caller is made of. */
export interface AttestedParts {
  readonly peer: OpenPeer
  readonly holder: Holder
  readonly selectors: readonly Selector[]
  readonly note: string | undefined
  /** The container of the caller; its selectors come with it. */
  readonly container: Container | undefined
  /** While that container is looked up. */
  readonly known: Promise<void> | undefined
  /** Why there are no selectors, for calls that want an identity all the same. */
  readonly refusal: Fault | undefined
  readonly kernel: Kernel
  readonly book: Live<RuleBook>
  readonly hasher: Hasher
  readonly instances: Instances
  /** Called once, when the lease has ended. */
  readonly forget: () => void
}

const NONE: readonly Entry[] = []
// Made once: a Fault a closed connection costs more than the rest of its end.
const CLOSED = new Fault('lease_ended', 'the connection has closed')

const FAILURES: Readonly<Record<HashFailure, string>> = {
  too_large: 'unix:sha256 is missing: the program is larger than the agent hashes',
  file_system: 'unix:sha256 is missing: the program is not on a local file system',
  changed: 'unix:sha256 is missing: the program was changed while it was read',
  unreadable: 'unix:sha256 is missing: the program cannot be read',
  deadline: 'unix:sha256 is missing: the program could not be hashed in time',
}

/** See AttestedWorkload. States: open, with or without a hash under way; ended, which is for good. */
export class Attested implements AttestedWorkload {
  readonly peer: Peer
  readonly #parts: AttestedParts
  readonly #controller = makeController()
  readonly #watchers = new Set<(entries: readonly Entry[]) => void>()
  readonly #entryControllers = new Map<SpiffeId, AbortController>()
  readonly #held = new Map<Entry, Instance>()
  readonly #end = (fault: Fault) => this.end(fault)
  #selectors: ReadonlySet<Selector>
  #book: RuleBook | undefined
  #entries = NONE
  #hash: ProgramHash | 'pending' | undefined
  #known: Promise<void> | undefined
  #hashed: Promise<void> | undefined

  constructor(parts: AttestedParts) {
    this.#parts = parts
    this.#selectors = this.#combined()
    if (parts.known) this.#known = this.#whenKnown(parts.known)
    const { pid, uid, gid, groups } = parts.peer
    this.peer = { pid, uid, gid, groups, process: parts.holder.instance, check: () => this.#check() }
    parts.holder.callers.add(this.#end)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get selectors(): readonly Selector[] {
    return [...this.#selectors]
  }

  get notes(): readonly string[] {
    const { container } = this.#parts
    const fault = container?.fault
    const note = fault ? `the pod of the caller gives no selectors: ${fault.message}` : this.#parts.note
    const hash =
      typeof this.#hash === 'object' && 'failure' in this.#hash ? [FAILURES[this.#hash.failure]] : []
    const misfits = this.#parts.book.get().misfits(this.#selectors)
    return [...(note === undefined ? [] : [note]), ...hash, ...misfits]
  }

  get isEarly(): boolean {
    return this.#parts.book.get().isPartial
  }

  get ready(): Promise<void> | undefined {
    this.entries()
    return this.#known ?? this.#hashed
  }

  entries(): readonly Entry[] {
    if (this.signal.aborted) return NONE
    const book = this.#parts.book.get()
    if (book === this.#book) return this.#entries
    this.#readHash(book)
    this.#book = book
    this.#held.clear()
    this.#entries = [...book.entriesFor(this.#selectors)]
    return this.#entries
  }

  instanceOf(entry: Entry): Instance {
    const current = this.#currentEntry(entry)
    const held = this.#held.get(current)
    if (held && !held.signal.aborted) return held
    const { instances } = this.#parts
    const instance = instances.lease(this.#holderFor(current), current, this.#selectors)
    this.#held.set(current, instance)
    return instance
  }

  entrySignal(entry: Entry): AbortSignal {
    const { spiffeId } = this.#currentEntry(entry)
    const known = this.#entryControllers.get(spiffeId)
    if (known) return known.signal
    const controller = makeController()
    this.#entryControllers.set(spiffeId, controller)
    return controller.signal
  }

  watchEntries(watcher: (entries: readonly Entry[]) => void): () => void {
    this.#watchers.add(watcher)
    return () => {
      this.#watchers.delete(watcher)
    }
  }

  close(): void {
    this.end(CLOSED)
  }

  /** The rule book has changed: what it takes away ends, and whoever watches hears of the rest. */
  applyBook(): void {
    const entries = this.entries()
    for (const [id, controller] of [...this.#entryControllers]) {
      if (entryOf(entries, id)) continue
      this.#entryControllers.delete(id)
      controller.abort(new Fault('lease_ended', 'the entry was changed or withdrawn'))
    }
    for (const watcher of [...this.#watchers]) watcher(entries)
  }

  /** The kubelet says something new of the container. */
  applyFacts(container: Container): void {
    if (container !== this.#parts.container) return
    this.#selectors = this.#combined()
    this.#book = undefined
    if (!this.signal.aborted) this.applyBook()
  }

  matches(filter: LeaseFilter): boolean {
    const { pid, process } = this.peer
    return (
      (filter.pid === undefined || filter.pid === pid) &&
      (filter.process === undefined || filter.process === process.key) &&
      (filter.spiffeId === undefined || this.entries().some((entry) => entry.spiffeId === filter.spiffeId))
    )
  }

  /** Ends the lease with `fault` as the reason of every signal; the first reason counts. */
  end(fault: Fault): void {
    if (this.signal.aborted) return
    const { holder, instances, forget } = this.#parts
    holder.callers.delete(this.#end)
    forget()
    this.#controller.abort(fault)
    for (const controller of this.#entryControllers.values()) controller.abort(fault)
    this.#entryControllers.clear()
    this.#watchers.clear()
    this.#held.clear()
    instances.release(holder)
  }

  #check(): void {
    if (this.signal.aborted) throw Fault.from(this.signal.reason, 'lease_ended')
    const { holder, instances, kernel, peer } = this.#parts
    if (!holder.process || !kernel.isPidfdAlive(holder.process.pidfd)) {
      const fault = new Fault('peer_gone')
      instances.end(holder, fault)
      throw fault
    }
    const refusal = this.#parts.container?.fault ?? this.#parts.refusal
    if (refusal) throw refusal
    try {
      checkProgram(peer.pid, peer.program, kernel)
    } catch (error) {
      const fault = Fault.from(error, 'attestation_failed')
      this.end(fault)
      throw fault
    }
    this.#hashAgain()
  }

  /** A program that could not be hashed for now is tried again: clients keep their connections. */
  #hashAgain(): void {
    if (!this.#parts.peer.program || typeof this.#hash !== 'object' || !mayChange(this.#hash)) return
    this.#hash = undefined
    this.#book = undefined
  }

  /** The caller's entry of the same SPIFFE ID by today's policy. */
  #currentEntry(entry: Entry): Entry {
    if (this.signal.aborted) throw Fault.from(this.signal.reason, 'lease_ended')
    const current = entryOf(this.entries(), entry.spiffeId)
    if (!current) throw new Fault('lease_ended', 'the entry was changed or withdrawn')
    return current
  }

  #holderFor(entry: Entry): Holder {
    const { holder, instances, kernel, peer } = this.#parts
    if (entry.instance === 'process') return holder
    if (entry.instance === 'identity') return instances.openIdentity()
    if (entry.instance !== 'unit') {
      const { container } = this.#parts
      if (container && entry.instance === 'pod') return instances.openPod(container)
      if (container) return instances.openContainer(container)
      throw new Fault(
        'attestation_failed',
        `entry ${entry.name} wants a ${entry.instance} and the caller is in none`,
      )
    }
    // Where the process is now: a unit that it has left may have begun a new run since.
    const unit = unitOf(kernel.readProcess(peer.pid)?.cgroups ?? [])
    if (!unit || unit.name !== unitOf(peer.cgroups)?.name)
      throw new Fault(
        'attestation_failed',
        `entry ${entry.name} wants a systemd unit and the caller is in none`,
      )
    return instances.openUnit(unit)
  }

  /** Those of the kernel, that of the program, and those of the pod once it is known; none of a pod that is not. */
  #combined(): ReadonlySet<Selector> {
    const { container, selectors } = this.#parts
    if (container?.fault) return new Set()
    const hash = typeof this.#hash === 'object' && 'sha256' in this.#hash ? [this.#hash.sha256] : []
    const hashes = hash.map((sha256) => makeSelector('unix:sha256', sha256))
    return new Set([...selectors, ...(container?.selectors ?? []), ...hashes])
  }

  async #whenKnown(ready: Promise<void>): Promise<void> {
    await ready
    this.#known = undefined
    // A program is hashed once there is a selector to go with it.
    await this.ready
  }

  /** Begins to hash the program when `book` has an entry that nothing else is missing for. */
  #readHash(book: RuleBook): void {
    const { hasher, holder, peer } = this.#parts
    if (this.#hash !== undefined || !book.wantsSelector('unix:sha256', this.#selectors)) return
    const owner = holder.process?.owner ?? ownerOfUid(peer.uid)
    const hash = peer.program
      ? hasher.hash(peer.pid, peer.program, owner)
      : { failure: 'unreadable' as const }
    if (!(hash instanceof Promise)) {
      this.#takeHash(hash)
      return
    }
    this.#hash = 'pending'
    this.#hashed = hash.then((result) => {
      this.#hashed = undefined
      this.#takeHash(result)
      this.#book = undefined
      if (!this.signal.aborted) this.applyBook()
    })
  }

  #takeHash(hash: ProgramHash): void {
    this.#hash = hash
    this.#selectors = this.#combined()
  }
}
