/**
 * The kernel calls that Node does not offer; the only import of koffi. Every function takes plain numbers and
 * throws a plain Error with errno's number when the kernel refuses.
 */
import koffi from 'koffi'

const SOL_SOCKET = 1
const SO_PEERCRED = 17
const SO_PEERGROUPS = 59
const SO_PEERPIDFD = 77
const SYS_PIDFD_OPEN = 434
const POLLIN = 1
const ERANGE = 34
const ENOPROTOOPT = 92
const PR_SET_DUMPABLE = 4
const PR_GET_DUMPABLE = 3
const RLIMIT_CORE = 4
const GROUPS_LIMIT = 65_536

const libc = koffi.load(null)
const getsockopt = libc.func('int getsockopt(int, int, int, _Out_ void *, _Inout_ uint32_t *)')
const poll = libc.func('int poll(_Inout_ void *, unsigned long, int)')
const closeFile = libc.func('int close(int)')
const syscall = libc.func('long syscall(long, long, long, long)')
const prctl = libc.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)')
const setrlimit = libc.func('int setrlimit(int, const void *)')
const getrlimit = libc.func('int getrlimit(int, _Out_ void *)')

function refused(call: string): Error {
  return Object.assign(new Error(`${call}: errno ${koffi.errno()}`), { errno: koffi.errno() })
}

/** Credentials of the process that called connect(2) on the socket's other end. */
export interface PeerCredentials {
  /** 0 when the peer is outside this pid namespace. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/** SO_PEERCRED of a connected unix socket. */
export function peerCredentials(fd: number): PeerCredentials {
  const answer = Buffer.alloc(12)
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, answer, [12]) !== 0) throw refused('SO_PEERCRED')
  return { pid: answer.readInt32LE(0), uid: answer.readUInt32LE(4), gid: answer.readUInt32LE(8) }
}

/** SO_PEERGROUPS: the supplementary groups of the peer at connect time. */
export function peerGroups(fd: number): readonly number[] {
  for (let count = 64; count <= GROUPS_LIMIT; count *= 32) {
    const answer = Buffer.alloc(count * 4)
    const length = [answer.length]
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, answer, length) === 0) {
      return Array.from({ length: (length[0] ?? 0) / 4 }, (_, index) => answer.readUInt32LE(index * 4))
    }
    if (koffi.errno() !== ERANGE) throw refused('SO_PEERGROUPS')
  }
  throw refused('SO_PEERGROUPS')
}

/** SO_PEERPIDFD: a pidfd of the peer, to be closed by the caller; undefined on kernels before 6.5. */
export function peerPidfd(fd: number): number | undefined {
  const answer = Buffer.alloc(4)
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, answer, [4]) === 0) return answer.readInt32LE(0)
  if (koffi.errno() === ENOPROTOOPT) return undefined
  throw refused('SO_PEERPIDFD')
}

/** pidfd_open(2): a pidfd for a pid, to be closed by the caller; undefined when there is no such process. */
export function openPidfd(pid: number): number | undefined {
  const fd = Number(syscall(SYS_PIDFD_OPEN, pid, 0, 0))
  return fd >= 0 ? fd : undefined
}

const onePidfd = Buffer.alloc(8)

/** Whether the process of a pidfd still runs (a pidfd becomes readable when it ends). */
export function isPidfdAlive(pidfd: number): boolean {
  onePidfd.writeInt32LE(pidfd, 0)
  onePidfd.writeInt32LE(POLLIN, 4)
  return poll(onePidfd, 1, 0) === 0
}

/** The indexes of those pidfds whose process has ended; one kernel call for all. */
export function endedPidfds(pidfds: readonly number[]): readonly number[] {
  if (pidfds.length === 0) return []
  const set = Buffer.alloc(pidfds.length * 8)
  pidfds.forEach((fd, index) => {
    set.writeInt32LE(fd, index * 8)
    set.writeInt32LE(POLLIN, index * 8 + 4)
  })
  if (poll(set, pidfds.length, 0) <= 0) return []
  return pidfds.flatMap((_, index) => (set.readInt16LE(index * 8 + 6) === 0 ? [] : [index]))
}

/** Closes a descriptor that Node does not know of. */
export function closeFd(fd: number): void {
  closeFile(fd)
}

/** PR_SET_DUMPABLE 0: other processes of this uid can no longer read memory, environment or descriptors. */
export function forbidDumps(): void {
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) !== 0) throw refused('PR_SET_DUMPABLE')
}

/** Whether the kernel would still let others of this uid attach. */
export function isDumpable(): boolean {
  return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) !== 0
}

/** RLIMIT_CORE 0, soft and hard. */
export function forbidCoreFiles(): void {
  if (setrlimit(RLIMIT_CORE, Buffer.alloc(16)) !== 0) throw refused('RLIMIT_CORE')
}

/** Whether both core limits are 0. */
export function areCoreFilesForbidden(): boolean {
  const answer = Buffer.alloc(16)
  return (
    getrlimit(RLIMIT_CORE, answer) === 0 &&
    answer.readBigUInt64LE(0) === 0n &&
    answer.readBigUInt64LE(8) === 0n
  )
}
