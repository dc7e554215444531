/**
 * One path in the file system and the listening socket behind it. States: `waiting` (listens under a temporary name
 * while a live agent holds the path), `active` (the path is ours), `passive` (a newcomer has taken it), `closed`.
 * The path is only ever replaced by rename, never taken from a live agent unasked, and unlinked only while it is ours.
 */
import { chmodSync, renameSync, rmSync, statSync, unlinkSync } from 'node:fs'
import { connect, type Server } from 'node:net'
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { membersOf } from '../base/members.ts'
import { peerCredentials } from '../base/native.ts'
import { type Accept, listen } from './arrivals.ts'
import { fdOf } from './fd.ts'

export interface SocketPathOptions {
  readonly path: string
  readonly mode: number
  readonly accept: Accept
  readonly clock: Clock
  /** Listens beside a live agent and replaces it in `publish`, instead of refusing to start. */
  readonly takeover: boolean
  /** A newcomer has the path. */
  readonly onTaken: () => void
  /** The path is ours again: nobody answered there. */
  readonly onBack: () => void
  /** A descriptor that is listened on already (systemd); the path is then somebody else's to manage. */
  readonly fd?: number | undefined
}

/** A listening socket, however it came to be. */
export interface ListeningSocket {
  /** Takes the path over once the agent is ready. */
  publish(): void
  /** Whether a newcomer has the path: whoever comes in here still had connected before. */
  isTaken(): boolean
  close(): void
}

/** Listens on the path, or on the descriptor that was handed over; throws agent_running, socket_unusable. */
export async function openSocket(options: SocketPathOptions): Promise<ListeningSocket> {
  const { fd, accept, path } = options
  if (fd === undefined) {
    const socket = new SocketPath(options)
    await socket.open()
    return socket
  }
  const server = await listen({ fd }, path, accept)
  return { publish: () => {}, isTaken: () => false, close: () => server.close() }
}

// sockaddr_un.sun_path; Node 20 cuts a longer path silently and listens elsewhere.
const PATH_LIMIT = 107
// Node's default of 511 makes a burst of connects fail: unix sockets do not queue further.
const BACKLOG = 4096
const PROBE_MS = 1_000
const LOOK_MS = 1_000
const NAMES_LIMIT = 8

/** The owner of one socket path. */
export class SocketPath {
  readonly #options: SocketPathOptions
  #server: Server | undefined
  #temporary: string | undefined
  #inode: bigint | undefined
  #state: 'waiting' | 'active' | 'passive' | 'closed' = 'waiting'
  #tries = 0
  #cancel = () => {}

  constructor(options: SocketPathOptions) {
    this.#options = options
  }

  get state(): string {
    return this.#state
  }

  /** Listens, on the path itself unless a live agent holds it; throws agent_running, socket_unusable. */
  async open(): Promise<void> {
    // Newer Nodes refuse to connect to it, which would look like somebody who answers.
    if (Buffer.byteLength(this.#options.path) > PATH_LIMIT) throw this.#tooLong()
    const holder = await answeringPid(this.#options.path)
    if (holder !== undefined && !this.#options.takeover) {
      const who = holder === 0 ? 'somebody, it cannot be seen who,' : `an agent with pid ${holder}`
      throw new Fault('agent_running', `${who} answers on ${this.#options.path}`)
    }
    await this.#listen()
    if (holder === undefined) this.#rename()
    this.#look()
  }

  /** Takes the path over once the agent is ready. */
  publish(): void {
    if (this.#state === 'waiting') this.#rename()
  }

  isTaken(): boolean {
    const inode = inodeOf(this.#options.path)
    return (
      this.#state === 'passive' || (this.#state === 'active' && inode !== undefined && inode !== this.#inode)
    )
  }

  /** Stops accepting; the path goes only if it is still ours. */
  close(): void {
    if (this.#state === 'active' && this.#inode === inodeOf(this.#options.path))
      unlinkSync(this.#options.path)
    this.#state = 'closed'
    this.#cancel()
    this.#server?.close()
  }

  async #listen(): Promise<void> {
    const temporary = await this.#freeName()
    this.#server?.close()
    this.#server = await listen({ path: temporary, backlog: BACKLOG }, temporary, this.#options.accept)
    chmodSync(temporary, this.#options.mode)
    this.#temporary = temporary
    this.#inode = inodeOf(temporary)
  }

  /** What an agent of the same pid left when it was killed is nobody's: in a container all agents have one pid. */
  async #freeName(): Promise<string> {
    for (let left = NAMES_LIMIT; ; left -= 1) {
      this.#tries += 1
      const name = `${this.#options.path}.${process.pid}.${this.#tries}`
      if (Buffer.byteLength(name) > PATH_LIMIT) throw this.#tooLong()
      const isFree = (await answeringPid(name)) === undefined
      if (isFree) rmSync(name, { force: true })
      if (isFree || left === 0) return name
    }
  }

  #tooLong(): Fault {
    const message = `${this.#options.path} is too long for a socket: at most ${PATH_LIMIT - 12} bytes`
    return new Fault('socket_unusable', message)
  }

  #rename(): void {
    if (this.#temporary) renameSync(this.#temporary, this.#options.path)
    this.#temporary = undefined
    this.#state = 'active'
  }

  #look(): void {
    this.#cancel = this.#options.clock.after(LOOK_MS, () => {
      void this.#check().finally(() => {
        if (this.#state !== 'closed') this.#look()
      })
    })
  }

  async #check(): Promise<void> {
    if (this.#state !== 'active' && this.#state !== 'passive') return
    if (this.#state === 'active' && inodeOf(this.#options.path) === this.#inode) return
    const holder = await answeringPid(this.#options.path)
    if (this.state === 'closed') return
    if (holder === undefined) await this.#comeBack()
    else if (this.#state === 'active') {
      this.#state = 'passive'
      this.#options.onTaken()
    }
  }

  async #comeBack(): Promise<void> {
    try {
      await this.#listen()
      this.#rename()
      this.#options.onBack()
    } catch {
      // The directory may be gone or full; the next look tries again.
    }
  }
}

function inodeOf(path: string): bigint | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino
}

/** What connecting to a path says when nobody listens there. */
const NOBODY: ReadonlySet<unknown> = new Set(['ECONNREFUSED', 'ENOENT'])

/**
 * The pid of the agent that answers on `path`; undefined when nobody listens there, and only then: the path of an agent
 * whose queue is full (EAGAIN), or that this one asks too late because the machine is busy, is not for the taking. 0: unknown.
 */
export function answeringPid(path: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path })
    const done = (pid: number | undefined) => {
      socket.destroy()
      resolve(pid)
    }
    socket.setTimeout(PROBE_MS, () => done(0))
    socket.once('error', (error) => done(NOBODY.has(membersOf(error)['code']) ? undefined : 0))
    socket.once('connect', () => {
      const fd = fdOf(socket)
      done(fd === undefined ? 0 : peerCredentials(fd).pid)
    })
  })
}
