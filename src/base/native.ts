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
const SYS_OPENAT2 = 437
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const POLLIN = 1
const EPERM = 1
const EINTR = 4
const EINVAL = 22
const ERANGE = 34
const ENOSYS = 38
const ENOPROTOOPT = 92
const AT_FDCWD = -100
const AT_EMPTY_PATH = 0x1000
const AT_NO_AUTOMOUNT = 0x800
const AT_STATX_DONT_SYNC = 0x4000
const STATX_BASIC = 0x7ff
const O_PATH_CLOEXEC = 0o12000000
const RESOLVE_NO_MAGICLINKS = 0x02
const RESOLVE_CACHED = 0x20
const XATTR_LIMIT = 256
const PR_SET_DUMPABLE = 4
const PR_GET_DUMPABLE = 3
const RLIMIT_CORE = 4
const RLIMIT_NOFILE = 7
const GROUPS_LIMIT = 65_536
const F_DUPFD_CLOEXEC = 1030

const libc = koffi.load(null)
const getsockopt = libc.func('int getsockopt(int, int, int, _Out_ void *, _Inout_ uint32_t *)')
const poll = libc.func('int poll(_Inout_ void *, unsigned long, int)')
const accept4 = libc.func('int accept4(int, void *, void *, int)')
const closeFile = libc.func('int close(int)')
const fcntl = libc.func('int fcntl(int, int, int)')
const syscall = libc.func('long syscall(long, long, long, long)')
const openat2 = libc.func('long syscall(long, long, str, const void *, unsigned long)')
const statx = libc.func('int statx(int, str, int, unsigned int, _Out_ void *)')
const getxattr = libc.func('long getxattr(str, str, _Out_ void *, unsigned long)')
const prctl = libc.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)')
const setrlimit = libc.func('int setrlimit(int, const void *)')
const getrlimit = libc.func('int getrlimit(int, _Out_ void *)')
const socket = libc.func('int socket(int, int, int)')
const bind = libc.func('int bind(int, const void *, unsigned int)')
const recvfrom = libc.func(
  'long recvfrom(int, _Out_ void *, unsigned long, int, _Out_ void *, _Inout_ uint32_t *)',
)

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
  return pollNow(onePidfd, 1) === 0
}

/** The indexes of those pidfds whose process has ended; one kernel call for all. */
export function endedPidfds(pidfds: readonly number[]): readonly number[] {
  return polled(pidfds, POLLIN)
}

/** The indexes of those sockets that their peer has closed both ways (POLLHUP, POLLERR); one kernel call for all. */
export function hungUp(sockets: readonly number[]): readonly number[] {
  return polled(sockets, 0)
}

function polled(fds: readonly number[], events: number): readonly number[] {
  if (fds.length === 0) return []
  const set = Buffer.alloc(fds.length * 8)
  fds.forEach((fd, index) => {
    set.writeInt32LE(fd, index * 8)
    set.writeInt32LE(events, index * 8 + 4)
  })
  if (pollNow(set, fds.length) === 0) return []
  return fds.flatMap((_, index) => (set.readInt16LE(index * 8 + 6) === 0 ? [] : [index]))
}

/** poll(2) without waiting. A pending signal makes the kernel answer EINTR, which says nothing of the processes. */
function pollNow(set: Buffer, count: number): number {
  for (;;) {
    const found: number = poll(set, count, 0)
    if (found >= 0) return found
    if (koffi.errno() !== EINTR) throw refused('poll')
  }
}

/** accept4(2) of a listening socket that does not block; undefined when nobody waits, or the kernel has no room. */
export function acceptWaiting(listening: number): number | undefined {
  const fd: number = accept4(listening, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC)
  return fd >= 0 ? fd : undefined
}

/** Another descriptor of the same file, closed in programs that are started; undefined when the kernel has no room. */
export function anotherFd(fd: number): number | undefined {
  const other: number = fcntl(fd, F_DUPFD_CLOEXEC, 0)
  return other >= 0 ? other : undefined
}

/** Device and inode: which file it is, whatever it is called. */
export interface FileIdentity {
  readonly device: string
  readonly inode: bigint
}

/**
 * Which file `path` is; undefined when it cannot be read. Answers from the kernel's memory (AT_STATX_DONT_SYNC): a
 * FUSE or NFS server that does not answer cannot stop the agent.
 */
export function fileIdentity(path: string): FileIdentity | undefined {
  return identify(AT_FDCWD, path, 0)
}

/**
 * Which file a path from outside is, found through the kernel's name cache alone, where the names of a running
 * program are; undefined when it is not there. Kernels before 5.12 walk the path as usual.
 */
export function cachedFileIdentity(path: string): FileIdentity | undefined {
  const how = Buffer.alloc(24)
  how.writeBigUInt64LE(BigInt(O_PATH_CLOEXEC), 0)
  how.writeBigUInt64LE(BigInt(RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED), 16)
  const fd = Number(openat2(SYS_OPENAT2, AT_FDCWD, path, how, how.length))
  if (fd < 0) return [EINVAL, ENOSYS, EPERM].includes(koffi.errno()) ? fileIdentity(path) : undefined
  const found = identify(fd, '', AT_EMPTY_PATH)
  closeFile(fd)
  return found
}

const statAnswer = Buffer.alloc(256)

function identify(fd: number, path: string, flags: number): FileIdentity | undefined {
  const all = flags | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT
  if (statx(fd, path, all, STATX_BASIC, statAnswer) !== 0) return undefined
  const device = `${statAnswer.readUInt32LE(136)}:${statAnswer.readUInt32LE(140)}`
  return { device, inode: statAnswer.readBigUInt64LE(32) }
}

/** Size, mtime and ctime of `path` in one text, which changes when its content may have; undefined like the file. */
export function fileVersion(path: string): string | undefined {
  if (identify(AT_FDCWD, path, 0) === undefined) return undefined
  const time = (at: number) =>
    statAnswer.readBigInt64LE(at) * 1_000_000_000n + BigInt(statAnswer.readUInt32LE(at + 8))
  return `${statAnswer.readBigUInt64LE(40)} ${time(112)} ${time(96)}`
}

/** An extended attribute as text; undefined when it is absent or may not be read. */
export function fileAttribute(path: string, name: string): string | undefined {
  const answer = Buffer.alloc(XATTR_LIMIT)
  const length = Number(getxattr(path, name, answer, answer.length))
  return length > 0 ? answer.toString('latin1', 0, length) : undefined
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

/** How many descriptors this process may have; RLIMIT_NOFILE, which Node raises as far as it may when it starts. */
export function descriptorLimit(): number {
  const answer = Buffer.alloc(16)
  if (getrlimit(RLIMIT_NOFILE, answer) !== 0) throw refused('RLIMIT_NOFILE')
  return Number(answer.readBigUInt64LE(0))
}

const AF_NETLINK = 16
const SOCK_DGRAM = 2
const NETLINK_KOBJECT_UEVENT = 15
const MSG_DONTWAIT = 0x40
const UEVENT_LIMIT = 8192
const netlinkAddress = { bytes: 12, family: 0, sender: 4, groups: 8 }

/** A descriptor that the kernel reports devices on (netlink, kobject uevents); undefined where it gives none. */
export function openUevents(): number | undefined {
  const fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
  if (fd < 0) return undefined
  const address = Buffer.alloc(netlinkAddress.bytes)
  address.writeUInt16LE(AF_NETLINK, netlinkAddress.family)
  address.writeUInt32LE(1, netlinkAddress.groups)
  if (bind(fd, address, address.length) === 0) return fd
  closeFile(fd)
  return undefined
}

/** The next report on `fd`, if it is the kernel's own: `key=value` parts; undefined when there is none waiting. */
export function readUevent(fd: number): readonly string[] | undefined {
  const answer = Buffer.alloc(UEVENT_LIMIT)
  const address = Buffer.alloc(netlinkAddress.bytes)
  const length = Number(recvfrom(fd, answer, answer.length, MSG_DONTWAIT, address, [address.length]))
  if (length < 0) return undefined
  const isKernel = address.readUInt32LE(netlinkAddress.sender) === 0
  return isKernel ? answer.toString('latin1', 0, length).split('\0') : []
}
