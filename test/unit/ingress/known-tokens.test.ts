/** Tokens that were verified a moment ago: for a minute, a bounded number of them. */
import { describe, expect, it } from 'vitest'
import { RecentTokens } from '../../../src/ingress/known-tokens.ts'
import { ManualClock } from '../../support/clock.ts'

const server = { issuer: 'https://login.example.org', tokenEndpoint: undefined, client: undefined }
const known = { server, claims: { sub: 'ann' }, expires: 1, read: [] }

describe('a token that was verified', () => {
  it('is known for a minute, however often it is used', () => {
    const clock = new ManualClock()
    const tokens = new RecentTokens(clock)
    tokens.set('a', known)
    clock.advance(59_999)
    expect(tokens.get('a')).toBe(known)
    clock.advance(1)
    expect(tokens.get('a')).toBeUndefined()
  })

  it('makes room for newer ones when it was not used for the longest time', () => {
    const clock = new ManualClock()
    const tokens = new RecentTokens(clock)
    tokens.set('used', known)
    tokens.set('idle', known)
    clock.advance(1_000)
    expect(tokens.get('used')).toBe(known)
    for (let at = 0; at < 19_999; at++) tokens.set(`t-${at}`, known)
    expect(tokens.get('idle')).toBeUndefined()
    expect(tokens.get('used')).toBe(known)
  })

  it('is forgotten with a change of policy', () => {
    const tokens = new RecentTokens(new ManualClock())
    tokens.set('a', known)
    tokens.clear()
    expect(tokens.get('a')).toBeUndefined()
  })
})
