/** `holdfast exec -- COMMAND`: a command with a private egress socket, which speaks as this process and ends with it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { isatty } from 'node:tty'
import { systemClock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { environmentWith } from '../config.ts'
import { parseOnly } from '../relay/only.ts'
import { openSession } from '../relay/session.ts'
import type { Shown, Where } from './agent.ts'
import type { Io } from './io.ts'
import { egressSocket } from './request.ts'

export interface ExecCommand extends Where, Shown {
  /** `TARGET` or `TARGET:METHOD` each. */
  readonly only?: readonly string[]
}

/** How the command ended. */
interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** The terminal sends the first two to the whole group by itself. */
const KEYS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT']
const PASSED: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']
const BY_SIGNAL = 128
const STDIN = 0

/** The exit code of the command, or this process's end by the same signal; throws usage, agent_unreachable, unimplemented. */
export async function exec(command: readonly string[], options: ExecCommand, io: Io): Promise<number> {
  const only = (options.only ?? []).map(parseOnly)
  const session = await openSession({
    egressSocket: await egressSocket(options, io),
    only,
    clock: systemClock,
  })
  let ended: Ended
  try {
    ended = await run(command, session)
  } finally {
    await session.stop()
  }
  return ended.signal === null ? (ended.code ?? 0) : endBy(ended.signal)
}

async function run(
  [file = '', ...args]: readonly string[],
  session: { readonly path: string; admit(pid: number): void },
): Promise<Ended> {
  const env = environmentWith({ HOLDFAST_EGRESS_SOCKET: session.path })
  // The command may run, and signals come, before spawn returns: they wait until there is a child to pass them to.
  let child: ChildProcess | undefined
  const stopPassing = passSignals((name) => child?.kill(name))
  try {
    child = spawn(file, args, { stdio: 'inherit', env })
    return await endOf(file, child, session)
  } finally {
    stopPassing()
  }
}

function endOf(file: string, child: ChildProcess, session: { admit(pid: number): void }): Promise<Ended> {
  return new Promise((resolve, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) => reject(notStarted(file, error)))
    child.once('exit', (code, signal) => resolve({ code, signal }))
    if (child.pid !== undefined) session.admit(child.pid)
  })
}

function notStarted(file: string, error: NodeJS.ErrnoException): Fault {
  return new Fault('usage', `${file} cannot be started (${error.code ?? 'unknown'})`, {
    action: 'Name a program in PATH after --.',
    cause: error,
  })
}

function passSignals(pass: (name: NodeJS.Signals) => void): () => void {
  // Not process.stdin: opening it makes the descriptor non-blocking, the command's own too.
  const isTerminal = isatty(STDIN)
  const stops = [...KEYS, ...PASSED].map((name) => {
    const hear = () => {
      if (!isTerminal || !KEYS.includes(name)) pass(name)
    }
    process.on(name, hear)
    return () => process.off(name, hear)
  })
  return () => {
    for (const stop of stops) stop()
  }
}

/** A shell that waits for this process sees what became of the command. */
function endBy(signal: NodeJS.Signals): number {
  process.kill(process.pid, signal)
  return BY_SIGNAL
}
