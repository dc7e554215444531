/**
 * What an outside caller hears of a refused request: a status and headers, which tell the OAuth class and nothing finer
 * (RFC 9449 s.7.1, RFC 6750 s.3.1). Which check failed is an oracle.
 */
import type { Fault, Reason } from '../base/fault.ts'
import type { Route } from '../policy/route.ts'
import { STATUS } from '../serve/status.ts'
import { ALGS } from './binding.ts'
import type { ServerNonces } from './nonces.ts'

export interface Challenge {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
}

/** Reasons that elsewhere speak of what a workload sends out: here they are about the credential that came in. */
const CREDENTIAL: ReadonlySet<Reason> = new Set([
  'token_expired',
  'token_too_long',
  'token_malformed',
  'svid_invalid',
  'svid_expired',
  'svid_audience',
  'spiffe_id_invalid',
  'bundle_missing',
])
/** Of these, what says nothing of an access token: with a WIT they are answered as WIMSE has it. */
const WORKLOAD: ReadonlySet<Reason> = new Set([
  'svid_invalid',
  'svid_expired',
  'spiffe_id_invalid',
  'bundle_missing',
])
const RETRY_SECONDS = 1

/** The answer to the caller; without a route nothing is known of what it could send instead. */
export function challengeOf(
  fault: Fault,
  route: Route | undefined,
  nonces: Pick<ServerNonces, 'current'>,
  isWimse = false,
): Challenge {
  const { status, error } = classOf(fault, isWimse || takesWimseOnly(route))
  const headers: Record<string, string> = { 'cache-control': 'no-store' }
  // RFC 6750 s.3.1: who showed nothing is told of no error.
  if (status === 401)
    headers['www-authenticate'] = schemesOf(route, fault.reason === 'token_missing' ? undefined : error)
  else if (error === 'insufficient_scope') headers['www-authenticate'] = schemesOf(route, error)
  if (error === 'use_dpop_nonce') headers['dpop-nonce'] = nonces.current()
  if (status === 429 || status === 503)
    headers['retry-after'] = String(Math.ceil(fault.retryAfterSeconds ?? RETRY_SECONDS))
  return { status, headers }
}

function classOf({ reason }: Fault, isWimse: boolean): { readonly status: number; readonly error: string } {
  const { http, oauth } = CREDENTIAL.has(reason) ? { http: 401, oauth: 'invalid_token' } : STATUS[reason]
  const isOfWit = WORKLOAD.has(reason) || reason === 'token_missing' || oauth === 'invalid_dpop_proof'
  // draft-ietf-wimse-workload-creds, -wpt and -http-signature, "Error Conditions": 400, since no scheme of
  // Authorization would help.
  if (isWimse && http === 401 && isOfWit) return { status: 400, error: 'invalid_request' }
  return { status: http, error: oauth }
}

/** A route that takes no token at all, and proofs of WITs alone. */
function takesWimseOnly(route: Route | undefined): boolean {
  const { binding = [], servers = [] } = route?.identity ?? {}
  const isProof = (one: string) => one === 'wpt' || one === 'http-signature'
  return (
    servers.length === 0 &&
    binding.some(isProof) &&
    !binding.some((one) => one === 'dpop' || one === 'bearer' || one === 'jwt_svid')
  )
}

/** RFC 9449 s.7.1; bearer tokens and those bound to a certificate are of the other scheme (RFC 8705 s.3). */
function schemesOf(route: Route | undefined, error: string | undefined): string {
  const binding = route?.identity?.binding ?? []
  const isDpop = binding.includes('dpop')
  const said = error === undefined ? [] : [`error="${error}"`]
  const dpop = `DPoP ${[...said, `algs="${[...ALGS].join(' ')}"`].join(', ')}`
  const known = said.filter(() => error === 'invalid_token' || error === 'insufficient_scope')
  const bearer = ['Bearer', ...known].join(' ')
  const isBearer = !isDpop || binding.includes('bearer') || binding.includes('jwt_svid')
  return [...(isDpop ? [dpop] : []), ...(isBearer ? [bearer] : [])].join(', ')
}
