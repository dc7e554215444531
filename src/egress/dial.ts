/** Outgoing connections: a checked address, TCP, TLS, a verified server, in this order and within one deadline. */
import type { LookupAddress } from 'node:dns'
import { connect, isIP, type LookupFunction, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { TlsTrust } from '../policy/grant.ts'
import type { Resolver } from './resolve.ts'
import type { TlsClient, Trust } from './trust.ts'

/** Where to and how. */
export interface DialAsk {
  /** A full name or an IP literal, without brackets. */
  readonly host: string
  readonly port: number
  /** Near addresses that may be dialled, and ranges of them. */
  readonly addresses: readonly string[]
  /** Aborting it ends a connection that is being made; afterwards the socket is the caller's. */
  readonly signal: AbortSignal
}

/** The same over TLS. */
export interface DialTlsAsk extends DialAsk {
  readonly tls: TlsTrust
  readonly alpn?: readonly string[]
  readonly client?: TlsClient | undefined
}

export interface DialerOptions {
  readonly clock: Clock
  readonly resolver: Resolver
  readonly trust: Trust
  readonly patience?: Millis
}

const PATIENCE: Millis = 10_000

/** Makes connections. Everything thrown is a Fault: upstream_address, upstream_unavailable, upstream_tls, canceled. */
export class Dialer {
  readonly #options: DialerOptions

  constructor(options: DialerOptions) {
    this.#options = options
  }

  /** A TCP connection to a checked address. */
  async dial(ask: DialAsk): Promise<Socket> {
    return this.#within(ask, (signal) => this.#connect(ask, signal))
  }

  /** A TLS connection whose server is verified: nothing has been sent over it. */
  async dialTls(ask: DialTlsAsk): Promise<TLSSocket> {
    return this.#within(ask, async (signal) => {
      const options = this.#options.trust.optionsFor(ask.host, ask.tls, ask.client)
      const socket = await this.#connect(ask, signal)
      const secure = connectTls({ ...options, ...(ask.alpn ? { ALPNProtocols: [...ask.alpn] } : {}), socket })
      await settled(secure, 'secureConnect', signal, tlsFault)
      return secure
    })
  }

  async #connect(ask: DialAsk, signal: AbortSignal): Promise<Socket> {
    const { host, port } = ask
    const addresses = await this.#options.resolver.resolve(host, ask.addresses)
    if (signal.aborted) throw Fault.from(signal.reason, 'canceled')
    const socket = connect({ host, port, lookup: fixedLookup(addresses), noDelay: true })
    await settled(socket, 'connect', signal, (error) => unreachable(host, error))
    return socket
  }

  async #within<T>(ask: DialAsk, make: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, patience = PATIENCE } = this.#options
    if (ask.signal.aborted) throw new Fault('canceled')
    const controller = new AbortController()
    const cancel = clock.after(patience, () =>
      controller.abort(new Fault('upstream_unavailable', `${ask.host} does not answer in time`)),
    )
    const leave = () => controller.abort(new Fault('canceled'))
    ask.signal.addEventListener('abort', leave, { once: true })
    try {
      return await make(controller.signal)
    } finally {
      cancel()
      ask.signal.removeEventListener('abort', leave)
    }
  }
}

/** Host and port of a canonical origin (`https://orders.example.org:8443`). */
export function placeOf(origin: string): { readonly host: string; readonly port: number } {
  const { hostname, port, protocol } = new URL(origin)
  const host = hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
  return { host, port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port) }
}

/** Answers with what was checked, whatever DNS says by now. */
function fixedLookup(addresses: readonly LookupAddress[]): LookupFunction {
  return (_host, { all }, callback) => {
    const [first] = addresses
    if (all) callback(null, [...addresses])
    else callback(null, first?.address ?? '', first?.family ?? 0)
  }
}

/** Resolves on `event`; destroys the socket and throws on an error, an end or an abort before it. */
function settled(
  socket: Socket,
  event: 'connect' | 'secureConnect',
  signal: AbortSignal,
  faultOf: (error: Error | undefined) => Fault,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (fault?: Fault) => {
      socket.off(event, onEvent).off('error', onError).off('close', onClose)
      signal.removeEventListener('abort', onAbort)
      if (!fault) return resolve()
      socket.on('error', () => {})
      socket.destroy()
      return reject(fault)
    }
    const onEvent = () => done()
    const onError = (error: Error) => done(faultOf(error))
    const onClose = () => done(faultOf(undefined))
    const onAbort = () => done(Fault.from(signal.reason, 'canceled'))
    socket
      .once(event, () => done())
      .once('error', onError)
      .once('close', onClose)
    signal.addEventListener('abort', onAbort, { once: true })
  })
}

function unreachable(host: string, error: Error | undefined): Fault {
  const where = isIP(host) === 6 ? `[${host}]` : host
  return new Fault('upstream_unavailable', `${where} cannot be reached${codeText(error)}`, { cause: error })
}

/** What `Trust` said, or OpenSSL's code: its text quotes certificates. */
function tlsFault(error: Error | undefined): Fault {
  if (error instanceof Fault) return error
  const isTls = /^(?:ERR_(?:SSL|TLS)|[A-Z]*CERT|DEPTH|SELF_SIGNED|UNABLE_TO|HOSTNAME|EPROTO)/.test(
    codeOf(error),
  )
  return isTls
    ? new Fault('upstream_tls', `the connection is not verified${codeText(error)}`, { cause: error })
    : new Fault('upstream_unavailable', `the TLS handshake was cut off${codeText(error)}`, { cause: error })
}

function codeText(error: Error | undefined): string {
  const code = codeOf(error)
  return code === '' ? '' : ` (${code})`
}

function codeOf(error: Error | undefined): string {
  const code = error && 'code' in error ? String(error.code) : ''
  return /^[A-Z0-9_]{1,64}$/.test(code) ? code : ''
}
