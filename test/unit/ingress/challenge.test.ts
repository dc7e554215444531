/** What goes outside: the class of the error, the schemes of the route, and nothing of why. */
import { describe, expect, it } from 'vitest'
import { Fault, type Reason } from '../../../src/base/fault.ts'
import { REASONS } from '../../../src/base/reasons.ts'
import { challengeOf } from '../../../src/ingress/challenge.ts'
import type { Route } from '../../../src/policy/route.ts'

const nonces = { current: () => 'n-1' }
const routeWith = (...binding: readonly string[]) =>
  ({ name: 'api', identity: { binding } }) as unknown as Route
const ALGS = 'algs="ES256 ES384 ES512 PS256 PS384 PS512 RS256"'
const said = (reason: Reason, ...binding: readonly string[]) =>
  challengeOf(new Fault(reason), routeWith(...binding), nonces).headers['www-authenticate']

describe('a challenge', () => {
  it('names the schemes that the route takes', () => {
    expect(said('token_expired', 'dpop')).toBe(`DPoP error="invalid_token", ${ALGS}`)
    expect(said('token_expired', 'dpop', 'mtls')).toBe(`DPoP error="invalid_token", ${ALGS}`)
    expect(said('token_expired', 'mtls')).toBe('Bearer error="invalid_token"')
    expect(said('proof_method', 'dpop', 'bearer')).toBe(`DPoP error="invalid_dpop_proof", ${ALGS}, Bearer`)
  })

  it('of a WIT and its proofs is 400 without a scheme, and 401 where the token is what is wrong', () => {
    const of = (reason: Reason, isWimse: boolean, ...binding: readonly string[]) => {
      const { headers, status } = challengeOf(new Fault(reason), routeWith(...binding), nonces, isWimse)
      return [status, 'www-authenticate' in headers]
    }
    for (const reason of ['proof_forged', 'proof_missing', 'svid_expired', 'bundle_missing'] as const)
      expect(of(reason, true, 'dpop', 'wpt')).toEqual([400, false])
    expect(of('token_missing', false, 'wpt', 'mtls')).toEqual([400, false])
    expect(of('token_expired', true, 'dpop', 'wpt')).toEqual([401, true])
    expect(of('proof_forged', false, 'dpop', 'wpt')).toEqual([401, true])
  })

  it('tells whoever showed nothing of no error (RFC 6750 s.3.1)', () => {
    expect(said('token_missing', 'dpop')).toBe(`DPoP ${ALGS}`)
  })

  it.each(['proof_nonce', 'replay_floor'] as const)('gives a nonce for %s', (reason) => {
    const { status, headers } = challengeOf(new Fault(reason), routeWith('dpop'), nonces)
    expect([status, headers['dpop-nonce']]).toEqual([401, 'n-1'])
    expect(headers['www-authenticate']).toContain('error="use_dpop_nonce"')
  })

  it('says when to come back', () => {
    const limited = new Fault('rate_limited', undefined, { retryAfterSeconds: 7.2 })
    expect(challengeOf(limited, undefined, nonces)).toEqual({
      status: 429,
      headers: { 'cache-control': 'no-store', 'retry-after': '8' },
    })
  })

  it('names no reason and repeats no message, whatever the reason is', () => {
    for (const reason of Object.keys(REASONS) as Reason[]) {
      const { status, headers } = challengeOf(
        new Fault(reason, 'SECRET'),
        routeWith('dpop', 'bearer'),
        nonces,
      )
      const text = JSON.stringify(headers)
      expect(text).not.toContain('SECRET')
      if (reason !== 'invalid_request') expect(text).not.toContain(reason)
      expect(status).toBeGreaterThanOrEqual(400)
    }
  })
})
