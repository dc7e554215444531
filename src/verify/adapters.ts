/** The verifier in the shapes that servers take: node, Express, Fastify, fetch. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { withSignedBody } from './body.ts'
import type { Ask, Outcome, VerifiedRequest } from './outcome.ts'
import { type PeerFacts, receivedByFetch, receivedByNode } from './received.ts'
import { stripFetch, stripNode } from './strip.ts'

/** A request that went through the verifier. */
export interface VerifiedMessage extends IncomingMessage {
  holdfast?: VerifiedRequest
}

export type ExpressHandler = (
  request: IncomingMessage,
  response: ServerResponse,
  next: (error?: unknown) => void,
) => void

/** What of a Fastify instance is used. */
export interface FastifyInstanceLike {
  decorateRequest(name: 'holdfast', value: null): unknown
  addHook(name: 'onRequest', hook: FastifyHook): unknown
}

export type FastifyHook = (request: FastifyRequestLike, reply: FastifyReplyLike) => Promise<unknown>

export interface FastifyRequestLike {
  readonly raw: IncomingMessage
  readonly originalUrl: string
}

export interface FastifyReplyLike {
  code(status: number): unknown
  header(name: string, value: string): unknown
  send(): unknown
}

export type FastifyPlugin = (instance: FastifyInstanceLike, options: unknown, done: () => void) => void

export type FetchHandler = (request: Request, verified: VerifiedRequest) => Response | Promise<Response>

/** Verifies a request of node:http, node:https or node:http2, and removes from it what it says of its own caller. */
export async function askNode(ask: Ask, request: IncomingMessage, target?: string): Promise<Outcome> {
  const outcome = await ask(() => receivedByNode(request, target ?? request.url ?? ''))
  stripNode(request)
  return outcome
}

/** `request.holdfast` is who called; whoever may not call never reaches `next`. */
export function express(ask: Ask): ExpressHandler {
  return (request, response, next) => {
    // Express takes the path off that a router is mounted at, and keeps what arrived.
    const { originalUrl } = request as { readonly originalUrl?: string }
    askNode(ask, request, originalUrl).then((outcome) => {
      if (!outcome.verified) return refuse(response, outcome.challenge)
      Object.assign(request, { holdfast: outcome.verified })
      for (const [name, value] of Object.entries(outcome.headers)) response.setHeader(name, value)
      next()
    }, next)
  }
}

function refuse(response: ServerResponse, { status, headers }: Challenge): void {
  response.writeHead(status, { ...headers, 'content-length': '0' })
  response.end()
}

type Challenge = Extract<Outcome, { readonly verified: undefined }>['challenge']

/** For all routes of the instance it is registered with, before any body is read. */
export function fastify(ask: Ask): FastifyPlugin {
  const plugin: FastifyPlugin = (instance, _options, done) => {
    instance.decorateRequest('holdfast', null)
    instance.addHook('onRequest', async (request, reply) => {
      const outcome = await askNode(ask, request.raw, request.originalUrl)
      const { headers } = outcome.verified ? outcome : outcome.challenge
      for (const [name, value] of Object.entries(headers)) reply.header(name, value)
      if (outcome.verified) return void Object.assign(request, { holdfast: outcome.verified })
      reply.code(outcome.challenge.status)
      reply.send()
      return reply
    })
    done()
  }
  // Fastify gives a plugin an instance of its own, whose hooks see no other routes, unless it says otherwise.
  return Object.assign(plugin, {
    [Symbol.for('skip-override')]: true,
    [Symbol.for('fastify.display-name')]: 'holdfast',
  })
}

/** Of the connection only what `facts` say is known. */
export function fetchHandler(
  ask: Ask,
  handler: FetchHandler,
): (request: Request, facts?: PeerFacts) => Promise<Response> {
  return async (request, facts = {}) => {
    const outcome = await ask(() => receivedByFetch(request, facts))
    if (!outcome.verified) {
      const { status, headers } = outcome.challenge
      return new Response(null, { status, headers })
    }
    const signed = await withSignedBody(stripFetch(request), outcome.verified)
    if (!signed) return new Response(null, { status: 400, headers: { 'cache-control': 'no-store' } })
    const response = await handler(signed, outcome.verified)
    return withHeaders(response, outcome.headers)
  }
}

/** Headers of some responses cannot be changed. */
function withHeaders(response: Response, added: Readonly<Record<string, string>>): Response {
  if (Object.keys(added).length === 0 || response.status === 0) return response
  const headers = new Headers(response.headers)
  for (const [name, value] of Object.entries(added)) headers.set(name, value)
  const { body, status, statusText } = response
  return new Response(body, { status, statusText, headers })
}
