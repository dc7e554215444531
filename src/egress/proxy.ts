/**
 * The one path of the egress door's requests, whichever version of HTTP brought them: each names a target and leaves
 * with the token and the proof of this caller, or is answered with the reason why not.
 */
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Caller } from '../serve/caller.ts'
import type { Exchange, ExchangeOptions } from './exchange.ts'
import { follow, type Hop } from './follow.ts'
import { Lifeline } from './lifeline.ts'
import { type Draft, type EgressPermitOptions, permit } from './permit.ts'
import { type Ending, Record, type RecordOptions } from './record.ts'
import { parseRoute } from './route.ts'
import type { CallerRequest, CallerResponse } from './sides.ts'
import { type CallerSide, checkHandshake, tunnel } from './websocket.ts'

export interface ProxyOptions extends ExchangeOptions, EgressPermitOptions, RecordOptions {
  /** Throws not_ready or draining. */
  readonly admit: () => void
  readonly headerTimeout: Millis
}

const SWITCHING = 101

/** A request as a connection brought it. */
export interface Asked {
  readonly request: CallerRequest
  readonly response: CallerResponse
  /** A request to switch protocols, which HTTP/1.1 alone has. */
  readonly upgrade?: CallerSide
  /** Throws what is wrong with a head of this version of HTTP alone. */
  readonly check?: () => void
  /** Answers with a Fault; where an answer has begun, breaks it off. */
  refuse(fault: Fault): void
}

/** Serves one request to its end; never throws. */
export async function serve(options: ProxyOptions, caller: Caller | undefined, asked: Asked): Promise<void> {
  const { request, response } = asked
  const draft: Draft = { method: request.method ?? '' }
  const hop = { draft, record: new Record(options, draft) }
  const line = new Lifeline(options.clock, options.limits.answerTimeout)
  response.once('close', () => response.writableFinished || line.end(new Fault('canceled')))
  request.on('error', () => {})
  const ending = await endingOf(options, caller, { ...asked, hop, line })
  line.release()
  hop.record.ended(ending)
  if (ending.fault && ending.status !== SWITCHING) asked.refuse(ending.fault)
}

type Serving = Asked & Pick<Exchange, 'line'> & { readonly hop: Hop }

async function endingOf(
  options: ProxyOptions,
  caller: Caller | undefined,
  serving: Serving,
): Promise<Ending> {
  const { request, response, upgrade, hop, line } = serving
  const { draft, record } = hop
  try {
    if (!caller) throw new Fault('peer_gone')
    options.admit()
    serving.check?.()
    const { rawHeaders: raw, url = '' } = request
    const route = parseRoute({ url, raw })
    if (upgrade) checkHandshake(draft.method, raw)
    options.audit.check()
    const permitted = await permit(options, caller.workload(), route, draft, line)
    line.wait(options.limits.answerTimeout, 'the target does not answer in time')
    const exchange = { permit: permitted, query: route.query, request, raw, response, line, record }
    return await (upgrade ? tunnel(options, exchange, upgrade) : follow(options, hop, route, exchange))
  } catch (caught) {
    const fault = Fault.from(line.signal.aborted ? line.signal.reason : caught)
    return response.headersSent ? { fault, status: response.statusCode } : { fault }
  }
}
