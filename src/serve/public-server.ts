/**
 * HTTP on TCP ports that anybody may reach: bounded in connections, in the time that one of them may stand still, be it
 * in the handshake, in a request, or with answers that nobody takes, and in what all of them may ask at once.
 */
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer, type RequestListener } from 'node:http'
import { createServer, type Server, type Socket } from 'node:net'
import { createSecureContext, createServer as createTlsServer } from 'node:tls'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { paced } from './paced.ts'
import { REQUEST, Turns } from './turns.ts'

export interface PublicServerOptions {
  /** What the configuration calls the address. */
  readonly name: string
  readonly host: string
  readonly port: number
  /** PEM; plain HTTP when absent. */
  readonly files: PairFiles | undefined
  readonly connections: number
  readonly maxHeaderSize: number
  /** How long a connection may stand still. */
  readonly patience: Millis
  readonly listener: RequestListener
}

export interface PairFiles {
  readonly certificateFile: string
  readonly keyFile: string
}

export interface PublicServer {
  readonly port: number
  /** Reads certificate and key again; keeps the last good pair when they do not fit. Throws config_invalid. */
  reload(): void
  stop(): void
}

const KEEP_ALIVE: Millis = 5_000

/** Listens; throws config_invalid for an address that cannot be had, or a pair that cannot be read. */
export async function openPublicServer(options: PublicServerOptions): Promise<PublicServer> {
  const { connections, host, listener, maxHeaderSize, name, patience, port } = options
  const limits = {
    maxHeaderSize,
    requestTimeout: patience,
    headersTimeout: patience,
    keepAliveTimeout: Math.min(patience, KEEP_ALIVE),
    connectionsCheckingInterval: patience,
  }
  const turns = new Turns()
  const http = createHttpServer(limits, (request, response) => {
    turns.spend(name, REQUEST)
    listener(request, response)
  })
  // Whoever takes no answers makes no request that could be late: only the connection can.
  http.timeout = patience
  // Deadlines begin with listening; this server only gets connections handed in.
  http.emit('listening')
  const enter = (socket: Socket) => void http.emit('connection', paced(socket, turns.of(name)).near)
  const tls = () => ({ minVersion: 'TLSv1.2', ...readPair(options) }) as const
  const secure =
    options.files &&
    createTlsServer({ ALPNProtocols: ['http/1.1'], handshakeTimeout: patience, ...tls() }, enter)
  secure?.on('tlsClientError', (_error, socket) => socket.destroy())
  const server: Server = secure ?? createServer(enter)
  server.maxConnections = connections
  await listen(server, { name, host, port })
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : port,
    reload: () => secure?.setSecureContext(tls()),
    stop: () => {
      server.close()
      http.closeAllConnections()
      http.close()
    },
  }
}

function listen(
  server: Server,
  { name, host, port }: Pick<PublicServerOptions, 'name' | 'host' | 'port'>,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new Fault('config_invalid', `${name}: ${host}:${port} cannot be used`, { cause })),
    )
    server.listen(port, host, () => resolve())
  })
}

/** Tried before it is used: a server that was given half of a pair would show nothing any more. */
function readPair({ name, files }: PublicServerOptions): { readonly cert: Buffer; readonly key: Buffer } {
  const { certificateFile = '', keyFile = '' } = files ?? {}
  try {
    const pair = { cert: readFileSync(certificateFile), key: readFileSync(keyFile) }
    createSecureContext(pair)
    return pair
  } catch (cause) {
    throw new Fault('config_invalid', `${name}: its certificate and key cannot be read or do not fit`, {
      cause,
    })
  }
}
