/** A caller in a process of its own, under a uid of its own: what it asks is asked over one connection of that process. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Answer } from './call.ts'

export interface PeerOptions {
  /** Needs root. */
  readonly uid?: number
  readonly gid?: number
}

/** A child process that asks the agent. */
export interface Peer extends AsyncDisposable {
  readonly pid: number
  call(
    method: string,
    path: string,
    body?: unknown,
    more?: Readonly<Record<string, string>>,
  ): Promise<Pick<Answer, 'status' | 'body'>>
  /** Ends the process and waits until it has gone. */
  end(): Promise<void>
}

// Plain JavaScript: the child is a bare node.
const SCRIPT = `
const http = require('node:http')
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { socketPath, method, path, body, more } = JSON.parse(line)
  const text = body === undefined ? undefined : JSON.stringify(body)
  const headers = { 'workload.spiffe.io': 'true', ...(text ? { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) } : {}), ...more }
  const outgoing = http.request({ socketPath, method, path, headers, agent }, (response) => {
    let all = ''
    response.on('data', (chunk) => { all += chunk })
    response.on('end', () => console.log(JSON.stringify({ status: response.statusCode, body: all })))
  })
  outgoing.on('error', (error) => console.log(JSON.stringify({ status: 0, body: JSON.stringify(error.message) })))
  outgoing.end(text)
})
console.log('up')
`

/** Starts a caller of the agent at `socketPath`. */
export async function startPeer(socketPath: string, options: PeerOptions = {}): Promise<Peer> {
  const child = spawn(process.execPath, ['-e', SCRIPT], {
    ...options,
    env: { PATH: '/usr/bin:/bin' },
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const waiting: ((line: string) => void)[] = []
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift()?.(line))
  const nextLine = () => new Promise<string>((resolve) => waiting.push(resolve))
  await nextLine()
  return {
    pid: child.pid ?? 0,
    call: async (method, path, body, more) => {
      const line = nextLine()
      child.stdin.write(`${JSON.stringify({ socketPath, method, path, body, more })}\n`)
      const { status, body: text } = JSON.parse(await line) as { status: number; body: string }
      return { status, body: JSON.parse(text) }
    },
    end: () => endOf(child),
    [Symbol.asyncDispose]: () => endOf(child),
  }
}

function endOf(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve()
  return new Promise((resolve) => {
    child.once('exit', () => resolve())
    child.kill('SIGKILL')
  })
}
