/** How the body of a request follows its head, and when a request may go out a second time. */
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Answer, Attempt } from './attempt.ts'
import type { Body } from './body.ts'
import { firstOf, hasBody } from './headers.ts'
import { type Lifeline, orAborted } from './lifeline.ts'
import type { CallerRequest, CallerResponse } from './sides.ts'

const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])

/** RFC 9112 s.9.3.1: a target may close an idle connection just when a request goes over it. */
export function mayResend(
  caught: unknown,
  attempt: Attempt,
  method: string,
  body: Body | undefined,
): boolean {
  const isGone = caught instanceof Fault && caught.reason === 'upstream_unavailable'
  return isGone && attempt.isReused() && IDEMPOTENT.has(method) && (body?.isReplayable ?? true)
}

/** Whether the caller sends its body only once it hears 100 Continue. */
export function expects({ rawHeaders }: CallerRequest): boolean {
  return firstOf(rawHeaders, 'expect')?.toLowerCase() === '100-continue' && hasBody(rawHeaders)
}

const CONTINUE_WAIT: Millis = 1_000

/** The caller's side of a request. */
interface Caller {
  readonly request: CallerRequest
  readonly response: CallerResponse
}

interface Sending {
  readonly attempt: Attempt
  readonly body: Body | undefined
}

/** A caller that waits for 100 Continue waits for the target's, but not for ever (RFC 9110 s.10.1.1). */
export function startBody(clock: Clock, { request, response }: Caller, { attempt, body }: Sending): void {
  if (!body) return void attempt.finish([])
  if (!expects(request) || request.readableDidRead) return void body.sendOver(attempt)
  let isOver = false
  const start = () => {
    if (isOver) return
    isOver = true
    response.writeContinue()
    body.sendOver(attempt)
  }
  const cancel = clock.after(CONTINUE_WAIT, start)
  attempt.onContinue(start)
  const stop = () => {
    isOver = true
    cancel()
  }
  void attempt.answer.then(stop, stop)
}

const DISCARD_LIMIT = 64 * 1024

/** Reads a refused try's answer away, so that its connection serves the next; a long one costs the connection. */
export async function discard(attempt: Attempt, answer: Partial<Answer>, line: Lifeline): Promise<void> {
  const { body } = answer
  if (!body || !attempt.sink.writableFinished) return attempt.abort()
  let size = 0
  body.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > DISCARD_LIMIT) attempt.abort()
  })
  await orAborted(
    new Promise<void>((resolve) => {
      body.once('end', resolve)
      body.once('close', resolve)
      body.once('error', () => resolve())
    }),
    line.signal,
  )
}
