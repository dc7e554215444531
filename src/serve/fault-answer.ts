/** A Fault as an HTTP/1.1 answer: one shape on every door. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Fault } from '../base/fault.ts'
import { STATUS } from './status.ts'

type Headers = Readonly<Record<string, string>>

/** Answers `{"error": fault}`, or ends without an answer where one has begun: a part must not be taken for all. */
export function sendFault(
  request: IncomingMessage,
  response: ServerResponse,
  fault: Fault,
  more: Headers = {},
): void {
  if (response.headersSent || response.destroyed) return void response.destroy()
  const { http } = STATUS[fault.reason]
  const retry = fault.retryAfterSeconds ?? (http === 503 || http === 429 ? 1 : undefined)
  if (retry !== undefined) response.setHeader('Retry-After', String(retry))
  // What was not read of the body would be taken for the next request.
  if (!request.complete) response.setHeader('Connection', 'close')
  const body = JSON.stringify({ error: fault })
  response.writeHead(http, { ...jsonHeaders(body), ...more })
  response.end(body)
}

/** The same answer for what never became a request. */
export function rawFault(fault: Fault, more: Headers = {}): string {
  const body = JSON.stringify({ error: fault })
  const headers = { ...jsonHeaders(body), ...more, Connection: 'close' }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${STATUS[fault.reason].http} ${fault.reason}\r\n${lines.join('')}\r\n${body}`
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
