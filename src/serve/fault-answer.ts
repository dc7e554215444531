/** A Fault as an HTTP answer: one shape on every door. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Fault } from '../base/fault.ts'
import { STATUS } from './status.ts'

type Headers = Readonly<Record<string, string | number>>

/** An answer before it is sent. */
export interface FaultAnswer {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}

/** `{"error": fault}` with its status, whichever version of HTTP carries it. */
export function faultAnswer(fault: Fault, more: Headers = {}): FaultAnswer {
  const { http: status } = STATUS[fault.reason]
  const retry = fault.retryAfterSeconds ?? (status === 503 || status === 429 ? 1 : undefined)
  const body = JSON.stringify({ error: fault })
  const waiting = retry === undefined ? {} : { 'Retry-After': retry }
  return { status, headers: { ...waiting, ...jsonHeaders(body), ...more }, body }
}

/** Answers `fault`, or ends without an answer where one has begun: a part must not be taken for all. */
export function sendFault(
  request: IncomingMessage,
  response: ServerResponse,
  fault: Fault,
  more: Headers = {},
): void {
  if (response.headersSent || response.destroyed) return void response.destroy()
  // What was not read of the body would be taken for the next request.
  if (!request.complete) response.setHeader('Connection', 'close')
  const { status, headers, body } = faultAnswer(fault, more)
  response.writeHead(status, headers)
  // Whoever stopped reading has let go of the connection: there is nothing to wait for.
  if (request.complete || request.destroyed || request.headers.expect !== undefined) response.end(body)
  else endAfterBody(request, response, body)
}

const LINGER_BYTES = 1024 * 1024
const LINGER_MS = 2_000

/**
 * The whole answer at once, and its end once the body has come, some of it, or nothing more: closing while the caller
 * still sends resets the connection, and many callers then never read the answer (RFC 9112 s.9.6).
 */
function endAfterBody(request: IncomingMessage, response: ServerResponse, body: string): void {
  let size = 0
  const end = () => response.end()
  response.write(body)
  // Node takes the socket away from a response whose connection is gone.
  const { socket } = response
  if (!socket) return void response.destroy()
  socket.setTimeout(LINGER_MS, end)
  request.removeAllListeners('data')
  request.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > LINGER_BYTES) end()
  })
  request.once('end', end)
  request.resume()
}

/** The same answer for what never became a request. */
export function rawFault(fault: Fault, more: Headers = {}): string {
  const { status, headers, body } = faultAnswer(fault, { ...more, Connection: 'close' })
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} ${fault.reason}\r\n${lines.join('')}\r\n${body}`
}

/** The headers of a JSON answer: never kept by a cache, never taken for anything else. */
export function jsonHeaders(body: string) {
  return {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
  }
}
