/**
 * The containers that callers are in, each with what the kubelet says of it: looked up when a caller comes, followed
 * while anything hangs on it, and ended when a list says that it is gone.
 */
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Selector } from '../spiffe/selector.ts'
import { explainPod, type PodExplained } from './explain-pod.ts'
import { Outage, type OutageTold } from './outage.ts'
import { type ContainerPlace, type PodAnswer, type PodFacts, type PodRules, podFacts } from './pod-facts.ts'
import type { PodList } from './pod-list.ts'
import type { Listed, PodSource } from './pod-source.ts'
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
  /** While the kubelet is asked: await it. Never rejects. */
  readonly ready: Promise<void> | undefined
}

export interface ContainersOptions {
  readonly kubelet: PodSource
  readonly clock: Clock
  readonly rules: PodRules
  readonly maxAge: Millis
  readonly outageAge: Millis
  /** Hears when identities begin to rest on facts older than `maxAge`, and when that is over. */
  readonly onOutage?: (told: OutageTold) => void
}

/** What changes of a container: its selectors, or, with a Fault, that it is over. */
export type ContainerWatcher = (container: Container, ended: Fault | undefined) => void

/** How long it waits for the next list: the status of most is written within the first tenths of a second. */
const FIRST_RETRY: Millis = 50
const RETRY_EVERY: Millis = 250
/** How long the status of a container that runs may take to be written. */
const RETRY_LIMIT: Millis = 5_000
/** How long a kubelet that has just started may know no states of the containers of a pod that it lists. */
const SILENCE_LIMIT: Millis = 60_000
const UNASKED = new Fault('pod_facts_unavailable', 'the kubelet has not been asked yet')

class Known implements Container {
  readonly key: string
  readonly place: ContainerPlace
  podUid: string | undefined
  selectors: readonly Selector[] = []
  fault: Fault | undefined = UNASKED
  ready: Promise<void> | undefined
  /** When the newest list that named it was asked for. */
  seen: Millis = -Infinity
  /** That list: most that follow are the same. */
  list: PodList | undefined
  /** When the last caller came: what denies it is newer. */
  came: Millis = -Infinity
  users = 0

  constructor(place: ContainerPlace) {
    this.place = place
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
  readonly #outage: Outage
  #watcher: ContainerWatcher = () => {}

  constructor(options: ContainersOptions) {
    this.#options = options
    this.#outage = new Outage(options.maxAge, options.onOutage ?? (() => {}))
    this.pods = new WholePods(options)
    options.kubelet.watch(() => {
      this.#look()
      this.pods.look()
    })
  }

  watch(watcher: ContainerWatcher): void {
    this.#watcher = watcher
  }

  /** The container at `place`; the caller holds it by `retain`. Facts that are too old are read anew (`ready`). */
  find(place: ContainerPlace): Container {
    const there = this.#known.get(place.containerId)
    const known = there?.place.podUid === place.podUid ? there : undefined
    const container = known ?? new Known(place)
    container.came = this.#options.clock.monotonic()
    if (!this.#isFresh(container)) {
      container.ready ??= this.#resolve(container).finally(() => {
        container.ready = undefined
      })
    }
    return container
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
    return explainPod(list, { namespace, name }, rules)
  }

  stop(): void {
    this.#known.clear()
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

  /** Asks until the container is there, or it is sure that it will not be; never by a list from before the question. */
  async #resolve(known: Known): Promise<void> {
    const { clock, kubelet } = this.#options
    const end = clock.monotonic() + RETRY_LIMIT
    for (let wait = FIRST_RETRY; ; wait = Math.min(2 * wait, RETRY_EVERY)) {
      const asked = clock.monotonic()
      let mayCome: boolean
      try {
        mayCome = this.#take(known, await kubelet.since(asked))
      } catch (caught) {
        if (!this.#isFresh(known)) this.#refuse(known, Fault.from(caught, 'pod_facts_unavailable'))
        return
      }
      if (asked >= known.came && (!mayCome || clock.monotonic() >= end)) return
      await new Promise<void>((resolve) => void clock.after(wait, resolve))
    }
  }

  /** What `listed` says of it; whether a later list may say otherwise. */
  #take(known: Known, listed: Listed): boolean {
    const answer = podFacts(listed.list, known.place, this.#options.rules)
    if ('facts' in answer) {
      this.#accept(known, answer.facts, listed)
      return false
    }
    if (known.fault) known.fault = answer.fault
    else if (this.#isBelieved(known, answer)) return false
    else this.#end(known, new Fault('lease_ended', `it is over: ${answer.fault.message}`), answer.fault)
    return answer.mayCome
  }

  #accept(known: Known, facts: PodFacts, { list, asked }: Listed): void {
    const isNew = known.fault !== undefined || !isSame(known.selectors, facts.selectors)
    known.podUid = facts.podUid
    known.selectors = facts.selectors
    known.fault = undefined
    known.seen = asked
    known.list = list
    if (isNew) this.#watcher(known, undefined)
  }

  /** Whether a container goes on although a newer list does not name it: a kubelet that has just started may know no states yet. */
  #isBelieved(known: Known, answer: Extract<PodAnswer, { readonly fault: Fault }>): boolean {
    const { clock, outageAge } = this.#options
    return answer.isSilent === true && clock.monotonic() - known.seen <= Math.min(SILENCE_LIMIT, outageAge)
  }

  #refuse(known: Known, fault: Fault): void {
    if (known.fault) known.fault = fault
    else this.#end(known, fault, fault)
  }

  #end(known: Known, fault: Fault, after: Fault): void {
    known.selectors = []
    known.fault = after
    this.#forget(known)
    this.#watcher(known, fault)
  }

  #look(): void {
    const { clock, kubelet, outageAge } = this.#options
    const { newest, isDown } = kubelet
    for (const known of [...this.#known.values()]) {
      if (!isDown && newest && newest.list === known.list && !known.fault) known.seen = newest.asked
      else if (!isDown && newest) this.#take(known, newest)
      else if (!known.fault && clock.monotonic() - known.seen > outageAge)
        this.#refuse(known, new Fault('pod_facts_unavailable', 'the kubelet has not answered for too long'))
    }
    const now = clock.monotonic()
    const believed = [...this.#known.values()].filter(({ fault }) => !fault)
    this.#outage.look(
      isDown,
      believed.map(({ seen }) => now - seen),
    )
  }
}

function isSame(one: readonly Selector[], other: readonly Selector[]): boolean {
  return one.length === other.length && one.every((selector, index) => selector === other[index])
}
