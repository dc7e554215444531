/** One answer of the place that is probed, as far as a verdict needs it. All of its text is from outside. */
import type { IncomingHttpHeaders } from 'node:http'
import { printable, type Reason } from '../base/fault.ts'

export interface Answer {
  /** 0: there was none. */
  readonly status: number
  /** Why there was none. */
  readonly failure: string | undefined
  /** Whether the lab itself did not go on, where a thief would: for a certificate that it cannot check, or a name. */
  readonly isOwnFailure: boolean
  /** `error` of `WWW-Authenticate` (RFC 6750 s.3.1); `other` for one that is no error code. */
  readonly error: string | undefined
  /** `DPoP-Nonce`. */
  readonly nonce: string | undefined
  /** `name=value` of each cookie it sets. */
  readonly cookies: readonly string[]
  /** Cookies that were left out: too many, too long, or of characters that no header takes. */
  readonly otherCookies: number
  /** Headers that tell of caches and gateways, bounded and without control characters. */
  readonly traces: readonly string[]
  /** What the verifier's audit says of the request; undefined where it says nothing. */
  readonly record: VerifierRecord | undefined
}

/** A record of `verify` in the audit of the verifier. */
export interface VerifierRecord {
  /** Whose audit it is from. */
  readonly verifier: string
  readonly allowed: boolean
  readonly reason: Reason | 'other' | undefined
}

/** What became of a request: `nothing` is neither taken nor refused for what it carried. */
export type Fate = 'taken' | 'refused' | 'unreached' | 'nothing'

const REFUSED: ReadonlySet<number> = new Set([400, 401, 403, 421])
const NOT_MODIFIED = 304

export function fateOf({ status }: Pick<Answer, 'status'>): Fate {
  if (status === 0) return 'unreached'
  if ((status >= 200 && status < 300) || status === NOT_MODIFIED) return 'taken'
  return REFUSED.has(status) ? 'refused' : 'nothing'
}

const COOKIES_LIMIT = 64
// No control character but the tab, which a header takes. What clients send back, not what RFC 6265 s.4.1 would have servers set: a session with a blank in it is one.
const COOKIE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is left out.
  /^[\t ]*([^;=\x00-\x1f\x7f]{0,256}=[\t\x20-\x3a\x3c-\x7e\x80-\xff]{0,4096}|[\x21-\x3a\x3c\x3e-\x7e]{1,256})(?:;|$)/
const TRACES = ['via', 'age', 'x-cache', 'cf-cache-status', 'server'] as const
const TRACE_LIMIT = 80
const NONCE = /^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/

type Read = Omit<Answer, 'failure' | 'isOwnFailure' | 'record'>

export function readAnswer(status: number, headers: IncomingHttpHeaders): Read {
  const nonce = headers['dpop-nonce']
  const set = headers['set-cookie'] ?? []
  const cookies = set.slice(0, COOKIES_LIMIT).flatMap(cookieIn)
  return {
    status,
    error: errorIn(headers['www-authenticate']),
    nonce: typeof nonce === 'string' && NONCE.test(nonce) ? nonce : undefined,
    cookies,
    otherCookies: set.length - cookies.length,
    traces: TRACES.flatMap((name) => {
      const value = headers[name]
      return typeof value === 'string' ? [traceText(name, value)] : []
    }),
  }
}

export function noAnswer(failure: string, isOwnFailure: boolean): Omit<Answer, 'record'> {
  return {
    status: 0,
    failure,
    isOwnFailure,
    error: undefined,
    nonce: undefined,
    cookies: [],
    otherCookies: 0,
    traces: [],
  }
}

const ERROR = /(?:^|[\s,])error="?([^",\s]{1,256})/i
const ERROR_CODE = /^[a-z][a-z_]{0,47}$/

function errorIn(challenge: string | undefined): string | undefined {
  const code = ERROR.exec(challenge ?? '')?.[1]
  if (code === undefined) return undefined
  return ERROR_CODE.test(code) ? code : 'other'
}

function cookieIn(text: string): readonly string[] {
  const [, pair] = COOKIE.exec(text) ?? []
  return pair === undefined ? [] : [pair.trimEnd()]
}

function traceText(name: string, value: string): string {
  const text = printable(value)
  return `${name}: ${text.length > TRACE_LIMIT ? `${text.slice(0, TRACE_LIMIT)}…` : text}`
}
