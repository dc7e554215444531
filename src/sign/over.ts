/** When a call that waits is over: its connection, its lease, or its caller has ended. */
import type { Instance, Workload } from '../attest/workload.ts'
import { Fault, type Reason } from '../base/fault.ts'
import { onAbort } from '../base/on-abort.ts'

/** The lease that a call hangs on. */
export interface Lease {
  readonly workload: Pick<Workload, 'signal'>
  readonly instance: Instance
}

/** Gives the signal that aborts when the caller has gone, for calls that wait: it is made when it is asked for. */
export type Gone = () => AbortSignal

/** What a waiting call hangs on. */
export interface Hold extends Lease {
  /** Aborts when the caller has gone. */
  readonly gone: AbortSignal | undefined
}

/** Calls `then` with the reason when it is over, at once when it is already; until the returned function is called. */
export function whenOver(hold: Hold, then: (fault: Fault) => void): () => void {
  const { workload, instance, gone } = hold
  const stops = [
    listen(workload.signal, 'lease_ended', then),
    listen(instance.signal, 'lease_ended', then),
    ...(gone ? [listen(gone, 'canceled', then)] : []),
  ]
  return () => {
    for (const stop of stops) stop()
  }
}

/** Throws the reason when it is over. */
export function checkOver(hold: Hold): void {
  checkLease(hold)
  if (hold.gone?.aborted) throw Fault.from(hold.gone.reason, 'canceled')
}

/** Throws lease_ended, or why it ended. */
export function checkLease({ workload, instance }: Lease): void {
  for (const { signal } of [workload, instance])
    if (signal.aborted) throw Fault.from(signal.reason, 'lease_ended')
}

function listen(signal: AbortSignal, reason: Reason, then: (fault: Fault) => void): () => void {
  return onAbort(signal, () => then(Fault.from(signal.reason, reason)))
}
