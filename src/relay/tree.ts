/** Whether a connection comes from a process below another one, by the kernel's word (SO_PEERCRED, /proc). */
import type { Socket } from 'node:net'
import { type Parent, readParent } from '../attest/proc.ts'
import { Fault } from '../base/fault.ts'
import { closeFd, isPidfdAlive, openPidfd, peerCredentials, peerPidfd } from '../base/native.ts'
import { fdOf } from '../serve/fd.ts'

/** Who connected, and that it still runs. */
export interface Descendant {
  /** Throws session_foreign when the process that connected has ended. */
  check(): void
}

const DEPTH_LIMIT = 1_024
const SESSION_FOREIGN = 'session_foreign'

/** The process that connected `socket`; throws session_foreign unless it is `root` or below it. */
export function descendantOf(root: number, socket: Socket): Descendant {
  const fd = fdOf(socket)
  const pid = fd === undefined ? 0 : peerCredentials(fd).pid
  const pidfd = fd === undefined || pid <= 0 ? undefined : (peerPidfd(fd) ?? openPidfd(pid))
  if (pidfd === undefined) throw new Fault(SESSION_FOREIGN)
  socket.once('close', () => closeFd(pidfd))
  const isBelow = isDescendant(root, pid)
  // What was read of a pid is of the process that the pidfd names only while that lives.
  if (!isBelow || !isPidfdAlive(pidfd)) throw new Fault(SESSION_FOREIGN)
  return {
    check: () => {
      if (!isPidfdAlive(pidfd)) throw new Fault(SESSION_FOREIGN, 'the process that connected has ended')
    },
  }
}

/**
 * Whether `pid` is `root` or below it. A parent that began after its child is another process with a pid used again. Who
 * has left the tree (a daemon, whose parent is process 1) is not below it any more.
 */
export function isDescendant(
  root: number,
  pid: number,
  parentOf: (pid: number) => Parent | undefined = readParent,
): boolean {
  let at = pid
  let began: bigint | undefined
  for (let depth = 0; depth < DEPTH_LIMIT; depth++) {
    const seen = parentOf(at)
    if (!seen || (began !== undefined && BigInt(seen.startTime) > began)) return false
    if (at === root) return true
    if (seen.parent <= 1) return false
    began = BigInt(seen.startTime)
    at = seen.parent
  }
  return false
}
