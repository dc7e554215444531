/**
 * The middleware: what a service imports from `holdfast/verify` to check, in its own process, that requests are what they
 * seem: the access token, the proof of its key, whether the proof was used before, and whether the caller is expected.
 *
 * @example
 * const verifier = createVerifier({
 *   servers: [{ name: 'login', issuer: 'https://login.example.org' }],
 *   origins: ['https://api.example.org'],
 *   audience: ['https://api.example.org'],
 *   grants: [{ callers: ['client:login/web'], methods: ['GET'], paths: ['/orders/**'], scopes: ['read'] }],
 *   onRefused: (fault) => log.warn(fault),
 * })
 * app.use(verifier.express())
 */
import { makeVerifier, type RequestVerifier } from './create.ts'
import type { VerifierOptions } from './options.ts'

export type { FaultJson, Owner, Reason } from '../base/fault.ts'
export { Fault } from '../base/fault.ts'
export type { Challenge } from '../ingress/challenge.ts'
export type { DenialFacts } from '../ingress/checking.ts'
export type { ProofUse, ReplayStore, Use } from '../ingress/replay.ts'
export type {
  ExpressHandler,
  FastifyHook,
  FastifyInstanceLike,
  FastifyPlugin,
  FastifyReplyLike,
  FastifyRequestLike,
  FetchHandler,
  VerifiedMessage,
} from './adapters.ts'
export { isBodyOf, type SignedBody } from './body.ts'
export type { RequestVerifier } from './create.ts'
export type {
  AgentVerifierOptions,
  BearerOptions,
  CommonOptions,
  GrantOptions,
  HopOptions,
  LocalOptions,
  OneRoute,
  OnRefused,
  RefusalFacts,
  ReplayOptions,
  RouteOptions,
  ServerOptions,
  TxnTokenOptions,
  VerifierOptions,
} from './options.ts'
export type { Outcome, VerifiedRequest } from './outcome.ts'
export type { PeerFacts } from './received.ts'

/** Throws policy_invalid for options that are wrong: with the place, what was seen and what was wanted. */
export function createVerifier(options: VerifierOptions): RequestVerifier {
  return makeVerifier(options)
}
