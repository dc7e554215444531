/**
 * The server of a relay: HTTP/1.1, as strict as the egress door, since what it lets through is read once more there.
 * Every refusal carries Holdfast-Reason; nothing of a request is logged.
 */
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { rawFault, sendFault } from '../egress/answer.ts'
import { Lifeline } from '../egress/lifeline.ts'
import { parseRoute, type Route } from '../egress/route.ts'
import { checkHandshake } from '../egress/websocket.ts'
import { carry, tunnel, type UpgradeSide } from './carry.ts'
import type { Relayed, Way, WayOptions } from './way.ts'

export interface RelayOptions extends WayOptions {
  /** Throws unless the sender of `request` may use the relay; called before anything else. */
  readonly checkSender: (request: IncomingMessage) => void
  /** Throws unless the request may pass. */
  readonly checkRequest: (method: string, route: Route) => void
  /** The way for a request; throws what the agent says. */
  readonly wayFor: (route: Route, signal: AbortSignal) => Promise<Way>
}

const HEADER_BYTES = 32 * 1024
const KEEP_ALIVE = 60_000

/** A server and its open connections, upgraded ones too, which Node does not end by itself. */
export interface Relay {
  readonly server: Server
  readonly sockets: ReadonlySet<Socket>
}

/** A relay that is not listening yet. */
export function makeRelay(options: RelayOptions): Relay {
  const server = makeServer(options)
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  return { server, sockets }
}

function makeServer(options: RelayOptions): Server {
  const { connections, headerTimeout } = options.limits
  const server = createServer({
    maxHeaderSize: HEADER_BYTES,
    headersTimeout: headerTimeout,
    // A body may take as long as it moves.
    requestTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE,
    connectionsCheckingInterval: 1_000,
    insecureHTTPParser: false,
    // Exactly one Host is demanded with the other headers.
    requireHostHeader: false,
  })
  server.maxConnections = connections
  // Node would drop what is beyond a limit, an Origin too.
  server.maxHeadersCount = 0
  const answer = (request: IncomingMessage, response: ServerResponse) =>
    void serve(options, { request, response })
  server.on('request', answer)
  server.on('checkContinue', answer)
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    void serve(options, { request, response: responseOn(request, socket), upgrade: { socket, head } })
  })
  server.on('checkExpectation', (request, response) =>
    sendFault(request, response, new Fault('invalid_request', 'the expectation is unknown')),
  )
  server.on('connect', (_request, socket: Duplex) =>
    socket.end(rawFault(new Fault('method_not_allowed', 'CONNECT is refused'))),
  )
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    if (socket.writable) socket.end(rawFault(clientFault(error)))
    else socket.destroy()
  })
  return server
}

/** Node gives an upgrade no response of its own; a refusal is one all the same, the last on its connection. */
function responseOn(request: IncomingMessage, socket: Duplex): ServerResponse {
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(socket as Socket)
  socket.on('error', () => socket.destroy())
  response.once('finish', () => socket.end())
  return response
}

function clientFault(error: NodeJS.ErrnoException): Fault {
  if (error.code === 'HPE_HEADER_OVERFLOW')
    return new Fault('invalid_request', `the headers are over ${HEADER_BYTES} bytes`)
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return new Fault('deadline')
  return new Fault('invalid_request', 'the request is not HTTP/1.1')
}

interface Asked {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly upgrade?: UpgradeSide
}

async function serve(options: RelayOptions, { request, response, upgrade }: Asked): Promise<void> {
  const { clock, limits } = options
  const line = new Lifeline(clock, limits.idleTimeout)
  response.once('close', () => response.writableFinished || line.end(new Fault('canceled')))
  request.on('error', () => {})
  try {
    options.checkSender(request)
    const { method = '', rawHeaders: raw, url = '' } = request
    const route = parseRoute({ url, raw })
    options.checkRequest(method, route)
    if (upgrade) checkHandshake(method, raw)
    const way = await options.wayFor(route, line.signal)
    const relayed: Relayed = { request, response, method, route, line }
    await (upgrade ? tunnel(options, way, relayed, upgrade) : carry(options, way, relayed))
  } catch (caught) {
    sendFault(request, response, Fault.from(line.signal.aborted ? line.signal.reason : caught))
  } finally {
    line.release()
  }
}

/** Listens; throws socket_unusable. */
export function listen(
  { server }: Relay,
  where: { readonly host: string; readonly port: number } | { readonly path: string },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const name = 'path' in where ? where.path : `${where.host}:${where.port}`
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new Fault('socket_unusable', `${name} cannot be listened on (${error.code ?? 'unknown'})`, {
          action: 'Name another port or directory, or end what listens there.',
          cause: error,
        }),
      ),
    )
    server.listen({ ...where }, () => resolve())
  })
}

/** No new connections; what is under way may end within `grace`, then is ended. Resolves when all have gone. */
export function close({ server, sockets }: Relay, clock: Clock, grace: Millis): Promise<void> {
  return new Promise((resolve) => {
    const cancel = clock.after(grace, () => {
      for (const socket of sockets) socket.destroy()
    })
    server.close(() => {
      cancel()
      resolve()
    })
    server.closeIdleConnections()
  })
}
