/**
 * What the agent checks of an access token before it proves it: that it is bound to a key of this caller and lives
 * no longer than the target allows. The signature is the authorization server's and its audience's business.
 */

import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Jkt } from '../proof/signer.ts'

const THUMBPRINT = /^[A-Za-z0-9_-]{43}$/
const LEEWAY: Seconds = 5

/** The facts read from a token; the token itself is not kept. */
export interface TokenFacts {
  readonly jkt: Jkt
  readonly expires: Seconds
}

/** Reads `token` as a JWT; throws token_malformed, token_foreign (no `cnf.jkt`), token_expired, token_too_long. */
export function readToken(token: string, now: Seconds, maxTtl: Seconds): TokenFacts {
  const claims = payloadOf(token)
  const expires = claims['exp']
  if (typeof expires !== 'number' || !Number.isFinite(expires)) {
    throw new Fault('token_expired', 'the access token has no exp')
  }
  if (expires <= now - LEEWAY)
    throw new Fault('token_expired', `the access token expired ${Math.floor(now - expires)} s ago`)
  if (expires > now + maxTtl + LEEWAY) {
    throw new Fault(
      'token_too_long',
      `the access token lives ${Math.floor(expires - now)} s more, allowed are ${maxTtl} s`,
    )
  }
  const cnf = claims['cnf']
  const jkt = typeof cnf === 'object' && cnf !== null && 'jkt' in cnf ? cnf.jkt : undefined
  if (typeof jkt !== 'string' || !THUMBPRINT.test(jkt)) {
    throw new Fault('token_foreign', 'the access token is not bound to a key: it has no cnf.jkt')
  }
  return { jkt: jkt as Jkt, expires }
}

function payloadOf(token: string): Record<string, unknown> {
  const parts = token.split('.')
  if (parts.length !== 3 || !parts[1]) throw new Fault('token_malformed')
  try {
    const claims: unknown = JSON.parse(Buffer.from(parts[1], 'base64url').toString('utf8'))
    if (typeof claims === 'object' && claims !== null && !Array.isArray(claims))
      return claims as Record<string, unknown>
  } catch {
    // The parser's message quotes its input, which is the token.
  }
  throw new Fault('token_malformed')
}
