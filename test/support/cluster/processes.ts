/** Programs of a node: run to their end, or ended, each by its pid. */
import { type ChildProcess, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { until } from '../until.ts'
import { PATH } from './parts.ts'

/** Runs a program to its end; throws what it wrote when it fails. */
export function run(program: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { env: { PATH }, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}:\n${stdout}${stderr}`)
  return stdout
}

/** Ends a program gently; after five seconds with force. */
export async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const force = setTimeout(() => child.kill('SIGKILL'), 5_000)
  await ended
  clearTimeout(force)
}

/** The processes that watch containers; they outlive containerd. */
export function shimsOf(dir: string): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      const command = commandOf(pid)
      return command.includes('containerd-shim') && command.includes(dir)
    })
    .map(Number)
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
  } catch {
    return ''
  }
}

/** Ends processes by force until `pids` finds no more. */
export async function endAll(pids: () => readonly number[]): Promise<void> {
  await until('the processes of the node to end', () => {
    const left = pids()
    for (const pid of left) kill(pid)
    return left.length === 0
  })
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}
