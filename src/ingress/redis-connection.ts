/**
 * One connection to a Redis server. Commands are sent as they come and answered in their order; each has a deadline,
 * and one that is missed ends the connection: what comes after it could not be told apart.
 */
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { readTrusted } from '../base/trusted.ts'
import type { RedisPlace } from './redis-place.ts'
import { encodeCommand, RedisError, type Reply, ReplyReader } from './resp.ts'

export interface RedisAccess {
  readonly clock: Clock
  readonly place: RedisPlace
  /** Read for each connection, so that a new password needs no restart. */
  readonly passwordFile: string | undefined
  /** Roots that the server is verified by (PEM); the system's when absent. */
  readonly caFile: string | undefined
  /** What the agent shows to a server that asks for a certificate (PEM), and its key; read for each connection. */
  readonly client: RedisClientFiles | undefined
  /** How long an answer may take, and a connection to be made. */
  readonly deadline: Millis
}

export interface RedisClientFiles {
  readonly certificateFile: string
  readonly keyFile: string
}

export interface RedisHandlers {
  /** What is published on a channel that the connection has subscribed to. */
  readonly onMessage?: (channel: string, text: string) => void
  /** Called once, when it is of no use any more. */
  readonly onClose: () => void
}

interface Pending {
  readonly resolve: (reply: Reply) => void
  readonly reject: (error: Error) => void
}

const PENDING_LIMIT = 16_384
const PASSWORD_LIMIT = 4096
const CA_LIMIT = 1024 * 1024
const KEY_LIMIT = 64 * 1024
const CHANNEL_LIMIT = 1024

/** Connects and authenticates; throws replay_unavailable. */
export async function openRedisConnection(
  access: RedisAccess,
  handlers: RedisHandlers,
): Promise<RedisConnection> {
  const { place, passwordFile } = access
  const password =
    passwordFile === undefined
      ? undefined
      : readTrusted(passwordFile, { maxBytes: PASSWORD_LIMIT, secret: true }).toString('utf8').trimEnd()
  const connection = new RedisConnection(access, socketOf(access), handlers)
  try {
    await connection.connected()
    if (password !== undefined)
      await connection.call(['AUTH', ...(place.user === undefined ? [] : [place.user]), password])
    if (place.database !== 0) await connection.call(['SELECT', place.database])
    return connection
  } catch (error) {
    connection.close()
    throw error
  }
}

function socketOf({ place, caFile, client }: RedisAccess): Socket {
  const { at, isTls } = place
  if (!isTls || 'path' in at) return connect({ ...at, noDelay: true, keepAlive: true })
  const ca = caFile === undefined ? {} : { ca: readTrusted(caFile, { maxBytes: CA_LIMIT }) }
  const servername = isIP(at.host) === 0 ? at.host : ''
  const key = client && readTrusted(client.keyFile, { maxBytes: KEY_LIMIT, secret: true })
  try {
    const own = client && { cert: readTrusted(client.certificateFile, { maxBytes: CA_LIMIT }), key }
    return connectTls({ ...at, ...ca, ...own, servername, minVersion: 'TLSv1.2', rejectUnauthorized: true })
  } catch (error) {
    if (error instanceof Fault) throw error
    // Not in the words of the library, which quote the file.
    throw new Fault('config_invalid', 'the certificate and key for the Redis server are no pair in PEM')
  } finally {
    key?.fill(0)
  }
}

export class RedisConnection {
  readonly #access: RedisAccess
  readonly #socket: Socket
  readonly #handlers: RedisHandlers
  readonly #reader = new ReplyReader()
  readonly #pending: Pending[] = []
  #why: Error | undefined

  constructor(access: RedisAccess, socket: Socket, handlers: RedisHandlers) {
    this.#access = access
    this.#socket = socket
    this.#handlers = handlers
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    socket.on('error', (error) => this.#end(unreachable(error)))
    socket.on('close', () =>
      this.#end(new Fault('replay_unavailable', 'the Redis server closed the connection')),
    )
  }

  /** Resolves when commands can be sent, TLS included. */
  connected(): Promise<void> {
    const event = this.#access.place.isTls ? 'secureConnect' : 'connect'
    return this.#within((resolve, reject) => {
      this.#pending.push({ resolve: () => {}, reject })
      this.#socket.once(event, () => {
        this.#pending.shift()
        resolve()
      })
    })
  }

  /** The reply to a command; throws RedisError for one that Redis refuses, else replay_unavailable. */
  call(parts: readonly (string | number)[]): Promise<Reply> {
    if (this.#pending.length >= PENDING_LIMIT)
      return Promise.reject(new Fault('replay_unavailable', 'too many requests wait for the Redis server'))
    return this.#within((resolve, reject) => {
      this.#pending.push({ resolve, reject })
      this.#socket.write(encodeCommand(parts))
    })
  }

  close(): void {
    this.#end(new Fault('replay_unavailable', 'the connection to the Redis server was closed'))
  }

  #within<T>(begin: (resolve: (value: T) => void, reject: (error: Error) => void) => void): Promise<T> {
    if (this.#why) return Promise.reject(this.#why)
    return new Promise((resolve, reject) => {
      const cancel = this.#access.clock.after(this.#access.deadline, () =>
        this.#end(new Fault('replay_unavailable', 'the Redis server does not answer in time')),
      )
      begin(
        (value) => {
          cancel()
          resolve(value)
        },
        (error) => {
          cancel()
          reject(error)
        },
      )
    })
  }

  #read(chunk: Buffer): void {
    try {
      for (const reply of this.#reader.read(chunk)) this.#answer(reply)
    } catch (error) {
      this.#end(Fault.from(error, 'replay_unavailable'))
    }
  }

  #answer(reply: Reply): void {
    if (this.#why) return
    if (Array.isArray(reply) && reply[0] === 'message' && this.#handlers.onMessage) {
      const [, channel, text] = reply as readonly Reply[]
      if (typeof channel === 'string' && channel.length < CHANNEL_LIMIT && typeof text === 'string')
        this.#handlers.onMessage(channel, text)
      return
    }
    const next = this.#pending.shift()
    if (!next) throw new Fault('replay_unavailable', 'the Redis server answers what was not asked')
    if (reply instanceof RedisError) next.reject(reply)
    else next.resolve(reply)
  }

  #end(why: Error): void {
    if (this.#why) return
    this.#why = why
    this.#socket.destroy()
    for (const { reject } of this.#pending.splice(0)) reject(why)
    this.#handlers.onClose()
  }
}

function unreachable(error: Error): Fault {
  const code =
    'code' in error && /^[A-Z0-9_]{1,64}$/.test(String(error.code)) ? ` (${String(error.code)})` : ''
  return new Fault('replay_unavailable', `the Redis server cannot be reached${code}`, { cause: error })
}
