/**
 * HTTP on TCP ports that anybody may reach: bounded in connections, and in the time that one of them may stand still,
 * be it in the handshake, in a request, or with answers that nobody takes.
 */
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { createSecureContext } from 'node:tls'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'

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
  const tls = () => ({ minVersion: 'TLSv1.2', ...readPair(options) }) as const
  const secure =
    options.files && createHttpsServer({ ...limits, handshakeTimeout: patience, ...tls() }, listener)
  const server: Server = secure ?? createHttpServer(limits, listener)
  server.maxConnections = connections
  // Whoever takes no answers makes no request that could be late: only the connection can.
  server.timeout = patience
  await listen(server, { name, host, port })
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : port,
    reload: () => secure?.setSecureContext(tls()),
    stop: () => {
      server.close()
      server.closeAllConnections()
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
