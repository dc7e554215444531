/**
 * The private socket of one command: requests of its process tree go to the agent over connections of this process, so
 * that keys, tokens and budgets are this process's and end with it.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { EgressWay } from './egress-way.ts'
import { checkOnly, type Only } from './only.ts'
import { close, listen, makeRelay } from './server.ts'
import { type Descendant, descendantOf } from './tree.ts'

export interface SessionOptions {
  readonly egressSocket: string
  readonly only: readonly Only[]
  readonly clock: Clock
  /** Where its directory is made; the one for temporary files when absent. */
  readonly dir?: string
  readonly patience?: Millis
}

/** An open socket. */
export interface Session {
  readonly path: string
  /** Lets the tree of `pid` in; before that, nobody. */
  admit(pid: number): void
  /** Ends connections, and removes the socket. */
  stop(): Promise<void>
}

const LIMITS = {
  connections: 256,
  headerTimeout: 5_000,
  idleTimeout: 900_000,
  bufferBytes: 64 * 1024,
}
const PATIENCE: Millis = 10_000
// sockaddr_un.sun_path.
const PATH_LIMIT = 107

/** Opens the socket (0600) in a fresh directory (0700); throws socket_unusable. */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { clock, dir = tmpdir(), egressSocket, only, patience = PATIENCE } = options
  const folder = mkdtempSync(join(dir, 'holdfast-exec-'))
  const path = join(folder, 'egress.sock')
  const remove = () => rmSync(folder, { recursive: true, force: true })
  if (Buffer.byteLength(path) > PATH_LIMIT) {
    remove()
    throw new Fault('socket_unusable', `${path} is too long for a socket: at most ${PATH_LIMIT} bytes`)
  }
  const egress = new EgressWay({ path: egressSocket, clock, connections: LIMITS.connections, patience })
  const callers = new WeakMap<Socket, Descendant | Fault>()
  let root: number | undefined
  const relay = makeRelay({
    clock,
    limits: LIMITS,
    checkSender: (request) => checkSender(request, callers),
    checkRequest: (method, route) => checkOnly(only, method, route),
    wayFor: async () => egress,
  })
  relay.server.on('connection', (socket: Socket) => callers.set(socket, callerOf(root, socket)))
  await listen(relay, { path })
  chmodSync(path, 0o600)
  return {
    path,
    admit: (pid) => {
      root = pid
    },
    stop: async () => {
      await close(relay, clock, 0)
      egress.stop()
      remove()
    },
  }
}

/** Asked when it connects: the answer to each of its requests is that it may, or why not. */
function callerOf(root: number | undefined, socket: Socket): Descendant | Fault {
  try {
    if (root === undefined) throw new Fault('session_foreign')
    return descendantOf(root, socket)
  } catch (caught) {
    return Fault.from(caught, 'session_foreign')
  }
}

function checkSender({ socket }: IncomingMessage, callers: WeakMap<Socket, Descendant | Fault>): void {
  const caller = callers.get(socket) ?? new Fault('session_foreign')
  if (caller instanceof Fault) throw caller
  caller.check()
}
