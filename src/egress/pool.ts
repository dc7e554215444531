/**
 * The connections of one workload instance to one target: nobody else's requests go over them, and they end with the
 * lease. States: `unknown` until a first connection has shown which HTTP the target speaks, then `http1` or `http2`;
 * `closed` for good.
 */

import { setMaxListeners } from 'node:events'
import { Agent } from 'node:http'
import type { ClientHttp2Session } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { TargetPlatform } from '../policy/grant.ts'
import { type Attempt, type Outgoing, upstreamFault } from './attempt.ts'
import { sendHttp1, type UpgradeAttempt, upgradeHttp1 } from './http1.ts'
import { openSession, sendHttp2 } from './http2.ts'
import type { TlsClient } from './trust.ts'

/** Which connection is wanted. */
export interface DialAsk {
  /** Scheme, host and any port that is not the scheme's own. */
  readonly origin: string
  readonly platform: Pick<TargetPlatform, 'tls' | 'addresses'>
  /** In order of preference; for https only. */
  readonly alpn: readonly ('h2' | 'http/1.1')[]
  /** What the connection shows; only https can. */
  readonly client: TlsClient | undefined
}

/** A new connection, verified; a TLSSocket for https. Throws upstream_address, upstream_tls, upstream_unavailable. */
export type Dial = (ask: DialAsk, signal: AbortSignal) => Promise<Socket>

export interface PoolOptions {
  readonly dial: Dial
  readonly clock: Clock
  readonly connectTimeout: Millis
  /** Requests at a time. */
  readonly limit: number
  /** Counts a connection among those of all pools until the returned function is called; throws overloaded. */
  readonly count?: () => () => void
}

/** Where a pool leads, and what all of its connections show. */
export interface PoolPlace {
  readonly origin: string
  readonly platform: TargetPlatform
  readonly certificate?: TlsClient | undefined
}

const FREE_SOCKETS = 16
const FREE_FOR: Millis = 30_000
const RENEW_EVERY: Millis = 30_000

type State = 'unknown' | 'http1' | 'http2' | 'closed'

/** All connections to one target for one workload instance. */
export class Pool {
  readonly platform: TargetPlatform
  /** Thumbprints of the keys that its requests were proved with. */
  readonly jkts = new Set<string>()
  readonly #origin: string
  readonly #client: TlsClient | undefined
  readonly #options: PoolOptions
  readonly #sockets = new Set<Socket>()
  readonly #ended = new AbortController()
  readonly #agent: Agent
  readonly #single: Agent
  #state: State = 'unknown'
  #first: Promise<void> | undefined
  #spare: Socket | undefined
  #session: ClientHttp2Session | undefined
  #open = 0
  #renewed: Millis = Number.NEGATIVE_INFINITY

  constructor({ origin, platform, certificate }: PoolPlace, options: PoolOptions) {
    this.#origin = origin
    this.#client = certificate
    this.platform = platform
    this.#options = options
    // Each connection that is being made listens.
    setMaxListeners(0, this.#ended.signal)
    if (!origin.startsWith('https:')) this.#state = 'http1'
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: options.limit,
      maxFreeSockets: FREE_SOCKETS,
      timeout: FREE_FOR,
    })
    this.#single = new Agent({ keepAlive: false })
    for (const agent of [this.#agent, this.#single]) this.#connectWith(agent)
  }

  /** Requests under way. */
  get open(): number {
    return this.#open
  }

  /** Counts a request until the returned function is called; throws target_busy. */
  take(): () => void {
    if (this.#open >= this.#options.limit)
      throw new Fault(
        'target_busy',
        `${this.#open} requests of this workload are open at the target, its limit`,
      )
    this.#open += 1
    let isOpen = true
    return () => {
      if (isOpen) this.#open -= 1
      isOpen = false
    }
  }

  /** Whether a token that the target refuses may be given up for a new one: rarely, or the target could order tokens. */
  mayRenew(): boolean {
    const now = this.#options.clock.monotonic()
    if (now - this.#renewed < RENEW_EVERY) return false
    this.#renewed = now
    return true
  }

  /** Sends `outgoing`, whose body follows. Throws what dialling throws. */
  async send(outgoing: Outgoing): Promise<Attempt> {
    await this.#known()
    if (this.#state === 'http1') return sendHttp1(this.#agent, outgoing)
    if (!this.#session || this.#session.closed)
      throw new Fault('upstream_unavailable', 'the target closes its connections')
    return sendHttp2(this.#session, outgoing, this.#options.clock)
  }

  /** Sends a request to switch protocols, over a connection of its own. */
  upgrade(outgoing: Outgoing): UpgradeAttempt {
    if (this.#state === 'closed') throw new Fault('lease_ended')
    return upgradeHttp1(this.#single, outgoing)
  }

  /** Takes no request from now on, and ends every connection and every request. */
  close(): void {
    this.#state = 'closed'
    this.#ended.abort(new Fault('lease_ended'))
    this.#agent.destroy()
    this.#single.destroy()
    // Not before the frame is read that may have led here: Node's memory breaks when a session ends in between.
    setImmediate(() => {
      // Without an error its streams would end like whole ones.
      this.#session?.destroy(new Fault('lease_ended'))
      for (const socket of this.#sockets) socket.destroy()
    })
  }

  async #known(): Promise<void> {
    while (this.#state === 'unknown' || (this.#state === 'http2' && !this.#session)) {
      this.#first ??= this.#learn().finally(() => {
        this.#first = undefined
      })
      await this.#first
    }
    if (this.#state === 'closed') throw new Fault('lease_ended')
  }

  /** One connection shows what the target speaks, and then serves. */
  async #learn(): Promise<void> {
    const socket = await this.#dial(['h2', 'http/1.1'])
    if (this.#state === 'closed') return
    if ('alpnProtocol' in socket && socket.alpnProtocol === 'h2') {
      this.#state = 'http2'
      this.#keep(openSession(this.#origin, socket))
    } else {
      this.#state = 'http1'
      this.#spare = socket
      socket.once('close', () => {
        if (this.#spare === socket) this.#spare = undefined
      })
    }
  }

  #keep(session: ClientHttp2Session): void {
    this.#session = session
    const forget = () => {
      if (this.#session === session) this.#session = undefined
    }
    session.once('goaway', forget)
    session.once('close', forget)
  }

  #connectWith(agent: Agent): void {
    const connect = (_options: object, done: (error: Error | null, socket?: Duplex) => void) => {
      const spare = agent === this.#agent ? this.#spare : undefined
      this.#spare = spare ? undefined : this.#spare
      if (spare && !spare.destroyed) return spare
      this.#dial(['http/1.1']).then(
        (socket) => done(null, socket),
        (caught) => done(upstreamFault(caught)),
      )
      return undefined
    }
    // The type says that a connection is returned at once; the agent waits for `done` when none is.
    Object.assign(agent, { createConnection: connect })
  }

  async #dial(alpn: DialAsk['alpn']): Promise<Socket> {
    const { dial, clock, connectTimeout } = this.#options
    const leave = this.#options.count?.()
    const late = new AbortController()
    const end = () => late.abort(this.#ended.signal.reason)
    this.#ended.signal.addEventListener('abort', end, { once: true })
    const cancel = clock.after(connectTimeout, () =>
      late.abort(new Fault('upstream_unavailable', 'the target takes no connection in time')),
    )
    try {
      const ask = { origin: this.#origin, platform: this.platform, alpn, client: this.#client }
      const socket = await dial(ask, late.signal)
      this.#watch(socket, leave)
      return socket
    } catch (caught) {
      leave?.()
      throw upstreamFault(late.signal.aborted ? late.signal.reason : caught)
    } finally {
      cancel()
      this.#ended.signal.removeEventListener('abort', end)
    }
  }

  #watch(socket: Socket, leave: (() => void) | undefined): void {
    this.#sockets.add(socket)
    socket.once('close', () => {
      leave?.()
      this.#sockets.delete(socket)
    })
    socket.on('error', () => {})
    if (this.#state === 'closed') socket.destroy()
  }
}
