/** A verifier whose clock is set: whatever it was and becomes, no proof is taken twice, and it goes on when it is right. */
import { beforeEach, describe, expect, it } from 'vitest'
import type { Inbound } from '../../../src/ingress/inbound.ts'
import { openVerifier, outcomeOf, type TestVerifier } from '../../support/verifier.ts'

const MINUTE = 60_000
const JUMP = 10 * MINUTE
let v: TestVerifier

beforeEach(async () => {
  v = await openVerifier()
})

const outcome = (request: Inbound) => outcomeOf(v, request)

/** The same numbers on every run (mulberry32). */
function numbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

describe('a clock that is set forward by ten minutes', () => {
  it('finds what it took too old, and takes what is new', async () => {
    const before = v.request()
    expect(await outcome(before)).toBe('ok')
    v.clock.jump(JUMP)
    expect(await outcome(before)).toMatch(/^(?:proof_time|token_expired)$/)
    expect(await outcome(v.request())).toBe('ok')
  })

  it('and back brings nothing to life of before, between or after', async () => {
    const before = v.request()
    expect(await outcome(before)).toBe('ok')
    v.clock.jump(JUMP)
    const between = v.request()
    expect(await outcome(between)).toBe('ok')
    v.clock.jump(-JUMP)
    expect(await outcome(before)).toBe('proof_replayed')
    // That its sender or an attacker makes up by a clock ahead.
    expect(await outcome(between)).toBe('token_malformed')
    v.clock.advance(JUMP)
    expect(await outcome(between)).toBe('replay_floor')
  })
})

describe('a clock that is set back by ten minutes', () => {
  it('takes what was made by it, and nothing of before it was set', async () => {
    const before = v.request()
    expect(await outcome(before)).toBe('ok')
    v.clock.jump(-JUMP)
    expect(await outcome(before)).toBe('token_malformed')
    // The memory cannot know what it saw of that time, but by a nonce, which no clock brings back.
    expect(await outcome(v.request())).toBe('replay_floor')
    const withNonce = v.request({ proof: { nonce: v.nonces.current() } })
    expect([await outcome(withNonce), await outcome(withNonce)]).toEqual(['ok', 'proof_replayed'])
    v.clock.advance(JUMP)
    expect(await outcome(before)).toBe('replay_floor')
    v.clock.advance(MINUTE)
    expect(await outcome(v.request())).toBe('ok')
  })

  it('makes no nonce good again', async () => {
    const nonce = v.nonces.current()
    v.clock.advance(5 * MINUTE)
    v.clock.jump(-5 * MINUTE)
    expect(await outcome(v.request({ proof: { nonce } }))).toBe('proof_nonce')
  })
})

describe('a clock that nobody can rely on', () => {
  it.each(Array.from({ length: 20 }, (_, seed) => seed))('takes no proof twice (walk %i)', async (seed) => {
    const next = numbers(seed)
    const taken = new Map<Inbound, number>()
    const reasons = new Set<string>()
    const try_ = async (request: Inbound) => {
      const heard = await outcome(request)
      reasons.add(heard)
      taken.set(request, (taken.get(request) ?? 0) + (heard === 'ok' ? 1 : 0))
    }
    for (let step = 0; step < 120; step++) {
      if (next() < 0.3) v.clock.jump((next() * 2 - 1) * JUMP)
      v.clock.advance(next() * (next() < 0.1 ? JUMP : MINUTE / 4))
      await try_(v.request({ proof: next() < 0.5 ? {} : { nonce: v.nonces.current() } }))
      const known = [...taken.keys()]
      for (let again = 0; again < 3; again++) await try_(known[Math.floor(next() * known.length)] as Inbound)
    }
    expect([...taken.values()].filter((times) => times > 1)).toEqual([])
    expect([...taken.values()].filter((times) => times === 1).length).toBeGreaterThan(20)
    expect(reasons).not.toContain('bug')
    v.clock.advance(2 * JUMP * 60)
    expect(await outcome(v.request())).toBe('ok')
  })
})
