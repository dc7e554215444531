/** The built agent as a process of its own, on a directory of its own; ended by pid. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { packageFile } from '../../src/base/package.ts'
import { call } from './call.ts'
import { until } from './until.ts'

/** With a slash at its end; found from a bundle below node_modules too. */
export const ROOT = `${resolve(packageFile('.'))}/`
export const HARDENED = ['--secure-heap=1048576', '--secure-heap-min=2']

export interface BuiltAgentOptions {
  /** Arguments after `run`; `--dev` when absent. `--dir` is added. */
  readonly args?: readonly string[]
  readonly nodeArgs?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly dir?: string
  /** A descriptor for stdout instead of a pipe. */
  readonly stdout?: number
}

export interface BuiltAgent extends AsyncDisposable {
  readonly pid: number
  readonly dir: string
  readonly socket: string
  readonly adminSocket: string
  /** What it has written to stdout and stderr. */
  readonly output: () => string
  stop(signal?: NodeJS.Signals): Promise<number | null>
}

/** Starts it and waits until it answers. */
export async function startBuiltAgent(options: BuiltAgentOptions = {}): Promise<BuiltAgent> {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'holdfast-'))
  const args = [
    ...(options.nodeArgs ?? HARDENED),
    'dist/holdfast.js',
    'run',
    ...(options.args ?? ['--dev']),
    '--dir',
    dir,
  ]
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    env: { PATH: process.env['PATH'] ?? '', ...options.env },
    stdio: ['ignore', options.stdout ?? 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (output += chunk))
  const socket = join(dir, 'public', 'workload.sock')
  const stop = (signal: NodeJS.Signals = 'SIGTERM') => ended(child, signal)
  try {
    await until(
      `the agent to answer\n${output}`,
      () => {
        if (child.exitCode !== null) throw new Error(`the agent ended with ${child.exitCode}:\n${output}`)
        return answers(socket)
      },
      30_000,
    )
  } catch (error) {
    await stop('SIGKILL')
    throw error
  }
  return {
    pid: child.pid ?? 0,
    dir,
    socket,
    adminSocket: join(dir, 'private', 'admin.sock'),
    output: () => output,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop()
      if (options.dir === undefined) rmSync(dir, { recursive: true, force: true })
    },
  }
}

async function answers(socket: string): Promise<boolean> {
  const answer = await call(socket, 'GET', '/v1/identity').catch(() => undefined)
  return answer !== undefined && answer.status !== 503
}

function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode)
  return new Promise((resolve) => {
    child.once('exit', (code) => resolve(code))
    child.kill(signal)
  })
}

/** What the kernel shows of a process to everybody: its arguments and environment. */
export function shownByKernel(pid: number): string {
  return ['cmdline', 'environ'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'latin1')).join('\0')
}
