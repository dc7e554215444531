/**
 * The way of one connection over TCP: TLS with the newest certificate, the client's own certificate demanded and judged
 * by `identify`, counted by who that is, then HTTP/2 or HTTP/1.1 as ALPN says. No session is ever resumed: a resumed one
 * is not judged again.
 */
import { constants } from 'node:crypto'
import { createServer, type Socket } from 'node:net'
import { type SecureContext, TLSSocket } from 'node:tls'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Caller } from './caller.ts'
import type { GrpcSide } from './grpc.ts'
import type { HttpSide } from './http.ts'
import type { OwnerLimits } from './limits.ts'

/** Who showed a certificate. */
export interface Identified {
  readonly caller: Caller
  /** When the connection ends with the certificate. */
  readonly endsIn: Millis
}

export interface TlsDoorOptions {
  readonly host: string
  readonly port: number
  /** What the configuration calls the address. */
  readonly name: string
  /** The newest one, asked for at each handshake; throws when there is none. */
  readonly context: () => SecureContext
  /** Judges the client's chain, leaf first, in DER; throws the reason to hang up. */
  readonly identify: (chain: readonly Buffer[]) => Identified
  readonly limits: OwnerLimits
  /** How many may be in their handshake at a time, and for how long. */
  readonly handshakes: number
  readonly patience: Millis
  readonly grpc: Pick<GrpcSide, 'inject'>
  readonly http: Pick<HttpSide, 'inject'>
  readonly clock: Clock
  readonly onConnection: (fault: Fault | undefined) => void
}

export interface TlsDoor {
  readonly port: number
  /** No new connections. */
  close(): void
  /** Ends those in their handshake too. */
  stop(): void
}

/** Of a context that such a door shows. */
export const SERVER_BASE = { minVersion: 'TLSv1.2', secureOptions: constants.SSL_OP_NO_TICKET } as const
const CHAIN_LIMIT = 8
const ALPN = ['h2', 'http/1.1']
const TIMER_LIMIT: Millis = 2 ** 31 - 1

/** Listens; throws config_invalid when the address cannot be had. */
export async function openTlsDoor(options: TlsDoorOptions): Promise<TlsDoor> {
  const { host, name, port } = options
  const shaking = new Set<Socket>()
  const server = createServer((socket) => shake(options, shaking, socket))
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new Fault('config_invalid', `${name}: ${host}:${port} cannot be used`, { cause })),
    )
    server.listen(port, host, () => resolve())
  })
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : port,
    close: () => server.close(),
    stop: () => {
      server.close()
      for (const socket of shaking) socket.destroy()
    },
  }
}

function shake(options: TlsDoorOptions, shaking: Set<Socket>, raw: Socket): void {
  raw.on('error', () => raw.destroy())
  const { clock, context, handshakes, onConnection, patience } = options
  const refuse = (fault: Fault) => {
    onConnection(fault)
    raw.destroy()
  }
  try {
    if (shaking.size >= handshakes)
      throw new Fault('overloaded', `${handshakes} handshakes are under way, the limit`)
    const socket = new TLSSocket(raw, {
      isServer: true,
      secureContext: context(),
      requestCert: true,
      // Judged by `identify`, which knows trust domains; OpenSSL has shown that the client holds the key.
      rejectUnauthorized: false,
      ALPNProtocols: ALPN,
    })
    shaking.add(raw)
    const cancel = clock.after(patience, () => refuse(new Fault('deadline')))
    const leave = () => {
      cancel()
      shaking.delete(raw)
    }
    raw.once('close', leave)
    socket.on('error', () => socket.destroy())
    socket.once('secure', () => {
      leave()
      // A tls.Server says so of its sockets; HTTP/2 waits for it.
      Object.assign(socket, { secureConnecting: false })
      enter(options, socket)
    })
  } catch (caught) {
    refuse(Fault.from(caught))
  }
}

function enter(options: TlsDoorOptions, socket: TLSSocket): void {
  const { clock, grpc, http, identify, limits, onConnection } = options
  try {
    const { caller, endsIn } = identify(chainOf(socket))
    socket.once('close', limits.take(caller.owner))
    socket.once(
      'close',
      clock.after(Math.min(endsIn, TIMER_LIMIT), () => socket.destroy()),
    )
    onConnection(undefined)
    if (socket.alpnProtocol === 'h2') grpc.inject(socket, caller)
    else http.inject(socket, caller)
  } catch (caught) {
    onConnection(Fault.from(caught))
    socket.destroy()
  }
}

/** Leaf first; empty when none was shown. */
function chainOf(socket: TLSSocket): readonly Buffer[] {
  const chain: Buffer[] = []
  let next = socket.getPeerCertificate(true)
  // An empty object where there is no certificate; its own issuer at the end.
  while (next?.raw && chain.length < CHAIN_LIMIT && !chain.at(-1)?.equals(next.raw)) {
    chain.push(next.raw)
    next = next.issuerCertificate
  }
  return chain
}
