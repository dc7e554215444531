/** What a caller of the egress door gets: the target's answer as it comes, or the agent's own refusal. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Fault } from '../base/fault.ts'
import {
  type FaultAnswer,
  faultAnswer,
  rawFault as rawAnswer,
  sendFault as sendAnswer,
} from '../serve/fault-answer.ts'
import { type Answer, upstreamFault } from './attempt.ts'
import { pairsOf, passResponse, passTrailers, type RawHeaders } from './headers.ts'
import type { Lifeline } from './lifeline.ts'
import type { CallerResponse } from './sides.ts'

/**
 * Streams `answer` to the caller, with the fields that `pass` leaves; throws upstream_malformed, upstream_unavailable,
 * what ends `line`.
 */
export async function relay(
  answer: Answer,
  response: CallerResponse,
  line: Lifeline,
  pass: (raw: RawHeaders) => RawHeaders = passResponse,
): Promise<void> {
  try {
    response.writeHead(answer.status, pass(answer.headers) as string[])
    // An event stream may say nothing for long after its head; to gRPC a head alone is another thing than one with an
    // empty body.
    if (!answer.isBare) response.flushHeaders()
    await pour(answer, response, line)
  } catch (caught) {
    throw upstreamFault(caught)
  }
}

function pour(answer: Answer, response: CallerResponse, line: Lifeline): Promise<void> {
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
      if (answer.isCut()) return cutOff()
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

function finish(answer: Answer, response: CallerResponse): void {
  const trailers = passTrailers(answer.trailers())
  if (trailers.length > 0) response.addTrailers(pairsOf(trailers))
  response.end()
}

/** The agent's own answer, marked as such: the target's never carries this header. */
export function sendFault(request: IncomingMessage, response: ServerResponse, fault: Fault): void {
  sendAnswer(request, response, fault, markOf(fault))
}

/** The same answer for what never became a request. */
export function rawFault(fault: Fault): string {
  return rawAnswer(fault, markOf(fault))
}

/** The same answer, to be sent by whoever asks. */
export function markedFault(fault: Fault): FaultAnswer {
  return faultAnswer(fault, markOf(fault))
}

export function markOf({ reason }: Fault) {
  return { 'Holdfast-Reason': reason }
}
