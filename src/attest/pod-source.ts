/** Where the pods of this node are known from: what attestation asks, and what each way to ask a kubelet gives it. */
import type { Millis } from '../base/clock.ts'
import type { Fault } from '../base/fault.ts'
import type { PodList } from './pod-list.ts'

/** A list, and when it was asked for: nothing older is in it. */
export interface Listed {
  readonly list: PodList
  readonly asked: Millis
}

/** What came of a request for a list. */
export type PodsAnswer = Listed | { readonly fault: Fault; readonly asked: Millis }

/** The pods of this node, for as long as somebody needs them. */
export interface PodSource {
  readonly newest: Listed | undefined
  /** Whether the last request failed. */
  readonly isDown: boolean
  /** A list that was asked for at `since` or later; throws pod_facts_unavailable. */
  since(since: Millis): Promise<Listed>
  /** Calls `watcher` with each answer. */
  watch(watcher: (answer: PodsAnswer) => void): void
  /** Whether to go on asking. */
  need(isNeeded: boolean): void
  stop(): void
}

/** One way to ask a kubelet. */
export interface PodLists {
  /** Every pod, as of now: the object of the time before while nothing has changed. Throws a Fault. */
  ask(signal: AbortSignal): Promise<PodList>
  /** Calls `ring` whenever another list may say something else, until `close`; called once, if at all. */
  listen?(ring: () => void): void
  close(): void
}

/** `parse`, without parsing the same bytes twice in a row: comparing costs a hundredth. */
export function parseChanged(parse: (bytes: Buffer) => PodList): (bytes: Buffer) => PodList {
  let last: { readonly bytes: Buffer; readonly list: PodList } | undefined
  return (bytes) => {
    if (!last?.bytes.equals(bytes)) last = { bytes, list: parse(bytes) }
    return last.list
  }
}
