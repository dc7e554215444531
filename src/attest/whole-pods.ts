/**
 * Pods as keys of `instance: pod` hang on them: each lives while the kubelet lists it and its containers may still be started,
 * whichever of them asked first.
 */

import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { ContainersOptions } from './containers.ts'
import { wholePodFacts } from './pod-facts.ts'
import { type Followed, follow, unanswered } from './pod-followed.ts'
import type { PodList } from './pod-list.ts'
import type { Listed } from './pod-source.ts'

/** A pod; one object for all of its containers. */
export interface WholePod {
  /** The instance key, `pod:UID`. */
  readonly key: string
  /** The selectors of each of its containers. */
  readonly containers: readonly (readonly Selector[])[]
}

/** What changes of a pod: selectors of its containers, or, with a Fault, that it is over. */
export type WholePodWatcher = (pod: WholePod, ended: Fault | undefined) => void

class Known implements WholePod, Followed {
  readonly key: string
  readonly uid: string
  containers: readonly (readonly Selector[])[] = []
  seen: Millis
  list: PodList | undefined

  constructor(uid: string, seen: Millis) {
    this.uid = uid
    this.seen = seen
    this.key = podKey(uid)
  }
}

export const podKey = (uid: string) => `pod:${uid}`

/** All pods that keys hang on. */
export class WholePods {
  readonly #options: Omit<ContainersOptions, 'maxAge'>
  readonly #known = new Map<string, Known>()
  #watcher: WholePodWatcher = () => {}

  constructor(options: Omit<ContainersOptions, 'maxAge'>) {
    this.#options = options
  }

  get count(): number {
    return this.#known.size
  }

  watch(watcher: WholePodWatcher): void {
    this.#watcher = watcher
  }

  /** The pod with `uid`, one of whose containers is known since `seen`; the caller gives it back by `release`. */
  hold(uid: string, seen: Millis): WholePod {
    const pod = this.#known.get(uid) ?? new Known(uid, seen)
    this.#known.set(uid, pod)
    return pod
  }

  release(pod: WholePod): void {
    const { uid } = pod as Known
    if (this.#known.get(uid) === pod) this.#known.delete(uid)
  }

  /** The kubelet has answered, or has not. */
  look(): void {
    const { clock, kubelet, outageAge } = this.#options
    follow(this.#known.values(), {
      kubelet,
      now: clock.monotonic(),
      outageAge,
      take: (pod, listed) => this.#take(pod, listed),
      lose: (pod) => this.#end(pod, unanswered()),
    })
  }

  stop(): void {
    this.#known.clear()
  }

  #take(pod: Known, { list, asked }: Listed): void {
    const containers = wholePodFacts(list, pod.uid, this.#options.rules)
    if (containers instanceof Fault) {
      this.#end(pod, new Fault('lease_ended', `it is over: ${containers.message}`))
      return
    }
    pod.seen = asked
    pod.list = list
    if (containers.length === 0) return
    pod.containers = containers
    this.#watcher(pod, undefined)
  }

  #end(pod: Known, fault: Fault): void {
    this.release(pod)
    this.#watcher(pod, fault)
  }
}
