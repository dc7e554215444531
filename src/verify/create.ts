/** Makes a verifier of options, over the system's time or, in tests, another. */
import type { IncomingMessage } from 'node:http'
import { type Clock, systemClock } from '../base/clock.ts'
import {
  askNode,
  type ExpressHandler,
  express,
  type FastifyPlugin,
  type FetchHandler,
  fastify,
  fetchHandler,
} from './adapters.ts'
import { openByAgent } from './agent.ts'
import { bodyRulesOf } from './body.ts'
import { openLocal } from './local.ts'
import type { VerifierOptions } from './options.ts'
import type { Outcome } from './outcome.ts'
import type { PeerFacts } from './received.ts'

/**
 * Verifies requests; each way refuses by itself whatever does not hold. The body of a request that is bound by an HTTP
 * signature is read whole and compared before the request goes on, whose body is unread then: register what parses bodies
 * after the verifier.
 */
export interface RequestVerifier {
  /** Verifies a request of a plain node server, which has to answer by the outcome. */
  node(request: IncomingMessage): Promise<Outcome>
  /** Middleware of Express and of what is like it. */
  express(): ExpressHandler
  /** A plugin: `await app.register(verifier.fastify())`. */
  fastify(): FastifyPlugin
  /** Wraps a handler from Request to Response. */
  fetchHandler(handler: FetchHandler): (request: Request, facts?: PeerFacts) => Promise<Response>
  /** Requests are refused from then on. */
  close(): void
}

export function makeVerifier(options: VerifierOptions, clock: Clock = systemClock): RequestVerifier {
  const { ask, close } =
    typeof options === 'object' && options !== null && 'socket' in options
      ? openByAgent(options)
      : openLocal(options, clock)
  const asking = { ask, bodies: bodyRulesOf(options) }
  return {
    node: (request) => askNode(asking, request),
    express: () => express(asking),
    fastify: () => fastify(asking),
    fetchHandler: (handler) => fetchHandler(asking, handler),
    close,
  }
}
