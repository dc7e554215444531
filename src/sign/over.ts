/** When a call that waits is over: its connection, its lease, or its caller has ended. */
import type { Instance, Workload } from '../attest/workload.ts'
import { Fault, type Reason } from '../base/fault.ts'

/** What a waiting call hangs on. */
export interface Hold {
  readonly workload: Pick<Workload, 'signal'>
  readonly instance: Instance
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
export function checkOver({ workload, instance, gone }: Hold): void {
  for (const { signal } of [workload, instance])
    if (signal.aborted) throw Fault.from(signal.reason, 'lease_ended')
  if (gone?.aborted) throw Fault.from(gone.reason, 'canceled')
}

function listen(signal: AbortSignal, reason: Reason, then: (fault: Fault) => void): () => void {
  const end = () => then(Fault.from(signal.reason, reason))
  if (signal.aborted) end()
  signal.addEventListener('abort', end, { once: true })
  return () => signal.removeEventListener('abort', end)
}
