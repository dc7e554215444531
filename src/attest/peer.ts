/**
 * The kernel's facts about who called connect(2), taken at accept. The order is the proof: pidfd first, then /proc,
 * then the pidfd again, so that everything read was of the process that the pidfd names.
 */
import { Fault } from '../base/fault.ts'
import type { FileIdentity } from '../base/native.ts'
import type { Kernel } from './kernel.ts'
import type { ProcessFacts } from './proc.ts'

/** The program that a process runs. */
export interface Program {
  readonly identity: FileIdentity
  /** Its name in the peer's mount namespace: a claim until it is compared (selector `unix:path`). */
  readonly path: string
}

/** Facts of a living process and the pidfd that they were proved by. */
export interface OpenPeer extends ProcessFacts {
  readonly pid: number
  /** Absent when `exe` cannot be read, as that of another uid by an agent without privileges. */
  readonly program: Program | undefined
  /** Belongs to the caller, who closes it. */
  readonly pidfd: number
}

export interface PeerOptions {
  readonly kernel: Kernel
  /** Refuse callers rather than attest them without SO_PEERPIDFD. */
  readonly requirePidfd: boolean
  /** What was proved of the living process `pid` before, and still holds while its pidfd lives. */
  readonly known?: (pid: number) => OpenPeer | undefined
  /** Called for each peer that was attested without SO_PEERPIDFD (kernels before 6.5). */
  readonly degraded: () => void
}

const ESRCH = 3
const EINVAL = 22
const PATH_LIMIT = 4096

/**
 * The peer of the connected unix socket `fd`. Throws peer_foreign when the kernel shows no pid for it, peer_gone when
 * the connector has ended or its pid is another's, attestation_failed when the kernel tells too little.
 */
export function openPeer(fd: number, options: PeerOptions): OpenPeer {
  const { kernel } = options
  const credentials = ask(() => kernel.peerCredentials(fd))
  if (credentials.pid <= 0) throw new Fault('peer_foreign')
  const groups = ask(() => kernel.peerGroups(fd))
  const pidfd = ask(() => kernel.peerPidfd(fd))
  const process =
    pidfd === undefined ? compareProcess(credentials, options) : proveAgain(credentials.pid, pidfd, options)
  return { ...process, ...credentials, groups }
}

/** The living process `pid`, for an operator's question; throws peer_gone when there is none. */
export function openProcess(pid: number, kernel: Kernel): OpenPeer {
  const pidfd = kernel.openPidfd(pid)
  if (pidfd === undefined) throw new Fault('peer_gone', `there is no process ${pid}`)
  return proveProcess(pid, pidfd, kernel)
}

/**
 * A process that is known and lives keeps its pid, so its start time and pid namespaces stand; what it may have
 * changed since, its cgroup and its program, is read again. Half the cost of a connection in a burst.
 */
function proveAgain(pid: number, pidfd: number, { kernel, known }: PeerOptions): OpenPeer {
  const before = known?.(pid)
  if (!before) return proveProcess(pid, pidfd, kernel)
  try {
    const cgroups = kernel.readCgroups(pid)
    const identity = kernel.fileIdentity(`/proc/${pid}/exe`)
    const isSame = sameFile(identity, before.program?.identity)
    const program = isSame ? before.program : readProgram(pid, kernel)
    if (!kernel.isPidfdAlive(pidfd)) throw new Fault('peer_gone')
    return { ...before, cgroups, program, pidfd }
  } catch (error) {
    kernel.closeFd(pidfd)
    throw error
  }
}

function sameFile(one: FileIdentity | undefined, other: FileIdentity | undefined): boolean {
  return one?.inode === other?.inode && one?.device === other?.device
}

/** Reads /proc under the pidfd and asks the pidfd afterwards whether it was still that process; owns it until then. */
function proveProcess(pid: number, pidfd: number, kernel: Kernel): OpenPeer {
  try {
    const facts = kernel.readProcess(pid)
    const program = readProgram(pid, kernel)
    if (!kernel.isPidfdAlive(pidfd)) throw new Fault('peer_gone')
    if (!facts)
      throw new Fault('attestation_failed', `/proc/${pid} cannot be read`, {
        action: 'Let the agent see all of /proc: mount it without hidepid, or run the agent as root.',
      })
    return { pid, ...facts, program, pidfd }
  } catch (error) {
    kernel.closeFd(pidfd)
    throw error
  }
}

/** Without SO_PEERPIDFD a pid may be another's by now: start time, uid and gid must be the same before and after. */
function compareProcess(
  credentials: { readonly pid: number; readonly uid: number; readonly gid: number },
  options: PeerOptions,
): OpenPeer {
  const { pid, uid, gid } = credentials
  if (options.requirePidfd)
    throw new Fault(
      'attestation_failed',
      'the kernel has no SO_PEERPIDFD and the configuration requires it',
      {
        action: 'Run Linux 6.5 or newer, or set kernel.require_pidfd: false.',
      },
    )
  const before = options.kernel.readProcess(pid)
  const peer = openProcess(pid, options.kernel)
  const isSame =
    before?.startTime === peer.startTime && [before, peer].every((at) => at.uid === uid && at.gid === gid)
  if (!isSame) {
    options.kernel.closeFd(peer.pidfd)
    throw new Fault('peer_gone')
  }
  options.degraded()
  return peer
}

function readProgram(pid: number, kernel: Kernel): Program | undefined {
  const identity = kernel.fileIdentity(`/proc/${pid}/exe`)
  const path = identity && kernel.readProgramPath(pid)
  return identity && path && path.length <= PATH_LIMIT ? { identity, path } : undefined
}

/** Kernels name a reaped connector by ESRCH or, before 6.16, EINVAL. */
function ask<T>(question: () => T): T {
  try {
    return question()
  } catch (error) {
    const errno = (error as { readonly errno?: unknown }).errno
    const isGone = errno === ESRCH || errno === EINVAL
    throw new Fault(isGone ? 'peer_gone' : 'attestation_failed', undefined, { cause: error })
  }
}

/** Throws peer_changed when `pid` no longer runs `program`; what could not be read at accept is not compared. */
export function checkProgram(pid: number, program: Program | undefined, kernel: Kernel): void {
  if (!program) return
  const now = kernel.fileIdentity(`/proc/${pid}/exe`)
  if (!sameFile(now, program.identity)) throw new Fault('peer_changed')
}
