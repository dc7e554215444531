/** Carries one request over a way, or a WebSocket, streaming in both directions. */
import { nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { relay } from '../egress/answer.ts'
import type { Answer, Attempt } from '../egress/attempt.ts'
import { Body } from '../egress/body.ts'
import { firstOf, hasBody } from '../egress/headers.ts'
import type { Switched } from '../egress/http1.ts'
import { orAborted } from '../egress/lifeline.ts'
import { startBody } from '../egress/sending.ts'
import { type CallerSide, checkAnswer, handshake, join, switchingHead } from '../egress/websocket.ts'
import type { Relayed, Way, WayOptions } from './way.ts'

const LATE = 'nothing moves any more'

/** Resolves when the answer is with the caller; throws what the way says and what ends the line. */
export async function carry({ clock, limits }: WayOptions, way: Way, relayed: Relayed): Promise<void> {
  const { line, request, response } = relayed
  const release = way.take()
  const body = hasBody(request.rawHeaders)
    ? new Body(request, { limit: limits.bufferBytes, onBytes: line.touch })
    : undefined
  let attempt: Attempt | undefined
  let isAnswered = false
  try {
    const { outcome } = await way.settle(relayed, body, async (sending) => {
      attempt = await orAborted(way.send(sending), line.signal)
      startBody(clock, relayed, { attempt, body })
      return { attempt, outcome: attempt.answer }
    })
    line.wait(limits.idleTimeout, LATE)
    await relay(outcome, response, line, way.pass)
    isAnswered = true
  } finally {
    release()
    // An answer that nobody reads to its end would keep its connection from all others.
    if (!isAnswered || !attempt?.sink.writableFinished || line.signal.aborted) attempt?.abort()
    if (response.writableEnded && !request.complete) request.destroy()
  }
}

/** What became of a handshake. */
type Outcome = Answer | (Switched & { readonly status: 101 })

/** Resolves when the tunnel has closed, or another answer is with the caller; throws as carry. */
export async function tunnel(
  { clock, limits }: WayOptions,
  way: Way,
  relayed: Relayed,
  caller: CallerSide,
): Promise<void> {
  const { line, request, response } = relayed
  const release = way.take()
  try {
    const { outcome, expires } = await way.settle<Outcome>(relayed, undefined, async (sending) => {
      const attempt = way.upgrade(handshake(sending))
      attempt.finish([])
      const switched = attempt.switched.then((to) => ({ ...to, status: 101 as const }))
      return { attempt, outcome: Promise.race([switched, attempt.answer]) }
    })
    line.wait(limits.idleTimeout, LATE)
    if (!('socket' in outcome)) return await relay(outcome, response, line, way.pass)
    checkAnswer(outcome, firstOf(request.rawHeaders, 'sec-websocket-key') ?? '')
    caller.leave()
    caller.socket.write(switchingHead(outcome.headers))
    const end = () => line.end(new Fault('token_expired'))
    const cancel = expires === undefined ? () => {} : clock.after((expires - nowSeconds(clock)) * 1000, end)
    await join(caller, outcome, line).finally(cancel)
  } finally {
    release()
  }
}
