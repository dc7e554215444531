/**
 * What a token endpoint is asked for, beside who asks: the workload's own token (RFC 6749 s.4.4), one in exchange for
 * a subject's (RFC 8693 s.2.1), or one for a grant of another server (RFC 7523 s.2.1).
 */
import type { Secret } from '../base/secret.ts'
import type { ExchangeRule, TargetIdentity } from '../policy/grant.ts'
import type { Subject } from './subjects.ts'

/** The parameters of one request; made anew for each try. */
export interface TokenGrant {
  readonly type: string
  readonly parameters: URLSearchParams
}

export type Scoped = Pick<TargetIdentity, 'scopes' | 'resource'>

/** Whose token is shown to the server that exchanges it. */
export interface Delegation {
  readonly subject: Subject
  readonly rule: ExchangeRule
  /** A JWT-SVID of the workload for that server alone. */
  readonly actor: string | undefined
}

const TYPE = 'urn:ietf:params:oauth:token-type'
const GRANT = 'urn:ietf:params:oauth:grant-type'
export const ACCESS_TOKEN = `${TYPE}:access_token`
export const JWT = `${TYPE}:jwt`

export function clientCredentials(scoped: Scoped): TokenGrant {
  return { type: 'client_credentials', parameters: scopedBy(scoped) }
}

/** The token of the target in exchange for the subject's. */
export function exchangeForToken(scoped: Scoped, delegation: Delegation): TokenGrant {
  return exchange(scopedBy(scoped), ACCESS_TOKEN, delegation)
}

/**
 * A JWT authorization grant for the server `audience` in exchange for the subject's token: the first of the two steps of
 * draft-ietf-oauth-identity-chaining (s.2.3), which may still change.
 */
export function exchangeForGrant(audience: string, scoped: Scoped, delegation: Delegation): TokenGrant {
  const parameters = scopedBy({ scopes: scoped.scopes, resource: undefined })
  parameters.set('audience', audience)
  return exchange(parameters, JWT, delegation)
}

/** The token of the target for such a grant: the second step (s.2.4). */
export function jwtBearer(scoped: Scoped, grant: Secret<string>): TokenGrant {
  const parameters = scopedBy(scoped)
  parameters.set('assertion', grant.reveal())
  return { type: `${GRANT}:jwt-bearer`, parameters }
}

function scopedBy({ scopes, resource }: Scoped): URLSearchParams {
  const parameters = new URLSearchParams()
  if (scopes.length > 0) parameters.set('scope', scopes.join(' '))
  if (resource !== undefined) parameters.set('resource', resource)
  return parameters
}

function exchange(parameters: URLSearchParams, wanted: string, delegation: Delegation): TokenGrant {
  const { subject, rule, actor } = delegation
  parameters.set('requested_token_type', wanted)
  parameters.set('subject_token', subject.token.reveal())
  parameters.set('subject_token_type', rule.subjectType === 'jwt' ? JWT : ACCESS_TOKEN)
  if (actor !== undefined) {
    parameters.set('actor_token', actor)
    parameters.set('actor_token_type', JWT)
  }
  return { type: `${GRANT}:token-exchange`, parameters }
}
