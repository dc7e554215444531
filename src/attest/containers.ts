/**
 * The containers that callers are in, each with what the kubelet says of it: looked up when a caller comes, followed
 * while anything hangs on it, and ended when a list says that it is gone.
 */
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Selector } from '../spiffe/selector.ts'
import { explainPod, type PodExplained } from './explain-pod.ts'
import { type Kernel, systemKernel } from './kernel.ts'
import { LiveContainers } from './live-containers.ts'
import { Outage, type OutageTold } from './outage.ts'
import { type ContainerPlace, type PodAnswer, type PodFacts, type PodRules, podFacts } from './pod-facts.ts'
import { type Followed, follow, unanswered } from './pod-followed.ts'
import type { PodList } from './pod-list.ts'
import type { Listed, PodSource, PodsAnswer } from './pod-source.ts'
import { PodWaits } from './pod-waits.ts'
import { Unlisted } from './unlisted.ts'
import { podKey, type WholePod, WholePods } from './whole-pods.ts'

/** A container; one object for all of its callers. */
export interface Container {
  /** The instance key, `container:ID`: a restarted container has another ID. */
  readonly key: string
  readonly place: ContainerPlace
  /** `pod:UID`; undefined until its pod is known. */
  readonly podKey: string | undefined
  /** Empty until its pod is known. */
  readonly selectors: readonly Selector[]
  /** Why it has none. */
  readonly fault: Fault | undefined
}

/** A container as one caller finds it. */
export interface FoundContainer {
  readonly container: Container
  /** While the kubelet is asked on behalf of this caller: await it. Never rejects. */
  readonly ready: Promise<void> | undefined
}

export interface ContainersOptions {
  readonly kubelet: PodSource
  readonly clock: Clock
  readonly rules: PodRules
  readonly maxAge: Millis
  readonly outageAge: Millis
  readonly kernel?: Pick<Kernel, 'pids' | 'readCgroups'>
  /** Hears when identities begin to rest on facts older than `maxAge`, and when that is over. */
  readonly onOutage?: (told: OutageTold) => void
}

/** What changes of a container: its selectors, or, with a Fault, that it is over. */
export type ContainerWatcher = (container: Container, ended: Fault | undefined) => void

/** How long a caller waits for the status of its container to be written. */
const WAIT_LIMIT: Millis = 5_000
/** How long a kubelet that has just started may know no states of the containers of a pod that it lists. */
const SILENCE_LIMIT: Millis = 60_000
const UNASKED = new Fault('pod_facts_unavailable', 'the kubelet has not been asked yet')

class Known implements Container, Followed {
  readonly key: string
  readonly place: ContainerPlace
  podUid: string | undefined
  selectors: readonly Selector[] = []
  fault: Fault | undefined = UNASKED
  seen: Millis = -Infinity
  list: PodList | undefined
  users = 0
  /** When its first caller came: no list from before says what it may be. */
  readonly came: Millis
  wasListed = false

  constructor(place: ContainerPlace, came: Millis) {
    this.place = place
    this.came = came
    this.key = `container:${place.containerId}`
  }

  get podKey(): string | undefined {
    return this.podUid === undefined ? undefined : podKey(this.podUid)
  }
}

/** All containers that anything hangs on. */
export class Containers {
  readonly #options: ContainersOptions
  readonly pods: WholePods
  readonly #known = new Map<string, Known>()
  readonly #waits: PodWaits
  readonly #live: LiveContainers
  readonly #unlisted = new Unlisted()
  readonly #outage: Outage
  #watcher: ContainerWatcher = () => {}

  constructor(options: ContainersOptions) {
    this.#options = options
    this.#outage = new Outage(options.maxAge, options.onOutage ?? (() => {}))
    this.pods = new WholePods(options)
    this.#waits = new PodWaits(options.kubelet, options.clock)
    this.#live = new LiveContainers(options.kernel ?? systemKernel, options.clock)
    options.kubelet.watch((answer) => {
      this.#look()
      this.pods.look()
      this.#waits.take(answer)
    })
  }

  watch(watcher: ContainerWatcher): void {
    this.#watcher = watcher
  }

  /** The container at `place`; the caller holds it by `retain`. Facts that are too old are read anew (`ready`). */
  find(place: ContainerPlace): FoundContainer {
    const there = this.#known.get(place.containerId)
    const known = there?.place.podUid === place.podUid ? there : undefined
    const came = this.#options.clock.monotonic()
    const container = known ?? new Known(place, came)
    if (this.#isFresh(container)) return { container, ready: undefined }
    return { container, ready: this.#waits.until((answer) => this.#hear(container, came, answer)) }
  }

  retain(container: Container): void {
    const known = container as Known
    known.users += 1
    this.#known.set(known.place.containerId, known)
    this.#need()
  }

  /** The pod around `container`; given back by `releasePod`. Throws why it is not known. */
  holdPod(container: Container): WholePod {
    const { podUid, seen, fault } = container as Known
    if (podUid === undefined || fault) throw fault ?? UNASKED
    const pod = this.pods.hold(podUid, seen)
    this.#need()
    return pod
  }

  releasePod(pod: WholePod): void {
    this.pods.release(pod)
    this.#need()
  }

  release(container: Container): void {
    const known = container as Known
    known.users -= 1
    if (known.users > 0) return
    this.#forget(known)
  }

  /** Each container of a pod, as the kubelet has it now; throws pod_unknown, pod_facts_unavailable. */
  async explain(namespace: string, name: string): Promise<PodExplained> {
    const { clock, kubelet, rules } = this.#options
    const { list } = await kubelet.since(clock.monotonic())
    return explainPod(list, { namespace, name }, rules, (id) => this.#live.has(id))
  }

  stop(): void {
    this.#known.clear()
    this.#waits.stop()
    this.pods.stop()
    this.#options.kubelet.stop()
  }

  #forget(known: Known): void {
    if (this.#known.get(known.place.containerId) === known) this.#known.delete(known.place.containerId)
    this.#need()
  }

  #need(): void {
    this.#options.kubelet.need(this.#known.size + this.pods.count > 0)
  }

  #isFresh(known: Known): boolean {
    const { clock, kubelet, maxAge, outageAge } = this.#options
    if (known.fault) return false
    return clock.monotonic() - known.seen <= (kubelet.isDown ? outageAge : maxAge)
  }

  /** Whether `answer` settles who a caller is that came at `came`: what denies it is never from before. */
  #hear(known: Known, came: Millis, answer: PodsAnswer): boolean {
    if ('fault' in answer) {
      if (answer.asked < came) return false
      if (!this.#isFresh(known)) this.#refuse(known, answer.fault)
      return true
    }
    const mayCome = known.list !== answer.list && this.#take(known, answer)
    if (!known.fault) return true
    const isOver = this.#options.clock.monotonic() >= came + WAIT_LIMIT
    return answer.asked >= came && (!mayCome || isOver)
  }

  /** What `listed` says of it; whether a later list may say otherwise. */
  #take(known: Known, listed: Listed): boolean {
    const rules = this.#rulesFor(known, listed)
    // Who has started anew since the last look would be taken for the one that is awaited.
    const since = rules.unlisted === 'awaited' ? known.came : undefined
    const isAlive = (id: string) => this.#live.has(id, since)
    const answer = podFacts(listed.list, known.place, rules, isAlive)
    if ('facts' in answer) {
      this.#accept(known, answer.facts, listed)
      return false
    }
    if (known.fault) known.fault = answer.fault
    else if (this.#isBelieved(known, answer)) return false
    else this.#end(known, new Fault('lease_ended', `it is over: ${answer.fault.message}`), answer.fault)
    return answer.mayCome
  }

  /** Those of the agent, unless `known` has to be listed as running. */
  #rulesFor({ came, place }: Known, { asked }: Listed): PodRules {
    const { clock, rules } = this.#options
    const may = asked >= came && this.#unlisted.mayCount(place.containerId, clock.monotonic())
    return may ? rules : { ...rules, unlisted: 'refuse' }
  }

  #accept(known: Known, facts: PodFacts, { list, asked }: Listed): void {
    const isNew = known.fault !== undefined || !isSame(known.selectors, facts.selectors)
    const { clock, rules } = this.#options
    known.wasListed ||= facts.isListed
    if (rules.unlisted === 'awaited')
      this.#unlisted.note(known.place.containerId, facts.isListed, clock.monotonic())
    known.podUid = facts.podUid
    known.selectors = facts.selectors
    known.fault = undefined
    known.seen = asked
    // One that is not listed is looked at with each answer: its time ends though nothing changes.
    known.list = facts.isListed ? list : undefined
    if (isNew) this.#watcher(known, undefined)
  }

  /** Whether a container goes on although a newer list does not name it: a kubelet that has just started may know no states yet. */
  #isBelieved(known: Known, answer: Extract<PodAnswer, { readonly fault: Fault }>): boolean {
    const { clock, outageAge } = this.#options
    if (!known.wasListed) return false
    return answer.isSilent === true && clock.monotonic() - known.seen <= Math.min(SILENCE_LIMIT, outageAge)
  }

  #refuse(known: Known, fault: Fault): void {
    if (known.fault) known.fault = fault
    else this.#end(known, fault, fault)
  }

  #end(known: Known, fault: Fault, after: Fault): void {
    known.selectors = []
    known.fault = after
    known.list = undefined
    this.#forget(known)
    this.#watcher(known, fault)
  }

  #look(): void {
    const { clock, kubelet, outageAge } = this.#options
    const now = clock.monotonic()
    follow(this.#known.values(), {
      kubelet,
      now,
      outageAge,
      take: (known, listed) => this.#take(known, listed),
      lose: (known) => {
        if (!known.fault) this.#refuse(known, unanswered())
      },
    })
    const believed = [...this.#known.values()].filter(({ fault }) => !fault)
    this.#outage.look(
      kubelet.isDown,
      believed.map(({ seen }) => now - seen),
    )
  }
}

function isSame(one: readonly Selector[], other: readonly Selector[]): boolean {
  return one.length === other.length && one.every((selector, index) => selector === other[index])
}
