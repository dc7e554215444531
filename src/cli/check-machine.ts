/** Checks of the machine itself: what the kernel, Node, the agent's directory and the clock offer. */
import { existsSync, lstatSync, readFileSync, type Stats } from 'node:fs'
import { release } from 'node:os'
import { dirname } from 'node:path'
import type { Seconds } from '../base/clock.ts'
import { directoriesOf, placeFault } from '../serve/directories.ts'
import { type Finding, failure, fine, type Group, warning } from './check-finding.ts'
import { instant } from './render.ts'

const ROOT = 0
const MIB = 1024 * 1024
// The secure heap is 1 MiB, and what else Node locks has to fit beside it.
const MEMLOCK = 2 * MIB

/** The facts that are looked at; tests make their own. */
export interface Machine {
  readonly node: string
  readonly kernel: string
  readonly uid: number
  /** Soft limit of locked memory, in bytes; undefined when it cannot be read. */
  readonly memlock: number | undefined
  readonly isProcVisible: boolean
  readonly hasCgroup2: boolean
}

export function readMachine(): Machine {
  return {
    node: process.versions.node,
    kernel: release(),
    uid: process.geteuid?.() ?? ROOT,
    memlock: lockedMemory(textOf('/proc/self/limits')),
    isProcVisible: textOf('/proc/1/status') !== undefined,
    hasCgroup2: existsSync('/sys/fs/cgroup/cgroup.controllers'),
  }
}

export function machineGroup(machine: Machine): Group {
  return {
    name: 'machine',
    findings: [
      nodeFinding(machine),
      kernelFinding(machine),
      memlockFinding(machine),
      machine.isProcVisible
        ? fine('proc_visible', '/proc shows the processes of other users')
        : warning('proc_visible', '/proc hides the processes of other users (hidepid)', {
            why: ['an agent that is not root could not attest their callers'],
            action: 'Run the agent as root, or in the group that gid= of the /proc mount names.',
          }),
      machine.hasCgroup2
        ? fine('cgroup2', 'cgroup v2 is mounted')
        : warning('cgroup2', 'cgroup v2 is not mounted', {
            why: ['systemd:id selectors are found in it'],
            action: 'Boot with systemd.unified_cgroup_hierarchy=1, or do without systemd:id.',
          }),
    ],
  }
}

/** `6.5.0-14-generic` as numbers. */
function versionOf(text: string): readonly [number, number] {
  const [, major = '0', minor = '0'] = /^v?(\d+)\.(\d+)/.exec(text) ?? []
  return [Number(major), Number(minor)]
}

function isAtLeast(text: string, major: number, minor: number): boolean {
  const [first, second] = versionOf(text)
  return first > major || (first === major && second >= minor)
}

function nodeFinding({ node }: Machine): Finding {
  return isAtLeast(node, 20, 19)
    ? fine('node_version', `Node ${node}`)
    : failure('node_version', `Node ${node}, wanted 20.19 or newer`, { action: 'Install a newer Node.' })
}

function kernelFinding({ kernel }: Machine): Finding {
  if (isAtLeast(kernel, 6, 5)) return fine('kernel_pidfd', `Linux ${kernel} hands out the pidfd of a peer`)
  if (isAtLeast(kernel, 5, 3)) {
    return warning('kernel_pidfd', `Linux ${kernel} has no SO_PEERPIDFD (6.5)`, {
      why: ['a pid is checked against reuse by its start time instead, which leaves a small gap'],
      action: 'Run Linux 6.5 or newer; kernel.require_pidfd: true refuses older ones.',
    })
  }
  return failure('kernel_pidfd', `Linux ${kernel} has no pidfd_open (5.3)`, {
    action: 'Run Linux 5.3, better 6.5, or newer.',
  })
}

function memlockFinding({ memlock, uid }: Machine): Finding {
  // CAP_IPC_LOCK, which root has unless it was taken away, lifts the limit.
  if (uid === ROOT || memlock === undefined || memlock >= MEMLOCK)
    return fine('memlock', 'keys can be locked in memory')
  return warning('memlock', `only ${memlock} bytes can be locked in memory, wanted ${MEMLOCK}`, {
    why: ['private keys could be written to swap'],
    action: 'Raise LimitMEMLOCK= in the unit, or `ulimit -l 2048`.',
  })
}

export function lockedMemory(limits: string | undefined): number | undefined {
  const soft = /^Max locked memory\s+(\S+)/m.exec(limits ?? '')?.[1]
  if (soft === undefined) return undefined
  return soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft)
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

// sockaddr_un.sun_path, with room for the temporary name in the same directory.
const PATH_LIMIT = 107 - 12

/** The directory of the sockets, as an agent or before there is one. */
export function directoryGroup(dir: string, isBefore: boolean): Group {
  const { workloadSocket, adminSocket } = directoriesOf(dir)
  const length = Buffer.byteLength(workloadSocket)
  const path =
    length > PATH_LIMIT
      ? failure('socket_path', `${workloadSocket} has ${length} bytes, wanted at most ${PATH_LIMIT}`, {
          action: 'Choose a shorter --dir.',
        })
      : fine('socket_path', `${workloadSocket} fits into a socket address`)
  const stats = statOf(dir)
  if (!stats) return { name: 'directory', findings: [missing(dir, isBefore), path] }
  const findings = [ownFinding(dir, stats), path, closedFinding(dirname(adminSocket))]
  return { name: 'directory', findings: findings.filter((finding) => finding !== undefined) }
}

function missing(dir: string, isBefore: boolean): Finding {
  return isBefore
    ? fine('directory', `${dir} will be made`)
    : failure('directory', `${dir} does not exist`, { action: 'Start an agent, or name its --dir.' })
}

function ownFinding(dir: string, stats: Stats): Finding {
  if (!stats.isDirectory() || stats.isSymbolicLink()) {
    return failure('directory', `${dir} is not a directory of its own`, { action: 'Choose another --dir.' })
  }
  if ((stats.mode & 0o022) !== 0) {
    return failure('directory', `others may write ${dir}`, {
      why: ["they could put a socket of their own in place of the agent's"],
      action: `chmod 755 ${dir}`,
    })
  }
  const fault = placeFault(dir)
  if (fault)
    return failure('directory', fault.message, {
      why: ["they could put a directory of their own in place of the agent's"],
      action: fault.action,
    })
  return fine('directory', `${dir} belongs to uid ${stats.uid} alone`)
}

function closedFinding(directory: string): Finding | undefined {
  const stats = statOf(directory)
  if (!stats) return undefined
  return (stats.mode & 0o077) === 0
    ? fine('private_directory', `${directory} is closed to others`)
    : failure('private_directory', `${directory} is open to others`, { action: `chmod 700 ${directory}` })
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch {
    return undefined
  }
}

/** Before this nobody had Holdfast: the clock was never set. */
const EARLIEST: Seconds = 1_735_689_600
const TIMESYNC = '/run/systemd/timesync'

export function clockGroup(now: Seconds): Group {
  const isSet =
    now >= EARLIEST
      ? fine('clock_set', `the clock says ${instant(now)}`)
      : failure('clock_set', `the clock says ${instant(now)}, before ${instant(EARLIEST)}`, {
          why: ['every SVID would be expired or not yet valid elsewhere'],
          action: 'Set the clock, and keep it with NTP.',
        })
  return { name: 'clock', findings: [isSet, ...syncFindings()] }
}

/** Only where systemd keeps the clock can a file tell whether it does. */
function syncFindings(): readonly Finding[] {
  if (!existsSync(TIMESYNC)) return []
  return [
    existsSync(`${TIMESYNC}/synchronized`)
      ? fine('clock_synced', 'systemd-timesyncd keeps the clock')
      : warning('clock_synced', 'systemd-timesyncd has not synchronised the clock', {
          why: ['tokens and proofs are refused by servers whose clock differs'],
          action: 'See `timedatectl status`.',
        }),
  ]
}
