/** A way out of a relay: by the agent's egress door, or to a target itself. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Clock, Millis, Seconds } from '../base/clock.ts'
import type { Answer, Attempt, Outgoing } from '../egress/attempt.ts'
import type { Body } from '../egress/body.ts'
import type { Try } from '../egress/exchange.ts'
import type { RawHeaders } from '../egress/headers.ts'
import type { UpgradeAttempt } from '../egress/http1.ts'
import type { Lifeline } from '../egress/lifeline.ts'
import type { Route } from '../egress/route.ts'

/** A request on its way through. */
export interface Relayed {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly method: string
  readonly route: Route
  readonly line: Lifeline
}

export interface RelayLimits {
  /** Connections at a time. */
  readonly connections: number
  readonly headerTimeout: Millis
  /** How long a request, an answer or a tunnel may stand still. */
  readonly idleTimeout: Millis
  /** How much of a body is kept for a second try, in bytes. */
  readonly bufferBytes: number
}

export interface WayOptions {
  readonly clock: Clock
  readonly limits: RelayLimits
}

/** What was settled for: the answer, and when what it rests on ends. */
export interface Settled<T> {
  readonly outcome: T
  /** Seconds since 1970; absent where that is the agent's matter. */
  readonly expires?: Seconds | undefined
}

export interface Way {
  /** Counts a request until the returned function is called; throws target_busy. */
  take(): () => void
  send(outgoing: Outgoing): Promise<Attempt>
  upgrade(outgoing: Outgoing): UpgradeAttempt
  /** Sends by `send`, again where that is right, until there is an answer for the caller. */
  settle<T extends Pick<Answer, 'headers'> & { readonly status: number }>(
    relayed: Relayed,
    body: Body | undefined,
    send: (outgoing: Outgoing) => Promise<Try<T>>,
  ): Promise<Settled<T>>
  /** The fields of an answer that reach the caller. */
  pass(raw: RawHeaders): RawHeaders
}
