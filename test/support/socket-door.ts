/** Real processes on a real socket: what the kernel says of them is the test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fdOf } from '../../src/serve/fd.ts'

export const isRoot = process.getuid?.() === 0
/** Every uid may run it, whatever the test's own environment has first in its path. */
export const PYTHON = '/usr/bin/python3'

/** A socket that any uid may connect to; connections wait for `next` in order. */
export class Door {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-door-'))
  readonly path = join(this.folder, 'door.sock')
  readonly #server: Server
  readonly #sockets: Socket[] = []
  readonly #waiting: ((socket: Socket) => void)[] = []
  readonly #children: ChildProcess[] = []

  constructor() {
    this.#server = createServer({ pauseOnConnect: true }, (socket) => {
      socket.on('error', () => {})
      const take = this.#waiting.shift()
      if (take) take(socket)
      else this.#sockets.push(socket)
    })
  }

  async open(): Promise<this> {
    chmodSync(this.folder, 0o755)
    this.#server.listen({ path: this.path, backlog: 4096 })
    await once(this.#server, 'listening')
    chmodSync(this.path, 0o777)
    return this
  }

  /** The next connection and its descriptor. */
  async next(): Promise<{ readonly socket: Socket; readonly fd: number }> {
    const socket = this.#sockets.shift() ?? (await new Promise<Socket>((take) => this.#waiting.push(take)))
    const fd = fdOf(socket)
    if (fd === undefined) throw new Error('the connection has no descriptor')
    return { socket, fd }
  }

  /** Runs a program whose standard input the test may write to; it ends with the door. */
  run(command: string, args: readonly string[]): ChildProcess {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    child.on('error', () => {})
    child.stdin?.on('error', () => {})
    this.#children.push(child)
    return child
  }

  /** Runs Python that has `connect()` (a connected socket) and `wait()` (until the test says to go on). */
  python(code: string, as: { readonly uid?: number; readonly gid?: number; readonly groups?: string } = {}) {
    const script = `${PRELUDE.replace('PATH', this.path)}\n${code}`
    if (as.uid === undefined) return this.run(PYTHON, ['-c', script])
    const { uid, gid = uid, groups } = as
    const groupsFlag = groups === undefined ? '--clear-groups' : `--groups=${groups}`
    return this.run('setpriv', [`--reuid=${uid}`, `--regid=${gid}`, groupsFlag, PYTHON, '-c', script])
  }

  async close(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    await Promise.all(
      this.#children.map((child) => child.exitCode ?? child.signalCode ?? once(child, 'exit')),
    )
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

const PRELUDE = `
import os, socket, sys, time
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect("PATH")
    return s
def wait():
    return sys.stdin.readline()
def say(text):
    print(text, flush=True)
`

/** Lets a child's `wait()` go on. */
export function go(child: ChildProcess): void {
  child.stdin?.write('\n')
}

/** The next line that a child says. */
export async function heard(child: ChildProcess): Promise<string> {
  const [chunk] = (await once(child.stdout ?? child, 'data')) as [Buffer]
  return chunk.toString().trim()
}
