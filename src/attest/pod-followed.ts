/** What hangs on lists of pods, and what each answer of the kubelet does to it. */
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { PodList } from './pod-list.ts'
import type { Listed, PodSource } from './pod-source.ts'

/** Something that is as long as lists name it. */
export interface Followed {
  /** When the newest list that named it was asked for. */
  seen: Millis
  /** That list: most that follow are the same. */
  list: PodList | undefined
}

export interface FollowOptions<T> {
  readonly kubelet: Pick<PodSource, 'isDown' | 'newest'>
  readonly now: Millis
  /** How long it is believed without an answer. */
  readonly outageAge: Millis
  /** A list that is new to it. */
  readonly take: (each: T, listed: Listed) => void
  /** The kubelet has not answered for too long. */
  readonly lose: (each: T) => void
}

export const unanswered = () =>
  new Fault('pod_facts_unavailable', 'the kubelet has not answered for too long')

/** Tells `all` of the newest answer. */
export function follow<T extends Followed>(all: Iterable<T>, options: FollowOptions<T>): void {
  const { kubelet, now, outageAge, take, lose } = options
  const { isDown, newest } = kubelet
  for (const each of [...all]) {
    if (isDown || !newest) {
      if (now - each.seen > outageAge) lose(each)
    } else if (each.list === newest.list) each.seen = newest.asked
    else take(each, newest)
  }
}
