/**
 * The egress door's HTTP/1.1 side, on connections that were attested before: each request names a target by its Host
 * and leaves with the token and the proof of this caller, or is answered with the reason why not.
 */
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Caller } from '../serve/caller.ts'
import type { HttpSide } from '../serve/http.ts'
import { rawFault, sendFault } from './answer.ts'
import { carryOut, type Exchange, type ExchangeOptions } from './exchange.ts'
import { Lifeline } from './lifeline.ts'
import { type Draft, type PermitOptions, permit } from './permit.ts'
import { type Ending, Record, type RecordOptions } from './record.ts'
import { parseRoute } from './route.ts'
import { checkHandshake, tunnel } from './websocket.ts'

export interface ProxyOptions extends ExchangeOptions, PermitOptions, RecordOptions {
  /** Throws not_ready or draining. */
  readonly admit: () => void
  readonly headerTimeout: Millis
}

const HEADER_BYTES = 32 * 1024
const KEEP_ALIVE: Millis = 60_000
const SWITCHING = 101

/** Serves connections that are handed in. */
export function openProxy(options: ProxyOptions): HttpSide {
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
    void serve(options, callers.get(request.socket), { request, response })
  server.on('request', answer)
  server.on('checkContinue', answer)
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const response = responseOn(request, socket)
    void serve(options, callers.get(socket), { request, response, upgrade: { socket, head } })
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

interface Asked {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly upgrade?: { readonly socket: Duplex; readonly head: Buffer }
}

async function serve(options: ProxyOptions, caller: Caller | undefined, asked: Asked): Promise<void> {
  const { request, response } = asked
  const draft: Draft = { method: request.method ?? '' }
  const record = new Record(options, draft)
  const line = new Lifeline(options.clock, options.limits.answerTimeout)
  response.once('close', () => response.writableFinished || line.end(new Fault('canceled')))
  request.on('error', () => {})
  const ending = await endingOf(options, caller, { ...asked, draft, record, line })
  line.release()
  record.ended(ending)
  if (ending.fault && ending.status !== SWITCHING) sendFault(request, response, ending.fault)
}

type Serving = Asked & Pick<Exchange, 'record' | 'line'> & { readonly draft: Draft }

async function endingOf(
  options: ProxyOptions,
  caller: Caller | undefined,
  serving: Serving,
): Promise<Ending> {
  const { request, response, upgrade, draft, record, line } = serving
  try {
    if (!caller) throw new Fault('peer_gone')
    options.admit()
    const { rawHeaders: raw, url = '' } = request
    const route = parseRoute({ url, raw })
    if (upgrade) checkHandshake(draft.method, raw)
    options.audit.check()
    const permitted = permit(options, caller.workload(), route, draft)
    line.bindTo(permitted.workload, permitted.instance)
    const exchange = { permit: permitted, query: route.query, request, response, line, record }
    return await (upgrade ? tunnel(options, exchange, upgrade) : carryOut(options, exchange))
  } catch (caught) {
    const fault = Fault.from(line.signal.aborted ? line.signal.reason : caught)
    return response.headersSent ? { fault, status: response.statusCode } : { fault }
  }
}
