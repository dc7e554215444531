/** How calls end: with the lease of their caller, or when the caller gives them up. */
import { Fault } from '../base/fault.ts'
import { onAbort } from '../base/on-abort.ts'
import type { Caller } from './caller.ts'

/** Calls `then` once a stream has ended, whoever ended it. */
export type OnClose = (then: () => void) => void

/** Open streams end with the lease: a revocation that only blocks new calls is half a revocation. */
export function endWithLease(caller: Caller, onClose: OnClose, end: (fault: Fault) => void): void {
  const { signal } = caller.workload()
  onClose(onAbort(signal, () => end(Fault.from(signal.reason, 'lease_ended'))))
}

/**
 * Gives the signal that aborts when `listen` calls back. It is made when somebody asks: most answers wait for nothing, and
 * to abort costs 20 µs.
 */
export function signalOf(listen: (gone: (fault?: Fault) => void) => void): () => AbortSignal {
  let controller: AbortController | undefined
  const open = () => {
    const opened = new AbortController()
    listen((fault) => opened.abort(fault ?? new Fault('canceled')))
    return opened
  }
  return () => {
    controller ??= open()
    return controller.signal
  }
}
