/** The way in for operators: the agent's own uid and root, checked by the kernel's word beside the socket's mode. */
import type { Socket } from 'node:net'
import { Fault } from '../base/fault.ts'
import { peerCredentials } from '../base/native.ts'
import { refusedCaller } from './caller.ts'
import { fdOf } from './fd.ts'
import type { HttpSide } from './http.ts'
import type { UidLimits } from './limits.ts'

const ROOT = 0

/** What a net.Server calls with each paused connection to the admin socket. */
export function adminDoor(http: HttpSide, limits: UidLimits): (socket: Socket) => void {
  const own = process.geteuid?.() ?? ROOT
  return (socket) => {
    socket.on('error', () => socket.destroy())
    try {
      const fd = fdOf(socket)
      if (fd === undefined) throw new Fault('attestation_failed')
      const { pid, uid } = peerCredentials(fd)
      if (uid !== own && uid !== ROOT) throw new Fault('admin_denied')
      socket.once('close', limits.take(uid))
      // An operator is no workload: nothing here may ask for an identity.
      http.inject(socket, refusedCaller(pid, uid, new Fault('no_identity')))
      socket.resume()
    } catch {
      socket.destroy()
    }
  }
}
