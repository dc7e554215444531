/**
 * Where the agent's sockets are looked for, in which order, and why a place did not answer. The order is the one of
 * the SPIFFE Workload Endpoint (s.4): what was named by hand, SPIFFE_ENDPOINT_SOCKET, the well-known directories.
 */
import { lstatSync, type Stats } from 'node:fs'
import { connect } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Problem } from '../base/problem.ts'

/** One place to look at. */
export interface SocketPlace {
  readonly path: string
  /** Who named it: an option, the environment, or nobody. */
  readonly from: string
  /** A directory that anybody could have made first: it must belong to this user or to root. */
  readonly guard?: string
}

/** What names a socket; the first that is there decides alone. */
export interface SocketChoice {
  /** `--socket`: a path or a `unix:` URI. */
  readonly socket?: string | undefined
  /** `--dir`: the agent's directory. */
  readonly dir?: string | undefined
  /** SPIFFE_ENDPOINT_SOCKET. */
  readonly endpoint?: string | undefined
}

const SYSTEM_DIR = '/run/holdfast'
const WORKLOAD = join('public', 'workload.sock')
const ADMIN = join('private', 'admin.sock')
const ROOT = 0
const PROBE_MS: Millis = 2_000
// sockaddr_un.sun_path; Node 20 cuts a longer path silently and connects elsewhere.
const PATH_LIMIT = 107

/** SPIFFE_ENDPOINT_SOCKET as it stands in the environment of this process. */
export function endpointFromEnvironment(): string | undefined {
  return process.env['SPIFFE_ENDPOINT_SOCKET']
}

/** HOLDFAST_EGRESS_SOCKET as it stands in the environment of this process: `holdfast exec` sets it. */
export function egressFromEnvironment(): string | undefined {
  return process.env[EGRESS_VARIABLE]
}

/** What names the egress socket: it stands beside the workload socket unless it is named itself. */
export interface EgressChoice {
  /** A path or a `unix:` URI, named by hand. */
  readonly socket?: string | undefined
  /** HOLDFAST_EGRESS_SOCKET. */
  readonly egress?: string | undefined
  /** SPIFFE_ENDPOINT_SOCKET. */
  readonly endpoint?: string | undefined
}

/** Where the egress door may be; throws as workloadSockets. */
export function egressSockets({ socket, egress, endpoint }: EgressChoice): readonly SocketPlace[] {
  if (socket) return [{ path: socketPath(socket, '--socket'), from: '--socket' }]
  if (egress) return [{ path: socketPath(egress, EGRESS_VARIABLE), from: EGRESS_VARIABLE }]
  return workloadSockets({ endpoint }).map((place) => ({ ...place, path: join(dirname(place.path), EGRESS) }))
}

/** Where the Workload API may be; throws invalid_request for a socket that is not a unix one. */
export function workloadSockets(choice: SocketChoice = {}): readonly SocketPlace[] {
  const { socket, dir, endpoint } = choice
  if (socket) return [{ path: socketPath(socket, '--socket'), from: '--socket' }]
  if (dir) return [{ path: resolve(dir, WORKLOAD), from: '--dir' }]
  if (endpoint) return [{ path: socketPath(endpoint, ENDPOINT), from: ENDPOINT }]
  return defaults(WORKLOAD)
}

/** Where the admin door may be: beside the workload socket that the environment names, else as above. */
export function adminSockets({ dir, endpoint }: Omit<SocketChoice, 'socket'> = {}): readonly SocketPlace[] {
  if (dir) return [{ path: resolve(dir, ADMIN), from: '--dir' }]
  if (endpoint?.endsWith(`/${WORKLOAD}`)) {
    return [{ path: join(dirname(dirname(socketPath(endpoint, ENDPOINT))), ADMIN), from: ENDPOINT }]
  }
  return defaults(ADMIN)
}

const ENDPOINT = 'SPIFFE_ENDPOINT_SOCKET'
const EGRESS_VARIABLE = 'HOLDFAST_EGRESS_SOCKET'
const EGRESS = 'egress.sock'

function defaults(name: string): readonly SocketPlace[] {
  const uid = process.geteuid?.() ?? ROOT
  const system = { path: join(SYSTEM_DIR, name), from: 'default' }
  if (uid === ROOT) return [system]
  const own = `/tmp/holdfast-${uid}`
  return [system, { path: join(own, name), from: 'default', guard: own }]
}

/** The path in `unix:///run/x.sock`, `unix:/run/x.sock` or `/run/x.sock`. */
function socketPath(text: string, from: string): string {
  const path = text.replace(/^unix:(?:\/\/)?(?=\/)/, '')
  if (path.startsWith('/') || (from === '--socket' && !path.includes(':'))) return resolve(path)
  throw new Fault('invalid_request', `${from} names ${JSON.stringify(text)}, wanted unix:///path/to.sock`, {
    action: 'Holdfast serves unix sockets only, since they tell who calls: give an absolute path.',
  })
}

/** The only one of `places`, where nothing speaks against it: connecting says whether anybody is there. */
export function onlySocket([only, ...others]: readonly SocketPlace[]): string | undefined {
  if (!only || others.length > 0 || only.guard !== undefined) return undefined
  return isTooLong(only.path) ? undefined : only.path
}

/**
 * The first of `places` where somebody listens. Throws agent_unreachable with one problem a place (`problemsOf`), or
 * admin_denied when a place is there and closed to this user.
 */
export async function findSocket(places: readonly SocketPlace[]): Promise<string> {
  const problems: Problem[] = []
  let isClosed = false
  for (const place of places) {
    const why = untrusted(place) ?? (await refusal(place.path))
    if (why === undefined) return place.path
    isClosed ||= why === 'EACCES' && place.path.endsWith(ADMIN)
    problems.push({ file: `${place.path} (${place.from})`, line: 0, message: sentenceOf(why, place.path) })
  }
  if (isClosed) throw new Fault('admin_denied', undefined, { cause: problems })
  const isAdmin = places.some(({ path }) => path.endsWith(ADMIN))
  const action = isAdmin
    ? { action: 'Start one with `holdfast run --dev`, or name its directory with --dir.' }
    : {}
  throw new Fault('agent_unreachable', undefined, { ...action, cause: problems })
}

const isTooLong = (path: string) => Buffer.byteLength(path) > PATH_LIMIT

/** A stranger's directory under /tmp would be handed this user's tokens. */
function untrusted({ path, guard }: SocketPlace): string | undefined {
  if (isTooLong(path)) return `is over ${PATH_LIMIT} bytes, longer than a socket's path`
  const stats = guard === undefined ? undefined : statOf(guard)
  if (!stats) return undefined
  if (!stats.isDirectory()) return `${guard} is not a directory`
  if (stats.uid === ROOT || stats.uid === process.geteuid?.()) return undefined
  return `${guard} belongs to uid ${stats.uid}: not used`
}

/** Why nobody answers at `path`: an errno name or a sentence; undefined when somebody does. */
function refusal(path: string): Promise<string | undefined> {
  return new Promise((done) => {
    const socket = connect({ path })
    const end = (why: string | undefined) => {
      socket.destroy()
      done(why)
    }
    socket.setTimeout(PROBE_MS, () => end(`does not answer within ${PROBE_MS / 1000} s`))
    socket.once('connect', () => end(undefined))
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? 'cannot be used'))
  })
}

function sentenceOf(why: string, path: string): string {
  switch (why) {
    case 'ENOENT':
    case 'ENOTDIR':
      return 'does not exist'
    case 'ECONNREFUSED':
      return 'nobody listens: its agent has ended'
    case 'EACCES': {
      const owner = statOf(path)?.uid ?? statOf(dirname(path))?.uid
      const whose = owner === undefined ? '' : `: it belongs to uid ${owner}`
      return `is closed to uid ${process.geteuid?.()}${whose}`
    }
    case 'ENOTSOCK':
    case 'EPROTOTYPE':
      return 'is not a stream socket'
    default:
      return why
  }
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch {
    return undefined
  }
}
