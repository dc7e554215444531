/** A kernel that says what a test tells it to, and counts the descriptors it gave out. */
import type { Kernel } from '../../src/attest/kernel.ts'
import type { ProcessFacts } from '../../src/attest/proc.ts'
import type { FileIdentity } from '../../src/base/native.ts'

export interface FakeProcess {
  readonly pid: number
  startTime: string
  uid: number
  gid: number
  groups: readonly number[]
  namespacePids: readonly number[]
  cgroup: string
  /** Where its program is; undefined when `exe` cannot be read. */
  program: string | undefined
  isAlive: boolean
  /** Whether /proc/PID can be read. */
  isVisible: boolean
}

/** Processes by pid, sockets by descriptor, files by path. */
export class FakeKernel implements Kernel {
  readonly processes = new Map<number, FakeProcess>()
  readonly sockets = new Map<number, { pid: number; uid: number; gid: number; process: FakeProcess }>()
  readonly files = new Map<string, FileIdentity>()
  /** Descriptors that were given out and not closed. */
  readonly pidfds = new Map<number, FakeProcess>()
  hasPeerPidfd = true
  /** Runs before each read of /proc: what a race would do. */
  onRead: (pid: number) => void = () => {}
  #nextFd = 100

  start(pid: number, facts: Partial<FakeProcess> = {}): FakeProcess {
    const process: FakeProcess = {
      pid,
      startTime: `${pid}00`,
      uid: 1000,
      gid: 1000,
      groups: [],
      namespacePids: [pid],
      cgroup: '0::/',
      program: '/bin/app',
      isAlive: true,
      isVisible: true,
      ...facts,
    }
    this.processes.set(pid, process)
    if (process.program) this.addFile(process.program)
    return process
  }

  /** Ends a process; another may then start with its pid. */
  end(process: FakeProcess): void {
    process.isAlive = false
    if (this.processes.get(process.pid) === process) this.processes.delete(process.pid)
  }

  addFile(path: string, inode = BigInt(this.files.size + 1)): FileIdentity {
    const known = this.files.get(path)
    const identity = known ?? { device: '8:1', inode }
    this.files.set(path, identity)
    return identity
  }

  /** A socket whose connector is `process`. */
  connect(process: FakeProcess): number {
    const fd = this.#nextFd++
    const { pid, uid, gid } = process
    this.sockets.set(fd, { pid, uid, gid, process })
    return fd
  }

  peerCredentials(fd: number) {
    const { pid, uid, gid } = this.#socket(fd)
    return { pid, uid, gid }
  }

  peerGroups(fd: number) {
    return this.#socket(fd).process.groups
  }

  peerPidfd(fd: number) {
    return this.hasPeerPidfd ? this.#give(this.#socket(fd).process) : undefined
  }

  openPidfd(pid: number) {
    const process = this.processes.get(pid)
    return process && this.#give(process)
  }

  isPidfdAlive(pidfd: number) {
    const process = this.pidfds.get(pidfd)
    if (!process) throw new Error(`pidfd ${pidfd} is closed`)
    return process.isAlive
  }

  endedPidfds(pidfds: readonly number[]) {
    return pidfds.flatMap((pidfd, index) => (this.isPidfdAlive(pidfd) ? [] : [index]))
  }

  closeFd(fd: number) {
    if (!this.pidfds.delete(fd)) throw new Error(`descriptor ${fd} is closed twice`)
  }

  fileIdentity(path: string) {
    const pid = /^\/proc\/(\d+)\/exe$/.exec(path)?.[1]
    const program = pid === undefined ? path : this.processes.get(Number(pid))?.program
    return program === undefined ? undefined : this.files.get(program)
  }

  cachedFileIdentity(path: string) {
    return this.files.get(path)
  }

  fileVersion(path: string): string | undefined {
    return this.fileIdentity(path) ? '1 1 1' : undefined
  }

  fileAttribute(): undefined {
    return undefined
  }

  pids() {
    return [...this.processes.keys()]
  }

  readCgroups(pid: number) {
    return this.readProcess(pid)?.cgroups ?? []
  }

  readProcess(pid: number): ProcessFacts | undefined {
    this.onRead(pid)
    const process = this.processes.get(pid)
    if (!process?.isVisible) return undefined
    const { startTime, uid, gid, groups, namespacePids, cgroup } = process
    const [, hierarchy = '', path = '/'] = cgroup.split(':')
    return { startTime, uid, gid, groups, namespacePids, cgroups: [{ hierarchy, path }] }
  }

  readProgramPath(pid: number) {
    return this.processes.get(pid)?.program
  }

  #socket(fd: number) {
    const socket = this.sockets.get(fd)
    if (!socket) throw Object.assign(new Error('EBADF'), { errno: 9 })
    return socket
  }

  #give(process: FakeProcess): number {
    const fd = this.#nextFd++
    this.pidfds.set(fd, process)
    return fd
  }
}
