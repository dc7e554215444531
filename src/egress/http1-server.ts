/** An HTTP/1.1 server that is strict about what a proxy could smuggle (RFC 9112): of the egress door, and of its relays. */
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { rawFault, sendFault } from './answer.ts'
import type { CallerSide } from './websocket.ts'

/** A request as it came, each to be answered. */
export interface Incoming {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Of a request to switch protocols. */
  readonly upgrade?: CallerSide
}

export interface Http1Options {
  readonly headerTimeout: Millis
  readonly serve: (incoming: Incoming) => void
}

const HEADER_BYTES = 32 * 1024
const KEEP_ALIVE: Millis = 60_000

/** A server that does not listen. */
export function makeHttp1Server({ headerTimeout, serve }: Http1Options): Server {
  const server = createServer({
    maxHeaderSize: HEADER_BYTES,
    headersTimeout: headerTimeout,
    // A body may take as long as it moves.
    requestTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE,
    connectionsCheckingInterval: 1_000,
    insecureHTTPParser: false,
    // Exactly one Host is demanded with the other headers, with the same answer for none and for two.
    requireHostHeader: false,
  })
  // Node would drop what is beyond a limit; all are kept, and too many refused.
  server.maxHeadersCount = 0
  const answer = (request: IncomingMessage, response: ServerResponse) => serve({ request, response })
  server.on('request', answer)
  server.on('checkContinue', answer)
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const response = responseOn(request, socket)
    if (!response) return
    const leave = () => response.detachSocket(request.socket)
    serve({ request, response, upgrade: { socket, head, leave } })
  })
  refuseTheRest(server)
  return server
}

function refuseTheRest(server: Server): void {
  server.on('checkExpectation', (request, response) =>
    sendFault(request, response, new Fault('invalid_request', 'the expectation is unknown')),
  )
  server.on('connect', (_request, socket: Duplex) => {
    // Node listens no more, and a caller that has gone would end the process.
    socket.on('error', () => socket.destroy())
    socket.end(rawFault(new Fault('method_not_allowed', 'CONNECT is refused')))
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    if (socket.writable) socket.end(rawFault(clientFault(error)))
    else socket.destroy()
  })
}

/**
 * Node gives an upgrade no response of its own; a refusal is one all the same, the last on its connection. Behind a
 * request that is not answered yet there is no room for it, and the connection is closed.
 */
function responseOn(request: IncomingMessage, socket: Duplex): ServerResponse | undefined {
  socket.on('error', () => socket.destroy())
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  try {
    response.assignSocket(socket as Socket)
  } catch {
    socket.destroy()
    return undefined
  }
  response.once('finish', () => socket.end())
  return response
}

function clientFault(error: NodeJS.ErrnoException): Fault {
  if (error.code === 'HPE_HEADER_OVERFLOW')
    return new Fault('invalid_request', `the headers are over ${HEADER_BYTES} bytes`)
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return new Fault('deadline')
  return new Fault('invalid_request', 'the request is not HTTP/1.1')
}
