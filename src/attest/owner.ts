/** Who answers for what a caller takes up of the agent: its uid; in a pod the pod, since its containers choose uids as they like. */
import type { PodPlace } from './pod-cgroup.ts'

/** In words, as messages name it: `uid 1000`, `the pod UID`. */
export type Owner = string

export const ownerOfUid = (uid: number): Owner => `uid ${uid}`

/** Of the pod around a container, or of the container where its cgroup does not say whose it is. */
export function ownerOfPlace(place: {
  readonly podUid: string | undefined
  readonly containerId: string
}): Owner {
  return place.podUid === undefined ? `the container ${place.containerId}` : `the pod ${place.podUid}`
}

/** Of a caller with `uid` at `place`; those that are in a pod's place and in no pod share one budget. */
export function ownerOf(uid: number, place: PodPlace): Owner {
  if (place.kind === 'container') return ownerOfPlace(place)
  return place.kind === 'refused' ? 'callers of no pod' : ownerOfUid(uid)
}
