/**
 * HTTP/1.1 with JSON on connections that somebody else accepted: strict about everything a proxy or a browser could
 * smuggle, and one shape for every error.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Caller } from './caller.ts'
import { jsonHeaders, rawFault, sendFault } from './fault-answer.ts'
import type { OwnerLimits } from './limits.ts'
import { paced } from './paced.ts'
import { closeWithConnection } from './pipelined.ts'
import { STATUS } from './status.ts'
import { REQUEST, type Turns } from './turns.ts'

/** A parsed request; `body` is undefined for methods without one. */
export interface JsonRequest {
  readonly caller: Caller
  readonly body: Readonly<Record<string, unknown>>
  readonly query: URLSearchParams
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal
}

/** A request of which only the head is read. */
export interface HeadRequest {
  readonly caller: Caller
  /** What follows the prefix, without query. */
  readonly path: string
  readonly query: URLSearchParams
  /** Names and values in turn, as received. */
  readonly headers: readonly string[]
}

/** An answer with a status of its own; without a body nothing of it is shown to anybody. */
export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body?: object
}

/** Answers all methods below `prefix`, for proxies that hand a request's headers on: with whatever a browser sent. */
export interface Heads {
  readonly prefix: string
  /** How calls are counted. */
  readonly name: string
  readonly answer: (request: HeadRequest) => Promise<Reply>
}

/** An answer: an object sent as JSON, one with a status of its own, or lines sent as they come. */
export type JsonAnswer =
  | object
  | { readonly reply: Reply }
  | { readonly lines: (send: (line: object) => void, signal: AbortSignal) => void }

export type Route = (request: JsonRequest) => JsonAnswer | Promise<JsonAnswer>

/** `POST /v1/dpop` to what answers it. */
export type Routes = Readonly<Record<string, Route>>

export interface HttpOptions {
  readonly routes: Routes
  /** Throws not_ready or draining. */
  readonly admit: () => void
  readonly onCall: (route: string, fault: Fault | undefined) => void
  /** Whether `workload.spiffe.io: true` is required. */
  readonly securityHeader: boolean
  readonly headerTimeout: number
  readonly maxBodyBytes?: number
  /** Open requests by uid: a connection may bring many at once, each before the one before it is answered. */
  readonly calls?: OwnerLimits
  /** When connections are heard. */
  readonly turns: Turns
  readonly heads?: Heads
}

/** The HTTP side of a socket. */
export interface HttpSide {
  inject(connection: Socket, caller: Caller): void
  /** Answers what is under way, then closes. */
  drain(): void
  stop(): void
}

const BODY_LIMIT = 64 * 1024
const HEADER_BYTES = 16 * 1024
const HEADERS_LIMIT = 64
const HEAD_BYTES = 96 * 1024
const HEAD_HEADERS_LIMIT = 256
const JSON_DEPTH = 8
const WITH_BODY: ReadonlySet<string> = new Set(['POST', 'PUT'])
const KEEP_ALIVE_MS = 60_000

/** Serves `options.routes`. */
export function openHttp(options: HttpOptions): HttpSide {
  const callers = new WeakMap<Duplex, Caller>()
  const server = createServer({
    maxHeaderSize: options.heads ? HEAD_BYTES : HEADER_BYTES,
    headersTimeout: options.headerTimeout,
    requestTimeout: options.headerTimeout * 2,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: 1_000,
    insecureHTTPParser: false,
    // Exactly one Host is demanded below, with the same answer for none and for two.
    requireHostHeader: false,
  })
  // Node would drop what is beyond a limit, an Origin too; all are kept, and too many refused below.
  server.maxHeadersCount = 0
  // Deadlines, and closing what is open, begin with listening; this server only gets connections handed in.
  server.emit('listening')
  server.on('request', (request, response) => {
    closeWithConnection(request, response)
    const caller = callers.get(request.socket)
    if (caller) options.turns.spend(caller.owner, REQUEST)
    const { heads } = options
    if (heads && request.url?.startsWith(heads.prefix))
      void answerHead(options, heads, caller, request, response)
    else void answer(options, caller, request, response)
  })
  server.on('checkExpectation', (request, response) =>
    sendFault(request, response, new Fault('invalid_request', 'the expectation is unknown')),
  )
  server.on('upgrade', (_request, socket) =>
    socket.end(rawFault(new Fault('invalid_request', 'upgrades are refused'))),
  )
  server.on('connect', (_request, socket) =>
    socket.end(rawFault(new Fault('method_not_allowed', 'CONNECT is refused'))),
  )
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (socket.writable) socket.end(rawFault(clientFault(error)))
    else socket.destroy()
  })
  return {
    inject: (connection, caller) => {
      const { near } = paced(connection, options.turns.of(caller.owner))
      callers.set(near, caller)
      server.emit('connection', near)
    },
    drain: () => server.closeIdleConnections(),
    stop: () => server.closeAllConnections(),
  }
}

function clientFault(error: NodeJS.ErrnoException): Fault {
  if (error.code === 'HPE_HEADER_OVERFLOW')
    return new Fault('invalid_request', `the headers are over ${HEADER_BYTES} bytes`)
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return new Fault('deadline')
  return new Fault('invalid_request', 'the request is not HTTP/1.1')
}

/** Counts a request until its answer is over. */
function takePlace({ calls }: HttpOptions, { owner }: Caller, response: ServerResponse): void {
  const leave = calls?.take(owner)
  if (leave) response.once('close', leave)
}

async function answer(
  options: HttpOptions,
  caller: Caller | undefined,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  let name = 'unknown'
  try {
    checkHeaders(request, options)
    if (!caller) throw new Fault('peer_gone')
    takePlace(options, caller, response)
    const [path = '', search = ''] = splitTarget(request.url ?? '')
    const route = routeOf(options.routes, request.method ?? '', path, response)
    name = `${request.method} ${path}`
    options.admit()
    const body = await readBody(request, options.maxBodyBytes ?? BODY_LIMIT)
    const result = await route({ caller, body, query: new URLSearchParams(search), signal: gone.signal })
    options.onCall(name, undefined)
    if ('reply' in result) sendReply(request, response, result.reply)
    else send(response, result, gone.signal)
  } catch (caught) {
    const fault = Fault.from(caught)
    options.onCall(name, fault)
    sendFault(request, response, fault)
  }
}

/** Only the head counts: nothing of a body is read, and no refusal has one. */
async function answerHead(
  options: HttpOptions,
  { answer: answerTo, name, prefix }: Heads,
  caller: Caller | undefined,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    checkCount(request, HEAD_HEADERS_LIMIT)
    checkFraming(request)
    if (!caller) throw new Fault('peer_gone')
    takePlace(options, caller, response)
    options.admit()
    const [path = '', search = ''] = splitTarget(request.url ?? '')
    const query = new URLSearchParams(search)
    const reply = await answerTo({
      caller,
      path: path.slice(prefix.length),
      query,
      headers: request.rawHeaders,
    })
    options.onCall(name, undefined)
    sendReply(request, response, reply)
  } catch (caught) {
    const fault = Fault.from(caught)
    options.onCall(name, fault)
    const { http: status } = STATUS[fault.reason]
    sendReply(request, response, { status: status >= 500 ? status : 403, headers: {} })
  }
}

function sendReply(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, body }: Reply,
): void {
  if (response.headersSent || response.destroyed) return void response.destroy()
  // What was not read of the body would be taken for the next request.
  if (!request.complete) response.setHeader('Connection', 'close')
  const text = body === undefined ? '' : JSON.stringify(body)
  const own = body === undefined ? { 'Content-Length': 0, 'Cache-Control': 'no-store' } : jsonHeaders(text)
  response.writeHead(status, { ...own, ...headers })
  response.end(text)
}

/** Origin form only: an absolute target would name a second host (RFC 9112 s.3.2). */
function splitTarget(target: string): readonly string[] {
  if (!target.startsWith('/')) throw new Fault('invalid_request', 'the request target is not a path')
  return target.split('?', 2)
}

function checkHeaders(request: IncomingMessage, options: HttpOptions): void {
  checkCount(request, HEADERS_LIMIT)
  if (request.headers.origin !== undefined || request.headers.referer !== undefined)
    throw new Fault('browser_refused')
  const count = checkFraming(request)
  if (!options.securityHeader) return
  if (count('workload.spiffe.io') !== 1 || request.headers['workload.spiffe.io'] !== 'true')
    throw new Fault('header_missing')
}

function checkCount({ rawHeaders }: IncomingMessage, limit: number): void {
  if (rawHeaders.length > limit * 2) throw new Fault('invalid_request', `over ${limit} headers`)
}

/** What could make two requests of one; how often a header is there. */
function checkFraming(request: IncomingMessage): (name: string) => number {
  const count = (name: string) =>
    request.rawHeaders.filter((raw, index) => index % 2 === 0 && raw.toLowerCase() === name).length
  if (count('host') !== 1)
    throw new Fault('invalid_request', `${count('host')} Host headers, wanted exactly one`)
  if (count('content-length') > 1 || (count('content-length') > 0 && count('transfer-encoding') > 0)) {
    throw new Fault('invalid_request', 'the length of the body is given twice')
  }
  return count
}

function routeOf(routes: Routes, method: string, path: string, response: ServerResponse): Route {
  const route = routes[`${method} ${path}`]
  if (route) return route
  const allowed = Object.keys(routes)
    .filter((name) => name.endsWith(` ${path}`))
    .map((name) => name.split(' ')[0])
  if (allowed.length === 0) throw new Fault('not_found')
  response.setHeader('Allow', allowed.join(', '))
  throw new Fault('method_not_allowed', `${method} is not served here, but ${allowed.join(', ')}`)
}

async function readBody(request: IncomingMessage, limit: number): Promise<Readonly<Record<string, unknown>>> {
  if (!WITH_BODY.has(request.method ?? '')) return {}
  const type = request.headers['content-type'] ?? ''
  if (!/^application\/json(?:\s*;\s*charset=utf-8)?$/i.test(type)) throw new Fault('media_type')
  if (Number(request.headers['content-length'] ?? 0) > limit)
    throw new Fault('body_too_large', `the body is over ${limit} bytes`)
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request) {
    size += (chunk as Buffer).length
    if (size > limit) throw new Fault('body_too_large', `the body is over ${limit} bytes`)
    chunks.push(chunk as Buffer)
  }
  return parseJsonObject(textOf(chunks), { maxBytes: limit, maxDepth: JSON_DEPTH })
}

function textOf(chunks: readonly Buffer[]): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks))
  } catch {
    throw new Fault('invalid_request', 'the body is not UTF-8')
  }
}

function send(
  response: ServerResponse,
  result: Exclude<JsonAnswer, { readonly reply: Reply }>,
  signal: AbortSignal,
): void {
  if ('lines' in result) {
    response.writeHead(200, { 'Content-Type': 'application/x-ndjson', 'Cache-Control': 'no-store' })
    response.flushHeaders()
    // A reader that does not read is cut off: decisions do not wait for watchers.
    const write = (line: object) => {
      if (!response.write(`${JSON.stringify(line)}\n`) && response.writableLength > BODY_LIMIT * 16)
        response.destroy()
    }
    result.lines(write, signal)
    return
  }
  const body = JSON.stringify(result)
  response.writeHead(200, jsonHeaders(body))
  response.end(body)
}
