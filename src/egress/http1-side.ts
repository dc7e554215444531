/** The egress door's HTTP/1.1 side, on connections that were attested before (RFC 9112). */
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Caller } from '../serve/caller.ts'
import type { HttpSide } from '../serve/http.ts'
import { rawFault, sendFault } from './answer.ts'
import { type Asked, type ProxyOptions, serve } from './proxy.ts'

const HEADER_BYTES = 32 * 1024
const KEEP_ALIVE: Millis = 60_000

/** Serves connections that are handed in. */
export function openHttp1Side(options: ProxyOptions): HttpSide {
  const callers = new WeakMap<Duplex, Caller>()
  const server = createServer({
    maxHeaderSize: HEADER_BYTES,
    headersTimeout: options.headerTimeout,
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
  // Deadlines, and closing what is open, begin with listening; this server only gets connections handed in.
  server.emit('listening')
  const answer = (request: IncomingMessage, response: ServerResponse) =>
    void serve(options, callers.get(request.socket), askedOf(request, response))
  server.on('request', answer)
  server.on('checkContinue', answer)
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const response = responseOn(request, socket)
    const leave = () => response.detachSocket(request.socket)
    const upgrade = { socket, head, leave }
    void serve(options, callers.get(socket), { ...askedOf(request, response), upgrade })
  })
  refuseTheRest(server)
  return {
    inject: (connection: Socket, caller) => {
      callers.set(connection, caller)
      server.emit('connection', connection)
    },
    drain: () => server.closeIdleConnections(),
    stop: () => server.closeAllConnections(),
  }
}

function askedOf(request: IncomingMessage, response: ServerResponse): Asked {
  return { request, response, refuse: (fault) => sendFault(request, response, fault) }
}

function refuseTheRest(server: Server): void {
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
