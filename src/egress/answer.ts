/** What a caller of the egress door gets: the target's answer as it comes, or the agent's own refusal. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Fault } from '../base/fault.ts'
import { STATUS } from '../serve/status.ts'
import { type Answer, upstreamFault } from './attempt.ts'
import { pairsOf, passResponse, passTrailers } from './headers.ts'
import type { Lifeline } from './lifeline.ts'

/** Streams `answer` to the caller; throws upstream_malformed, upstream_unavailable, what ends `line`. */
export async function relay(answer: Answer, response: ServerResponse, line: Lifeline): Promise<void> {
  try {
    response.writeHead(answer.status, passResponse(answer.headers) as string[])
    // An event stream may say nothing for long after its head.
    response.flushHeaders()
    await pour(answer, response, line)
  } catch (caught) {
    throw upstreamFault(caught)
  }
}

function pour(answer: Answer, response: ServerResponse, line: Lifeline): Promise<void> {
  const { body } = answer
  return new Promise((resolve, reject) => {
    let hasEnded = false
    const cutOff = () => {
      if (!hasEnded) reject(new Fault('upstream_unavailable', 'the target breaks its answer off'))
    }
    const stop = () => reject(line.signal.reason)
    if (line.signal.aborted) stop()
    line.signal.addEventListener('abort', stop, { once: true })
    body.on('data', (chunk: Buffer) => {
      line.touch()
      if (!response.write(chunk)) body.pause()
    })
    response.on('drain', () => {
      line.touch()
      body.resume()
    })
    body.once('end', () => {
      hasEnded = true
      finish(answer, response)
    })
    body.once('error', cutOff)
    body.once('close', cutOff)
    response.once('finish', () => {
      line.signal.removeEventListener('abort', stop)
      resolve()
    })
  })
}

function finish(answer: Answer, response: ServerResponse): void {
  const trailers = passTrailers(answer.trailers())
  if (trailers.length > 0) response.addTrailers(pairsOf(trailers))
  response.end()
}

/** The agent's own answer, or an end without one where an answer has begun: a caller must not take a part for all. */
export function sendFault(request: IncomingMessage, response: ServerResponse, fault: Fault): void {
  if (response.headersSent || response.destroyed) return void response.destroy()
  const { http } = STATUS[fault.reason]
  const retry = fault.retryAfterSeconds ?? (http === 503 || http === 429 ? 1 : undefined)
  if (retry !== undefined) response.setHeader('Retry-After', String(retry))
  // What was not read of the body would be taken for the next request.
  if (!request.complete) response.setHeader('Connection', 'close')
  const body = JSON.stringify({ error: fault })
  response.writeHead(http, { ...headersOf(body), 'Holdfast-Reason': fault.reason })
  response.end(body)
}

/** The same answer for what never became a request. */
export function rawFault(fault: Fault): string {
  const body = JSON.stringify({ error: fault })
  const headers = { ...headersOf(body), 'Holdfast-Reason': fault.reason, Connection: 'close' }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${STATUS[fault.reason].http} ${fault.reason}\r\n${lines.join('')}\r\n${body}`
}

function headersOf(body: string) {
  return {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
  }
}
