/** Who is at the other end of one connection, as every door sees it. */
import { type Owner, ownerOfUid } from '../attest/owner.ts'
import type { Workload } from '../attest/workload.ts'
import { Fault } from '../base/fault.ts'
import { moment } from '../base/moment.ts'
import type { Entry } from '../policy/entry.ts'

/** The attested caller of a connection, or the reason why there is none. */
export interface Caller {
  readonly pid: number
  /** Below zero for a caller over TCP, a number of its own for each listed SPIFFE ID. */
  readonly uid: number
  /** Who answers for how much it asks. */
  readonly owner: Owner
  /** Checks the peer and the lease anew; throws what attestation or the lease's end said. */
  workload(): Workload
  /** Counts a request more than those that came as such: undefined when it may begin now, else resolves when it may. */
  enter(): Promise<void> | undefined
  /** Of a caller over TCP, instead: its SPIFFE ID, judged anew; throws what ended its certificate. */
  readonly remote?: () => Entry['spiffeId']
}

/** A caller whose attestation succeeded. */
export function attestedCaller(
  workload: Workload,
  { owner, enter }: Pick<Caller, 'owner' | 'enter'>,
): Caller {
  const { peer, signal } = workload
  // Calls that come together: the kernel is asked once for all of them.
  let checkedIn = -1
  return {
    pid: peer.pid,
    uid: peer.uid,
    owner,
    enter,
    workload: () => {
      if (signal.aborted) throw Fault.from(signal.reason, 'lease_ended')
      const now = moment()
      if (checkedIn !== now) peer.check()
      checkedIn = now
      return workload
    },
  }
}

/** A caller that could not be attested: it hears why at each call, where a closed connection would say nothing. */
export function refusedCaller(pid: number, uid: number, fault: Fault, owner = ownerOfUid(uid)): Caller {
  return {
    pid,
    uid,
    owner,
    enter: () => undefined,
    workload: () => {
      throw fault
    },
  }
}

/** A caller over mutual TLS: the `at`th that may connect. It is no workload of this node. */
export function remoteCaller(at: number, remote: () => Entry['spiffeId']): Caller {
  return {
    pid: 0,
    uid: -1 - at,
    owner: `the SPIFFE ID ${at + 1} of the list`,
    remote,
    enter: () => undefined,
    workload: () => {
      throw new Fault('no_identity', 'no identity issued: the caller is on another machine')
    },
  }
}
