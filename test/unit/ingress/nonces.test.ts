/** Nonces that say themselves when they were given. */
import { createSecretKey } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import { ServerNonces } from '../../../src/ingress/nonces.ts'
import { ManualClock } from '../../support/clock.ts'

const SECOND = 1_000

function open(key?: string, life = 120) {
  const clock = new ManualClock()
  const options = { clock, life, ...(key ? { key: createSecretKey(Buffer.from(key.repeat(32))) } : {}) }
  return { clock, nonces: new ServerNonces(options) }
}

describe('a nonce', () => {
  it('is known for its life, and says when it was given', () => {
    const { clock, nonces } = open()
    const nonce = nonces.current()
    const given = nonces.givenAt(nonce)
    expect(given).toBeGreaterThan(nowSeconds(clock) - 30)
    clock.advance(120 * SECOND)
    expect(nonces.givenAt(nonce)).toBe(given)
    clock.advance(30 * SECOND)
    expect(nonces.givenAt(nonce)).toBeUndefined()
  })

  it('of a short life changes as often, and is soon over', () => {
    const { clock, nonces } = open(undefined, 5)
    const nonce = nonces.current()
    clock.advance(5 * SECOND)
    expect(nonces.current()).not.toBe(nonce)
    expect(nonces.givenAt(nonce)).toBeDefined()
    clock.advance(5 * SECOND)
    expect(nonces.givenAt(nonce)).toBeUndefined()
  })

  it('stays the same for a step and then changes', () => {
    const { clock, nonces } = open()
    const seen = new Set<string>()
    for (let second = 0; second < 60; second++) {
      seen.add(nonces.current())
      clock.advance(SECOND)
    }
    expect(seen.size).toBeLessThanOrEqual(3)
    expect(seen.size).toBeGreaterThan(1)
  })

  it('is known to every node with the key, and to no other', () => {
    const [one, other, foreign] = [open('a'), open('a'), open('b')]
    const nonce = one.nonces.current()
    expect(other.nonces.givenAt(nonce)).toBeDefined()
    expect(foreign.nonces.givenAt(nonce)).toBeUndefined()
  })

  it('given after a floor was raised is of after it, on the same step', () => {
    const { clock, nonces } = open()
    const before = nonces.current()
    const floor = nowSeconds(clock)
    nonces.raise(floor)
    const after = nonces.current()
    expect(nonces.givenAt(before)).toBeLessThanOrEqual(floor)
    expect(nonces.givenAt(after)).toBeGreaterThan(floor)
    clock.advance(60 * SECOND)
    expect(nonces.givenAt(nonces.current())).toBeGreaterThan(floor + 1)
  })

  it('is not made good again by a clock that is set back', () => {
    const { clock, nonces } = open()
    const nonce = nonces.current()
    clock.advance(200 * SECOND)
    expect(nonces.givenAt(nonce)).toBeUndefined()
    clock.jump(-200 * SECOND)
    expect(nonces.givenAt(nonce)).toBeUndefined()
    expect(nonces.givenAt(nonces.current())).toBeDefined()
  })

  it.each([
    ['empty', ''],
    ['of another length', 'AAAA'],
    ['made up', 'A'.repeat(22)],
    ['with other characters', `${'A'.repeat(21)}=`],
  ])('%s is none', (_what, nonce) => {
    expect(open().nonces.givenAt(nonce)).toBeUndefined()
  })

  it('from the future is none', () => {
    const [ahead, behind] = [open('a'), open('a')]
    ahead.clock.advance(120 * SECOND)
    expect(behind.nonces.givenAt(ahead.nonces.current())).toBeUndefined()
  })

  it('with one bit changed is none', () => {
    const { nonces } = open()
    const bytes = Buffer.from(nonces.current(), 'base64url')
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 1
      expect(nonces.givenAt(changed.toString('base64url'))).toBeUndefined()
    }
  })
})
