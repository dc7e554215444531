/** The attested caller: kernel facts about its process, its selectors and entries, and the lease it all hangs on. */
import type { Entry } from '../policy/entry.ts'
import type { Selector } from '../spiffe/selector.ts'

/** What a key's life is tied to on this node; `signal` aborts when it has ended. */
export interface Instance {
  /** `process:PID:START`, `unit:NAME:INVOCATION`, `container:ID@pod:UID`, `pod:UID` or `identity`; unique on this node while it lives. */
  readonly key: string
  readonly signal: AbortSignal
}

/** The kernel's facts about who called connect(2), taken at accept. */
export interface Peer {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
  /** The process as an instance; its signal aborts when the process ends. */
  readonly process: Instance
  /** Throws peer_gone when the connector has ended, peer_changed when it runs another program. */
  check(): void
}

/** An attested peer with its entries and its lease; one a connection. */
export interface Workload {
  readonly peer: Peer
  readonly selectors: readonly Selector[]
  /** The entries of the current policy whose selectors all hold, in policy order; a fresh array when policy changes. */
  entries(): readonly Entry[]
  /** Whether part of policy has not been read yet, so that entries may come. */
  readonly isEarly?: boolean
  /** The instance that keys of `entry` belong to; throws attestation_failed when a unit entry's caller is in no unit. */
  instanceOf(entry: Entry): Instance
  /** Calls `watcher` with the entries after each change of policy or selectors, until the returned function is called. */
  watchEntries(watcher: (entries: readonly Entry[]) => void): () => void
  /** Aborts when the process ends, an operator revokes it, or the agent stops; everything derived from it ends. */
  readonly signal: AbortSignal
}
