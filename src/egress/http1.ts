/** Requests over HTTP/1.1 connections of a pool (RFC 9112). */
import { type Agent, type ClientRequest, type IncomingMessage, request } from 'node:http'
import type { Duplex } from 'node:stream'
import { Fault } from '../base/fault.ts'
import {
  type Answer,
  type Attempt,
  checkStatus,
  INTERIM_LIMIT,
  type Outgoing,
  upstreamFault,
} from './attempt.ts'
import { pairsOf, type RawHeaders } from './headers.ts'

const HEADER_BYTES = 32 * 1024

/** A request whose answer may be a switch of protocols. */
export interface UpgradeAttempt extends Attempt {
  /** The target's connection after its 101; never settles when the answer is another one. */
  readonly switched: Promise<Switched>
}

export interface Switched {
  readonly headers: RawHeaders
  readonly socket: Duplex
  /** What the target sent behind its answer. */
  readonly head: Buffer
}

/** Sends over a connection of `agent`. */
export function sendHttp1(agent: Agent, outgoing: Outgoing): Attempt {
  return attemptOf(open(agent, outgoing), undefined)
}

/** Sends a request to switch protocols. */
export function upgradeHttp1(agent: Agent, outgoing: Outgoing): UpgradeAttempt {
  let tell = (_switched: Switched) => {}
  const switched = new Promise<Switched>((resolve) => {
    tell = resolve
  })
  return { ...attemptOf(open(agent, outgoing), tell), switched }
}

function open(agent: Agent, outgoing: Outgoing): ClientRequest {
  const sent = request({
    agent,
    host: 'target',
    method: outgoing.method,
    path: outgoing.path,
    headers: outgoing.headers as string[],
    setHost: false,
    maxHeaderSize: HEADER_BYTES,
    insecureHTTPParser: false,
  })
  // A head goes out at once: a caller may wait for the answer before it sends a body.
  sent.flushHeaders()
  return sent
}

/** `onSwitch` hears of a switch of protocols, after which there is no answer; without it one is malformed. */
function attemptOf(sent: ClientRequest, onSwitch: ((switched: Switched) => void) | undefined): Attempt {
  const answer = new Promise<Answer>((resolve, reject) => {
    let interim = 0
    const count = () => {
      interim += 1
      if (interim > INTERIM_LIMIT) sent.destroy(new Fault('upstream_malformed', 'too many interim answers'))
    }
    sent.on('information', count)
    let [hasSwitched, hasAnswered] = [false, false]
    sent.on('upgrade', (answer: IncomingMessage, socket: Duplex, head: Buffer) => {
      hasSwitched = onSwitch !== undefined
      onSwitch?.({ headers: answer.rawHeaders, socket, head })
      if (hasSwitched) return
      socket.destroy()
      reject(new Fault('upstream_malformed', 'the target switches protocols unasked'))
    })
    sent.on('response', (response) => {
      hasAnswered = true
      // A target that answers and resets has answered; what is cut off shows in the body.
      response.on('error', () => {})
      resolveAnswer(response, resolve, reject)
    })
    sent.on('error', (error) => reject(upstreamFault(error)))
    sent.on('close', () => {
      // Every request ends here: an error that nobody hears of would cost each the trace of a stack.
      if (!hasSwitched && !hasAnswered)
        reject(new Fault('upstream_unavailable', 'the target closes without an answer'))
    })
  })
  answer.catch(() => {})
  return {
    sink: sent,
    answer,
    onContinue: (then) => void sent.once('continue', then),
    finish: (trailers) => finish(sent, trailers),
    isReused: () => sent.reusedSocket,
    abort: () => void sent.destroy(),
  }
}

function resolveAnswer(
  response: IncomingMessage,
  resolve: (answer: Answer) => void,
  reject: (fault: Fault) => void,
): void {
  try {
    resolve({
      status: checkStatus(response.statusCode ?? 0),
      headers: response.rawHeaders,
      body: response,
      isBare: false,
      isCut: () => !response.complete,
      trailers: () => response.rawTrailers,
    })
  } catch (caught) {
    reject(upstreamFault(caught))
    response.destroy()
  }
}

function finish(sent: ClientRequest, trailers: RawHeaders): void {
  if (sent.destroyed || sent.writableEnded) return
  if (trailers.length > 0) sent.addTrailers(pairsOf(trailers))
  sent.end()
}
