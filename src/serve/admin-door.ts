/**
 * The way in for operators: the agent's own uid and root, checked by the kernel's word beside the socket's mode. Root of
 * another container is no operator: a pod that mounts the directory of the socket must not become one by it.
 */
import type { Socket } from 'node:net'
import { containerOf } from '../attest/cgroup.ts'
import { systemKernel } from '../attest/kernel.ts'
import { ownerOfUid } from '../attest/owner.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { peerCredentials } from '../base/native.ts'
import type { Accept } from './arrivals.ts'
import { type Caller, refusedCaller } from './caller.ts'
import { firstBytes } from './first-bytes.ts'
import type { GrpcSide } from './grpc.ts'
import type { HttpSide } from './http.ts'
import type { OwnerLimits } from './limits.ts'

export interface AdminDoorOptions {
  readonly http: HttpSide
  /** Serves no method: whoever looks here for one of another door hears so. */
  readonly grpc: GrpcSide
  readonly limits: OwnerLimits
  readonly clock: Clock
  /** How long a client may take to say what it speaks. */
  readonly firstBytesTimeout: Millis
}

const ROOT = 0

/** What takes each connection that arrives at the admin socket. */
export function adminDoor(options: AdminDoorOptions): Accept {
  const own = process.geteuid?.() ?? ROOT
  const home = containerOf(systemKernel.readProcess(process.pid)?.cgroups ?? [])
  return ({ fd, open, refuse }) => {
    try {
      const { pid, uid } = peerCredentials(fd)
      if ((uid !== own && uid !== ROOT) || isElsewhere(pid, home)) throw new Fault('admin_denied')
      const socket = open(false)
      socket.on('error', () => socket.destroy())
      socket.once('close', options.limits.take(ownerOfUid(uid)))
      // An operator is no workload: nothing here may ask for an identity.
      const caller = refusedCaller(pid, uid, new Fault('no_identity'))
      void route(options, socket, caller).catch(() => socket.destroy())
    } catch {
      refuse()
    }
  }
}

async function route(
  { clock, firstBytesTimeout, grpc, http }: AdminDoorOptions,
  socket: Socket,
  caller: Caller,
): Promise<void> {
  const speaks = await firstBytes(socket, clock, firstBytesTimeout)
  if (!speaks || socket.destroyed) socket.destroy()
  else if (speaks === 'http1') http.inject(socket, caller)
  else grpc.inject(socket, caller)
}

/** Whether `pid` is in a container that is not `home`, or cannot be seen. */
function isElsewhere(pid: number, home: string | undefined): boolean {
  const facts = pid > 0 ? systemKernel.readProcess(pid) : undefined
  if (facts?.namespacePids.length !== 1) return true
  const container = containerOf(facts.cgroups)
  return container !== undefined && container !== home
}
