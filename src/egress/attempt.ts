/** One try of one request at its target, whichever version of HTTP carries it. */
import type { Readable, Writable } from 'node:stream'
import { Fault } from '../base/fault.ts'
import type { RawHeaders } from './headers.ts'

/** A request as it leaves. */
export interface Outgoing {
  readonly method: string
  /** Path and query. */
  readonly path: string
  /** Scheme and authority. */
  readonly origin: string
  /** In order, Host first; nothing is added on the way. */
  readonly headers: RawHeaders
  readonly hasBody: boolean
  readonly wantsTrailers: boolean
}

/** The final answer of a target. */
export interface Answer {
  readonly status: number
  readonly headers: RawHeaders
  readonly body: Readable
  /** Whether the head is known to be all, as a gRPC status without messages is. */
  readonly isBare: boolean
  /** Whether `body` has ended before its end: HTTP/2 streams of a lost connection end like whole ones. */
  isCut(): boolean
  /** The trailer fields, once `body` has ended. */
  trailers(): RawHeaders
}

/** A request under way. */
export interface Attempt {
  /** Takes the body; ended by `finish` alone. */
  readonly sink: Writable
  /** Rejects with the Fault that says why there is none. */
  readonly answer: Promise<Answer>
  /** Calls back when the target says 100 Continue. */
  onContinue(then: () => void): void
  /** Ends the body. */
  finish(trailers: RawHeaders): void
  /** Whether it went over a connection that had been idle, which the target may just have closed. */
  isReused(): boolean
  /** Closes what carries it; nothing more comes. */
  abort(): void
}

/** Interim answers that one request may get: a hostile target sends them for ever. */
export const INTERIM_LIMIT = 16

const TLS_CODE =
  /^(?:ERR_TLS|ERR_SSL|CERT_|UNABLE_TO|DEPTH_ZERO|SELF_SIGNED|HOSTNAME_MISMATCH|INVALID_CA|EPROTO)/
const FORM_CODE = /^(?:HPE_|ERR_HTTP_|ERR_INVALID|ERR_HTTP2_(?:INVALID|HEADER|STATUS|INFO))/

/** Why a target did not answer, without the library's words. */
export function upstreamFault(caught: unknown): Fault {
  if (caught instanceof Fault) return caught
  const code = caught instanceof Error && 'code' in caught ? String(caught.code) : ''
  if (TLS_CODE.test(code)) return new Fault('upstream_tls', undefined, { cause: caught })
  if (FORM_CODE.test(code)) return new Fault('upstream_malformed', undefined, { cause: caught })
  return new Fault('upstream_unavailable', undefined, { cause: caught })
}

/** Throws upstream_malformed for a status that is no final one. */
export function checkStatus(status: number): number {
  if (status >= 200 && status <= 599) return status
  throw new Fault('upstream_malformed', `the target answers with status ${status}`)
}
