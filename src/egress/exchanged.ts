/**
 * What the agent checks of what it was given for a subject's token, beyond what it checks of every token: nobody else's,
 * with this workload as actor where policy says so, and no longer of use than the subject's own.
 */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { ExchangeRule } from '../policy/grant.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { parseJws } from '../spiffe/jws.ts'
import { type Issued, listOf } from './issued.ts'
import { unavailable } from './issuer-http.ts'
import type { Subject } from './subjects.ts'

export interface ExchangeWanted {
  readonly subject: Subject
  readonly rule: ExchangeRule
  readonly spiffeId: SpiffeId
  readonly now: Seconds
  /** How far the server's clock may be off. */
  readonly skew: Seconds
}

type Claims = Readonly<Record<string, unknown>>

/** The longest life of a grant between two servers: it is used at once. */
const GRANT_LIFE: Seconds = 300

/** RFC 8693 s.2.2.1; throws issuer_unavailable: without it nobody knows what was issued. */
export function checkIssuedType({ issuedTokenType }: Issued, wanted: string): void {
  if (issuedTokenType !== wanted) throw unavailable('does not say that it issued the type of token asked for')
}

/** When the token ends, given that it `expires` by itself. Throws issued_too_wide, issued_too_long, subject_unknown. */
export function checkExchanged(issued: Issued, expires: Seconds, wanted: ExchangeWanted): Seconds {
  const claims = parseJws(issued.accessToken)?.payload
  const { subject, rule, now } = wanted
  checkPerson(claims, subject)
  if (rule.hasActor) checkActor(claims, wanted)
  checkEnd(issued, claims, wanted)
  if (subject.signal.aborted || subject.expires <= now) throw new Fault('subject_unknown')
  return Math.min(expires, subject.expires)
}

/**
 * A JWT authorization grant for the server `audience` (draft-ietf-oauth-identity-chaining s.2.3.3). Throws as
 * checkExchanged, and issuer_unavailable for what is no such grant.
 */
export function checkGrant(
  issued: Issued,
  { issuer, audience }: { readonly issuer: string; readonly audience: string },
  wanted: ExchangeWanted,
): void {
  const claims = parseJws(issued.accessToken)?.payload
  if (!claims) throw unavailable('issues a grant that is no JWT')
  if (claims['iss'] !== issuer) throw unavailable('issues a grant that names another issuer')
  const named = listOf(claims['aud'])
  if (named.length !== 1 || named[0] !== audience)
    throw new Fault('issued_too_wide', 'the grant is for another audience than the server of the target')
  const { exp } = claims
  if (typeof exp !== 'number' || exp > wanted.now + GRANT_LIFE + wanted.skew)
    throw new Fault('issued_too_long', `the grant between the servers lives longer than ${GRANT_LIFE} s`)
  checkExchanged(issued, exp, wanted)
}

/** Where both can be read: another `sub` is another person's token. */
function checkPerson(claims: Claims | undefined, { claims: known }: Subject): void {
  if (!claims || !known || (claims['sub'] ?? '') === known.subject) return
  throw new Fault('issued_too_wide', 'the issued token has another sub than the subject token')
}

/** RFC 8693 s.4.1: without `act` the token is the subject's own, whoever uses it. */
function checkActor(claims: Claims | undefined, { spiffeId }: ExchangeWanted): void {
  if (!claims) return
  const act = claims['act']
  const actor = typeof act === 'object' && act !== null && 'sub' in act ? act.sub : undefined
  if (actor !== spiffeId)
    throw new Fault('issued_too_wide', 'the issued token does not name this workload as its actor: act.sub')
}

/** `exp` is by the clock that the subject's own is by; `expires_in` was counted before the answer came here. */
function checkEnd({ expiresIn }: Issued, claims: Claims | undefined, wanted: ExchangeWanted): void {
  const end = wanted.subject.claims?.expires
  if (end === undefined) return
  const exp = claims?.['exp']
  const over = typeof exp === 'number' ? exp - end : wanted.now + (expiresIn ?? 0) - (end + wanted.skew)
  if (over > 0)
    throw new Fault('issued_too_long', `the issued token outlives the subject token by ${Math.ceil(over)} s`)
}
