/**
 * A Redis server that is kept connected. States: closed -> opening (connected, then prepared) -> open -> closed, again
 * and again until stopped. Nothing is asked before the preparation has found the server fit, which is looked at again
 * every second.
 */
import { backoff } from '../base/backoff.ts'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { openRedisConnection, type RedisAccess, type RedisConnection } from './redis-connection.ts'
import { RedisError, type Reply } from './resp.ts'

export interface RedisOptions extends RedisAccess {
  /** Whether the server is fit; before its first use, and then every second. Throws what is wrong with it. */
  readonly look: (connection: RedisConnection) => Promise<void>
  readonly onMessage?: (channel: string, text: string) => void
  /** Once per change: why it is of no use, or undefined when it is again. */
  readonly onState?: (fault: Fault | undefined) => void
}

const LOOK_EVERY: Millis = 1_000
const AGAIN_FIRST: Millis = 100
const AGAIN_LIMIT: Millis = 2_000

/** Opens it; commands fail until it is open. `first` of what it gives resolves when the first try is over. */
export class Redis {
  readonly #options: RedisOptions
  #connection: RedisConnection | undefined
  #why: Fault | undefined = new Fault('replay_unavailable', 'the Redis server is not connected yet')
  #tries = 0
  #isStopped = false
  #cancel: () => void = () => {}
  /** Resolves with what the first try to connect came to: undefined when it is open. */
  readonly first: Promise<Fault | undefined>

  constructor(options: RedisOptions) {
    this.#options = options
    this.first = this.#open().then(() => this.#why)
  }

  /** Why it is of no use; undefined when it is open. */
  get fault(): Fault | undefined {
    return this.#why
  }

  /** The reply to one command; throws replay_unavailable at once while it is not open, and RedisError. */
  call(parts: readonly (string | number)[]): Promise<Reply> {
    if (this.#why || !this.#connection) return Promise.reject(this.#why)
    return this.#connection.call(parts)
  }

  stop(): void {
    this.#isStopped = true
    this.#why = new Fault('replay_unavailable', 'the agent lets go of the Redis server')
    this.#cancel()
    this.#connection?.close()
  }

  async #open(): Promise<void> {
    let connection: RedisConnection | undefined
    try {
      connection = await openRedisConnection(this.#options, {
        ...(this.#options.onMessage ? { onMessage: this.#options.onMessage } : {}),
        onClose: () => this.#onClose(connection),
      })
      if (this.#isStopped) return connection.close()
      await this.#options.look(connection)
      this.#connection = connection
      this.#tries = 0
      this.#become(undefined)
      this.#lookLater(connection)
    } catch (error) {
      connection?.close()
      this.#fail(faultOf(error))
    }
  }

  #lookLater(connection: RedisConnection): void {
    this.#cancel = this.#options.clock.after(LOOK_EVERY, () => {
      this.#options.look(connection).then(
        () => this.#connection === connection && this.#lookLater(connection),
        (error: unknown) => {
          if (this.#connection === connection) this.#become(faultOf(error))
          connection.close()
          this.#onClose(connection)
        },
      )
    })
  }

  /** Only an open one: what is still being opened tells its end by throwing. */
  #onClose(connection: RedisConnection | undefined): void {
    if (connection === undefined || this.#connection !== connection) return
    this.#connection = undefined
    this.#cancel()
    this.#fail(this.#why ?? new Fault('replay_unavailable', 'the connection to the Redis server is lost'))
  }

  #fail(why: Fault): void {
    if (this.#isStopped) return
    this.#become(why)
    const wait = backoff(this.#tries, AGAIN_FIRST, AGAIN_LIMIT)
    this.#tries += 1
    this.#cancel = this.#options.clock.after(wait, () => void this.#open())
  }

  #become(why: Fault | undefined): void {
    const isSame = this.#why?.message === why?.message
    this.#why = why
    if (!isSame) this.#options.onState?.(why)
  }
}

/** A RedisError says its code only: its text may quote a command. */
export function faultOf(error: unknown): Fault {
  if (error instanceof RedisError)
    return new Fault('replay_unavailable', `the Redis server refuses a command: ${error.code}`, {
      ...(ACL.has(error.code)
        ? { action: 'Give the user of the agent the rights of deploy/redis/users.acl.' }
        : {}),
    })
  const fault = Fault.from(error, 'replay_unavailable')
  if (fault.reason === 'replay_unavailable') return fault
  // A file that cannot be used is no request's fault.
  return new Fault('replay_unavailable', fault.message, { action: fault.action, cause: fault })
}

const ACL: ReadonlySet<string> = new Set(['NOAUTH', 'NOPERM', 'WRONGPASS'])
