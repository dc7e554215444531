/** One permitted request: bound, recorded, sent, tried again where a nonce or a stale connection asks for it. */
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { relay } from './answer.ts'
import type { Answer, Attempt, Outgoing } from './attempt.ts'
import { bindRequest } from './bind.ts'
import type { Body } from './body.ts'
import type { BindOptions, Bound } from './bound.ts'
import { nonceIn, refusesToken, wantsNonce } from './challenge.ts'
import { digestFor } from './digest.ts'
import { framingOf, hasBody, lists, outgoing, passRequest, type RawHeaders } from './headers.ts'
import { type Lifeline, orAborted } from './lifeline.ts'
import type { Permit } from './permit.ts'
import type { Pool } from './pool.ts'
import type { Ending, Record } from './record.ts'
import { type Redirect, redirectOf } from './redirect.ts'
import { discard, expects, mayResend, startBody } from './sending.ts'
import type { CallerRequest, CallerResponse } from './sides.ts'
import type { Upstreams } from './upstreams.ts'

export interface ExchangeLimits {
  /** How much of a body is kept for a second try, in bytes. */
  readonly bufferBytes: number
  /** How long a target may take to answer, once it has the request. */
  readonly answerTimeout: Millis
  /** How long an answer or a tunnel may stand still. */
  readonly idleTimeout: Millis
}

export interface ExchangeOptions extends BindOptions {
  readonly upstreams: Upstreams
  readonly clock: Clock
  readonly limits: ExchangeLimits
}

/** A request of a caller and what belongs to it. */
export interface Exchange {
  readonly permit: Permit
  /** Empty, or `?` and what follows it; DPoP proofs do not cover it (RFC 9449 s.4.2). */
  readonly query: string
  readonly request: CallerRequest
  /** Its head as it goes on, in the words of HTTP/1.1. */
  readonly raw: RawHeaders
  readonly response: CallerResponse
  readonly line: Lifeline
  readonly record: Record
}

/** An answer that was not passed on, since policy has it followed. */
export interface Redirected {
  readonly status: number
  readonly redirect: Redirect
}

/** Carries `exchange` out; how it ended. Throws what binding, the target and the end of `line` say. */
export async function carryOut(
  options: ExchangeOptions,
  exchange: Exchange,
  body: Body | undefined,
): Promise<Ending | Redirected> {
  const { line, request, response } = exchange
  const pool = poolFor(options, exchange)
  const release = pool.take()
  let attempt: Attempt | undefined
  let isAnswered = false
  try {
    const tried = await settle(options, exchange, body, async (sending) => {
      // A stream that is reset right after its head is heard of before a connection is made for it: that costs 4 ms.
      await orAborted(new Promise<void>((resolve) => setImmediate(resolve)), line.signal)
      attempt = await orAborted(pool.send(sending), line.signal)
      startBody(options.clock, exchange, { attempt, body })
      return { attempt, outcome: attempt.answer }
    })
    const { status } = tried.outcome
    const redirect = redirectOf(exchange.permit, tried.outcome)
    if (redirect) {
      body?.detach()
      if (attempt) await discard(attempt, tried.outcome, line)
      isAnswered = true
      return { status, redirect }
    }
    line.wait(options.limits.idleTimeout, 'the answer stands still')
    await relay(tried.outcome, response, line)
    isAnswered = true
    return { status }
  } finally {
    release()
    // An answer that nobody reads to its end would keep its connection from all others.
    if (!isAnswered || !attempt?.sink.writableFinished || line.signal.aborted) attempt?.abort()
    if (response.writableEnded && !request.complete) request.destroy()
  }
}

export function poolFor({ upstreams }: ExchangeOptions, { permit }: Exchange): Pool {
  const { entry, instance, platform, target, url, certificate } = permit
  const { spiffeId } = entry
  return upstreams.poolOf({ spiffeId, instance, target, platform, origin: url.origin, certificate })
}

/** One try under way, and what comes of it. */
export interface Try<T> {
  readonly attempt: Attempt
  readonly outcome: Promise<T>
}

interface Settled<T> {
  readonly bound: Bound
  readonly outcome: T
}

/** Sends until there is an answer for the caller: at most one more try for a nonce, one for a stale connection. */
export async function settle<T extends Pick<Answer, 'headers'> & { readonly status: number }>(
  options: ExchangeOptions,
  exchange: Exchange,
  body: Body | undefined,
  send: (sending: Outgoing) => Promise<Try<T>>,
): Promise<Settled<T>> {
  const { line, permit, raw, record } = exchange
  const passed = passRequest(raw, { transaction: permit.identity.passesTransaction })
  const digest = permit.kinds.includes('http-signature')
    ? await digestFor(exchange, passed, body, options.limits.answerTimeout)
    : undefined
  const signing = { names: permit.signedHeaders, digest }
  let [hasNonce, isFresh] = [false, false]
  for (;;) {
    const ask = { ...permit, query: exchange.query, passed, signing }
    const bound = await bindRequest(options, ask, line)
    record.leaves(bound)
    poolFor(options, exchange).jkts.add(bound.jkt)
    line.wait(options.limits.answerTimeout, 'the target does not answer in time')
    const { attempt, outcome } = await send(outgoingOf(exchange, passed, bound))
    try {
      const answer = await orAborted(outcome, line.signal)
      giveUpToken(options, exchange, bound, answer)
      const nonce = learnNonce(options, permit, bound, answer.headers)
      if (hasNonce || !nonce || !wantsNonce(answer.status, answer.headers)) return { bound, outcome: answer }
      hasNonce = true
      if (body && !body.isReplayable) throw new Fault('body_not_replayable')
      body?.detach()
      await discard(attempt, answer, line)
    } catch (caught) {
      attempt.abort()
      if (isFresh || !mayResend(caught, attempt, permit.method, body) || line.signal.aborted) throw caught
      isFresh = true
      body?.detach()
    }
  }
}

/** The server may have withdrawn a token or changed its keys: the next request gets a new one. */
function giveUpToken(
  options: ExchangeOptions,
  exchange: Exchange,
  { ath, jkt }: Bound,
  { headers, status }: { readonly headers: RawHeaders; readonly status: number },
): void {
  const scheme = exchange.permit.kinds.includes('dpop') ? 'dpop' : 'bearer'
  if (ath === undefined || !refusesToken(status, headers, scheme)) return
  if (!poolFor(options, exchange).mayRenew()) return
  const { entry, instance, subject, target } = exchange.permit
  options.tokens.drop({
    spiffeId: entry.spiffeId,
    instance: instance.key,
    target: target.name,
    jkt,
    subject: subject?.hash ?? '',
  })
}

function learnNonce({ nonces }: ExchangeOptions, { kinds, url }: Permit, bound: Bound, headers: RawHeaders) {
  const nonce = kinds.includes('dpop') ? nonceIn(headers) : undefined
  if (nonce !== undefined) nonces.learn(bound.jkt, url.origin, nonce)
  return nonce
}

function outgoingOf({ permit, query, raw, request }: Exchange, passed: RawHeaders, bound: Bound): Outgoing {
  const { method, url } = permit
  const host = url.origin.slice(url.origin.indexOf('://') + 3)
  const framing = [
    ...framingOf(raw, method),
    ...(hasBody(raw) && expects(request) ? ['Expect', '100-continue'] : []),
  ]
  return {
    method,
    path: url.path + query,
    origin: url.origin,
    headers: outgoing(host, passed, framing, bound.headers),
    hasBody: hasBody(raw),
    wantsTrailers: lists(raw, 'te', 'trailers'),
  }
}
