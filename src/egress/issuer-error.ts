/** What an authorization server says when it gives no token (RFC 6749 s.5.2): by code; its free text is never repeated. */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { valuesOf } from './headers.ts'
import { type IssuerAnswer, unavailable } from './issuer-http.ts'

/** IANA's OAuth Extensions Error registry, as far as a token or revocation endpoint uses it. */
const CODES: ReadonlySet<unknown> = new Set([
  'invalid_request',
  'invalid_client',
  'invalid_grant',
  'unauthorized_client',
  'unsupported_grant_type',
  'unsupported_token_type',
  'invalid_scope',
  'invalid_target',
  'invalid_dpop_proof',
  'use_dpop_nonce',
  'access_denied',
  'insufficient_scope',
  'invalid_authorization_details',
  'invalid_client_metadata',
  'use_attestation_challenge',
])
const BODY = { maxBytes: 64 * 1024, maxDepth: 8 }
const RETRY_LIMIT: Seconds = 300
const CLOCKS_DIFFER: Seconds = 10

/** The error code of an answer: a registered one, `other`, or undefined when there is none. */
export function errorOf({ body }: IssuerAnswer): string | undefined {
  try {
    const { error } = parseJsonObject(body, BODY)
    if (typeof error !== 'string') return undefined
    return CODES.has(error) ? error : 'other'
  } catch {
    return undefined
  }
}

/** The Fault of an answer that is not 200: the server refuses, or it does not work. */
export function refusalOf(answer: IssuerAnswer, now: Seconds): Fault {
  const { status } = answer
  const code = errorOf(answer)
  if (status < 400 || status >= 500 || status === 408 || status === 429 || code === undefined)
    return unavailable(`answers with status ${status}`, retryAfterOf(answer))
  const words = code === 'other' ? `status ${status} and no registered error code` : code
  return new Fault(
    'issuer_refused',
    `the authorization server refuses the token: ${words}${clockText(answer, now)}`,
  )
}

/** RFC 9110 s.10.2.3 in seconds, bounded; dates are not read. */
function retryAfterOf({ raw }: IssuerAnswer): Seconds | undefined {
  const text = valuesOf(raw, 'retry-after')[0] ?? ''
  return /^[0-9]{1,9}$/.test(text) ? Math.min(Math.max(Number(text), 1), RETRY_LIMIT) : undefined
}

/** Proofs and assertions fail where clocks differ, and the server's error seldom says so. */
function clockText({ raw }: IssuerAnswer, now: Seconds): string {
  const date = Date.parse(valuesOf(raw, 'date')[0] ?? '') / 1000
  const off = Math.round(date - now)
  return Math.abs(off) > CLOCKS_DIFFER
    ? `; its clock is ${Math.abs(off)} s ${off > 0 ? 'ahead' : 'behind'}`
    : ''
}
