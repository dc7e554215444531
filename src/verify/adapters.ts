/** The verifier in the shapes that servers take: node, Express, Fastify, fetch. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { type BodyRules, withSignedBody } from './body.ts'
import { readBody, withBody } from './fetch-body.ts'
import { peekBody } from './node-body.ts'
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

/** Asks, and compares bodies of signed requests. */
export interface Asking {
  readonly ask: Ask
  readonly bodies: BodyRules
}

/** Verifies a request of node:http, node:https or node:http2, and removes from it what it says of its own caller. */
export async function askNode(
  { ask, bodies }: Asking,
  request: IncomingMessage,
  target?: string,
): Promise<Outcome> {
  const outcome = await ask(() => receivedByNode(request, target ?? request.url ?? ''))
  stripNode(request, outcome.verified)
  if (outcome.verified?.binding.kind !== 'http-signature') return outcome
  const read = (limit: number) => peekBody(request, limit)
  const compared = await withSignedBody(outcome, bodies, request.method ?? '', read)
  const isUnread = compared.verified === undefined && !request.complete && request.httpVersionMajor < 2
  return isUnread ? closing(compared.challenge) : compared
}

/** What is left of the body stays unread. */
function closing({ status, headers }: Challenge): Outcome {
  return { verified: undefined, challenge: { status, headers: { ...headers, connection: 'close' } } }
}

/** `request.holdfast` is who called; whoever may not call never reaches `next`. */
export function express(asking: Asking): ExpressHandler {
  return (request, response, next) => {
    // Express takes the path off that a router is mounted at, and keeps what arrived.
    const { originalUrl } = request as { readonly originalUrl?: string }
    askNode(asking, request, originalUrl).then((outcome) => {
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

/** For all routes of the instance it is registered with, before Fastify reads a body. */
export function fastify(asking: Asking): FastifyPlugin {
  const plugin: FastifyPlugin = (instance, _options, done) => {
    instance.decorateRequest('holdfast', null)
    instance.addHook('onRequest', async (request, reply) => {
      const outcome = await askNode(asking, request.raw, request.originalUrl)
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
  { ask, bodies }: Asking,
  handler: FetchHandler,
): (request: Request, facts?: PeerFacts) => Promise<Response> {
  return async (request, facts = {}) => {
    const asked = await ask(() => receivedByFetch(request, facts))
    let whole = stripFetch(request, asked.verified)
    const outcome = await withSignedBody(asked, bodies, request.method, async (limit) => {
      const body = await readBody(whole, limit)
      whole = withBody(whole, body)
      return body
    })
    if (!outcome.verified) {
      const { status, headers } = outcome.challenge
      return new Response(null, { status, headers })
    }
    const response = await handler(whole, outcome.verified)
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
