/** Who is at the other end of one connection, as every door sees it. */
import type { Workload } from '../attest/workload.ts'
import { Fault } from '../base/fault.ts'
import { turn } from '../base/turn.ts'

/** The attested caller of a connection, or the reason why there is none. */
export interface Caller {
  readonly pid: number
  readonly uid: number
  /** Checks the peer and the lease anew; throws what attestation or the lease's end said. */
  workload(): Workload
}

/** A caller whose attestation succeeded. */
export function attestedCaller(workload: Workload): Caller {
  const { peer, signal } = workload
  // Calls that one read brought in were there together: the kernel is asked once for all of them.
  let checkedIn = -1
  return {
    pid: peer.pid,
    uid: peer.uid,
    workload: () => {
      if (signal.aborted) throw Fault.from(signal.reason, 'lease_ended')
      const now = turn()
      if (checkedIn !== now) peer.check()
      checkedIn = now
      return workload
    },
  }
}

/** A caller that could not be attested: it hears why at each call, where a closed connection would say nothing. */
export function refusedCaller(pid: number, uid: number, fault: Fault): Caller {
  return {
    pid,
    uid,
    workload: () => {
      throw fault
    },
  }
}
