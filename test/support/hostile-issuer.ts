/** An authorization server made by hand, over TLS: it answers whatever a test wants, and keeps what it was asked. */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { TestCa } from './tls.ts'

/** What a client sent, as it arrived. */
export interface SeenRequest {
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly form: URLSearchParams
}

export type Answer = (response: ServerResponse, request: SeenRequest, issuer: string) => void

export interface HostileIssuer {
  readonly issuer: string
  readonly seen: readonly SeenRequest[]
  /** The requests of the token endpoint. */
  readonly asked: () => readonly SeenRequest[]
  stop(): Promise<void>
}

export interface HostileAnswers {
  /** RFC 8414 metadata; good when absent. */
  readonly metadata?: Answer
  readonly token?: Answer
  /** Every other path. */
  readonly other?: Answer
}

/** JSON with a status and headers. */
export const json =
  (body: unknown, status = 200, headers: Record<string, string | string[]> = {}): Answer =>
  (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  }

/** Starts it; the caller stops it. */
export async function startHostileIssuer(ca: TestCa, answers: HostileAnswers = {}): Promise<HostileIssuer> {
  const seen: SeenRequest[] = []
  const server = createServer(ca.serverFiles())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const issuer = `https://localhost:${typeof address === 'object' && address ? address.port : 0}`
  const good = json({ issuer, token_endpoint: `${issuer}/token` })
  server.on('request', (request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
    request.on('end', () => {
      const { method = '', url: path = '', headers } = request
      const one = { method, path, headers, form: new URLSearchParams(text) }
      seen.push(one)
      const { metadata = good, token = json({}, 404), other = json({}, 404) } = answers
      const answer = path === '/token' ? token : path.startsWith('/.well-known/oauth-') ? metadata : other
      answer(response, one, issuer)
    })
  })
  return {
    issuer,
    seen,
    asked: () => seen.filter(({ path }) => path === '/token'),
    stop: () => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
}
