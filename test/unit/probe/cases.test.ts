/** The cases of the replay lab: which there are, and who has to act when nothing more than an answer is known. */
import { describe, expect, it } from 'vitest'
import { CASES, CORE_CASES } from '../../../src/probe/cases.ts'

const OWNERS: Readonly<Record<string, string>> = {
  replay: 'application',
  late_replay: 'application',
  other_method: 'application',
  other_url: 'application',
  wrong_ath: 'application',
  other_key: 'application',
  forged_proof: 'application',
  as_bearer: 'application',
  no_token: 'application',
  no_proof: 'application',
  two_proofs: 'application',
  alg_none: 'application',
  private_jwk: 'application',
  future_iat: 'application',
  past_iat: 'application',
  old_nonce: 'application',
  forwarded_host: 'application',
  forged_user: 'application',
  expired: 'application',
  other_audience: 'application',
  cookie: 'application',
  passed_on: 'application',
  // What gateways and caches do.
  forged_xfcc: 'platform',
  shared_cache: 'platform',
  // What the authorization server issues, and which binding there is.
  long_life: 'identity',
  query_swapped: 'identity',
  // Who is revoked, and how that is heard.
  revoked: 'security',
}

describe('the cases of the replay lab', () => {
  it('have each an owner, a cure and what is sent', () => {
    expect(Object.fromEntries(CASES.map(({ id, owner }) => [id, owner]))).toEqual(OWNERS)
    for (const { cure, sends } of CASES) {
      expect(cure).toMatch(/^[A-Z].+\.$/)
      expect(sends).not.toBe('')
    }
  })

  it('name the check that has to refuse them, but for what is seen without a request', () => {
    expect(CASES.filter(({ reasons }) => reasons.length === 0).map(({ id }) => id)).toEqual([
      'long_life',
      'passed_on',
    ])
  })

  it('play the least at places behind the first: what needs no wait and ends no token', () => {
    expect(CORE_CASES.map(({ id }) => id)).toEqual([
      'replay',
      'other_key',
      'no_token',
      'no_proof',
      'as_bearer',
      'forged_xfcc',
      'forged_user',
    ])
    expect(CORE_CASES.every(({ phase }) => phase === 'now')).toBe(true)
  })
})
