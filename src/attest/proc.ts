/** What /proc says of one process: bounded reads, and parsers that are pure. */
import { closeSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs'
import { type Cgroup, parseCgroups } from './cgroup.ts'

/** A process as /proc shows it; valid for the process that the reader holds a pidfd of. */
export interface ProcessFacts {
  /** Clock ticks since boot; pid and start time together name a process. */
  readonly startTime: string
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
  /** The pid in each pid namespace from the agent's inwards; more than one value is a container. */
  readonly namespacePids: readonly number[]
  readonly cgroups: readonly Cgroup[]
}

const FILE_LIMIT = 64 * 1024
const buffer = Buffer.alloc(FILE_LIMIT)

/** Every process that the agent sees. */
export function pids(): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
}

/** The facts of `pid`; undefined when it has ended or may not be looked at. */
export function readProcess(pid: number): ProcessFacts | undefined {
  const startTime = parseStartTime(readSmall(`/proc/${pid}/stat`))
  const status = parseStatus(readSmall(`/proc/${pid}/status`))
  const cgroups = readCgroups(pid)
  if (startTime === undefined || status === undefined) return undefined
  return { startTime, ...status, cgroups }
}

/** Who started a process, and when it began itself. */
export interface Parent {
  readonly parent: number
  /** Clock ticks since boot. */
  readonly startTime: string
}

/** The parent of `pid`; undefined when it has ended. */
export function readParent(pid: number): Parent | undefined {
  const stat = readSmall(`/proc/${pid}/stat`)
  const startTime = parseStartTime(stat)
  const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  return startTime !== undefined && Number.isInteger(parent) ? { parent, startTime } : undefined
}

/** Where `pid` is; empty when it has ended or may not be looked at. */
export function readCgroups(pid: number): readonly Cgroup[] {
  return parseCgroups(readSmall(`/proc/${pid}/cgroup`))
}

/** What `exe` of `pid` is called; the caller's mount namespace decides the name, so it is only a hint. */
export function readProgramPath(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`)
  } catch {
    return undefined
  }
}

/** Field 22 of /proc/PID/stat (proc(5)); the name in field 2 may hold spaces and brackets. */
export function parseStartTime(stat: string): string | undefined {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const startTime = fields[19] ?? ''
  return /^\d+$/.test(startTime) && fields[0] !== 'Z' && fields[0] !== 'X' ? startTime : undefined
}

/** Effective uid and gid, groups and NSpid of /proc/PID/status; undefined when any is missing. */
export function parseStatus(status: string): Omit<ProcessFacts, 'startTime' | 'cgroups'> | undefined {
  const uid = numbers(/^Uid:\t(.*)$/m.exec(status))[1]
  const gid = numbers(/^Gid:\t(.*)$/m.exec(status))[1]
  const groups = numbers(/^Groups:\t(.*)$/m.exec(status))
  const namespacePids = numbers(/^NSpid:\t(.*)$/m.exec(status))
  if (uid === undefined || gid === undefined || namespacePids.length === 0) return undefined
  return { uid, gid, groups, namespacePids }
}

function numbers(match: RegExpExecArray | null): readonly number[] {
  return match?.[1]?.match(/\d+/g)?.map(Number) ?? []
}

/** A file of /proc in one read; empty when it is not there or does not fit. */
function readSmall(path: string): string {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return ''
  }
  try {
    // The kernel makes such a file whole for one read (seq_file); a full buffer means that there was more.
    const length = readSync(fd, buffer, 0, FILE_LIMIT, null)
    return length < FILE_LIMIT ? buffer.toString('utf8', 0, length) : ''
  } catch {
    return ''
  } finally {
    closeSync(fd)
  }
}
