/**
 * What the process does to itself before it holds a key: no dumps, no core files, no debugger, keys in locked memory.
 * It belongs to the command, not to the daemon module: whoever embeds the daemon keeps control of their process.
 */
import { secureHeapUsed } from 'node:crypto'
import { readFileSync } from 'node:fs'
import inspector from 'node:inspector'
import { areCoreFilesForbidden, forbidCoreFiles, forbidDumps, isDumpable } from '../base/native.ts'

/** One protection that is not in place, and what would put it there. */
export interface Gap {
  readonly name: 'secure_heap' | 'secure_heap_unlocked' | 'dumpable' | 'core_files' | 'inspector' | 'reports'
  readonly message: string
  readonly action: string
}

/** Applies every protection and returns those that could not be; an empty list is the hardened state. */
export function harden(nodeOptions: string | undefined): readonly Gap[] {
  // Node opens the inspector on SIGUSR1 unless somebody listens; 20.x does not know --disable-sigusr1.
  process.on('SIGUSR1', () => {})
  attempt(forbidCoreFiles)
  attempt(forbidDumps)
  forbidReports()
  return [...secureHeapGaps(), ...dumpGaps(), ...inspectorGaps(nodeOptions), ...reportGaps()]
}

function attempt(protect: () => void): void {
  try {
    protect()
  } catch {
    // Whether it worked is asked of the kernel afterwards, not of the call.
  }
}

function forbidReports(): void {
  process.report.reportOnFatalError = false
  process.report.reportOnSignal = false
  process.report.reportOnUncaughtException = false
}

function secureHeapGaps(): readonly Gap[] {
  const heap = secureHeapUsed()
  if (!heap || heap.total === 0) {
    return [
      {
        name: 'secure_heap',
        message: 'private keys are in ordinary memory: Node runs without --secure-heap',
        action: 'Start with --secure-heap=1048576 --secure-heap-min=2, as the start script does.',
      },
    ]
  }
  // Node only warns when the pages could not be locked; the kernel's own count tells.
  const locked =
    Number(/^VmLck:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0) * 1024
  if (locked >= heap.total) return []
  return [
    {
      name: 'secure_heap_unlocked',
      message: `the secure heap of ${heap.total} bytes is not locked in memory: VmLck is ${locked} bytes`,
      action: 'Raise the memlock limit (LimitMEMLOCK=) to at least 2 MiB.',
    },
  ]
}

function dumpGaps(): readonly Gap[] {
  const gaps: Gap[] = []
  if (isDumpable()) {
    gaps.push({
      name: 'dumpable',
      message: 'other processes of this user may read the memory of the agent',
      action: 'Allow prctl(PR_SET_DUMPABLE) in the seccomp profile.',
    })
  }
  if (!areCoreFilesForbidden()) {
    gaps.push({
      name: 'core_files',
      message: 'a crash could write memory to a core file',
      action: 'Set LimitCORE=0, or allow setrlimit in the seccomp profile.',
    })
  }
  return gaps
}

function inspectorGaps(nodeOptions: string | undefined): readonly Gap[] {
  const flags = [...process.execArgv, ...(nodeOptions ?? '').split(/\s+/)]
  if (inspector.url() === undefined && !flags.some((flag) => flag.startsWith('--inspect'))) return []
  return [
    {
      name: 'inspector',
      message: 'Node was started with the inspector: a debugger can export every key',
      action: 'Remove --inspect from the command line and from NODE_OPTIONS.',
    },
  ]
}

function reportGaps(): readonly Gap[] {
  const { reportOnFatalError, reportOnSignal, reportOnUncaughtException } = process.report
  if (!reportOnFatalError && !reportOnSignal && !reportOnUncaughtException) return []
  return [
    {
      name: 'reports',
      message: 'Node would write diagnostic reports, which hold the environment and the heap',
      action: 'Remove --report-* from the command line and from NODE_OPTIONS.',
    },
  ]
}
