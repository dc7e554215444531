/** What the memory of proofs promises: each once, bounded, and nothing good that may have been used unseen. */
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import { Fingerprints } from '../../../src/ingress/fingerprints.ts'
import type { ProofUse } from '../../../src/ingress/replay.ts'
import { MemoryReplayStore } from '../../../src/ingress/replay-memory.ts'
import { ManualClock } from '../../support/clock.ts'

const SECOND = 1_000
const KEEP = 90

function open(over: { limit?: number; share?: number; skew?: number; sharesNonces?: boolean } = {}) {
  const clock = new ManualClock()
  const store = new MemoryReplayStore({ clock, keep: KEEP, limit: 1_000, share: 1_000, ...over })
  clock.advance(2 * SECOND)
  const use = (proof: Partial<ProofUse> = {}) =>
    store.use({
      scope: 'orders',
      jkt: 'key',
      jti: 'one',
      subject: 'web',
      made: nowSeconds(clock),
      hasNonce: false,
      ...proof,
    })
  return { clock, store, use }
}

describe('a proof', () => {
  it('is fresh once', () => {
    const { use } = open()
    expect([use(), use(), use()]).toEqual(['fresh', 'replayed', 'replayed'])
  })

  it('of another jti, key or scope is another', () => {
    const { use } = open()
    const proofs = [{}, { jti: 'two' }, { jkt: 'other' }, { scope: 'carts' }]
    expect(proofs.map((proof) => use(proof))).toEqual(['fresh', 'fresh', 'fresh', 'fresh'])
  })

  it('is not mistaken for one whose parts are cut elsewhere', () => {
    const { use } = open()
    expect([use({ scope: 'ab', jkt: 'c' }), use({ scope: 'a', jkt: 'bc' })]).toEqual(['fresh', 'fresh'])
  })

  it('is remembered until it could not be used again', () => {
    const { clock, use } = open()
    const made = nowSeconds(clock)
    use({ made })
    clock.advance((KEEP - 1) * SECOND)
    expect(use({ made })).toBe('replayed')
    clock.advance(SECOND)
    expect(use({ made })).toBe('floor')
  })

  it('of before the start by a clock ahead, or with a nonce of then, is below the floor', () => {
    const { clock, use } = open({ skew: 5, sharesNonces: true })
    const start = nowSeconds(clock) - 2
    expect([use({ made: start + 5 }), use({ made: start + 6 })]).toEqual(['floor', 'fresh'])
    const withNonce = [start, start + 1].map((made) => use({ made, hasNonce: true, jti: 'two' }))
    expect(withNonce).toEqual(['floor', 'fresh'])
  })

  it('of before the start is below the floor, unless a nonce shows that it is younger', () => {
    const { clock, use } = open()
    const made = nowSeconds(clock) - 2
    expect([use({ made }), use({ made, hasNonce: true }), use({ made, hasNonce: true })]).toEqual([
      'floor',
      'fresh',
      'replayed',
    ])
  })

  it('stays used when its nonce is shown once more after the memory let go of it', () => {
    const { clock, use } = open()
    const made = nowSeconds(clock)
    use({ made, hasNonce: true })
    clock.advance(KEEP * SECOND)
    expect(use({ made, hasNonce: true })).toBe('floor')
  })
})

describe('the memory', () => {
  it('is bounded: what is oldest goes first, and nothing as old is taken any more', () => {
    const { clock, store, use } = open({ limit: 3 })
    const made = nowSeconds(clock)
    use({ made, jti: 'a' })
    clock.advance(SECOND)
    for (const jti of ['b', 'c', 'd']) use({ jti })
    expect(store.count).toBe(3)
    expect([use({ made, jti: 'a' }), use({ jti: 'b' })]).toEqual(['floor', 'replayed'])
  })

  it('refuses the newest as well, when all of it is of one second', () => {
    const { store, use } = open({ limit: 2 })
    expect(['a', 'b', 'c'].map((jti) => use({ jti }))).toEqual(['fresh', 'fresh', 'floor'])
    expect(store.count).toBe(0)
  })

  it('gives no subject more than its share, and takes that of others all the while', () => {
    const { clock, use } = open({ share: 2 })
    expect(['a', 'b', 'c'].map((jti) => use({ jti }))).toEqual(['fresh', 'fresh', 'share'])
    expect([use({ jti: 'a' }), use({ jti: 'c', subject: 'cart' })]).toEqual(['replayed', 'fresh'])
    clock.advance(KEEP * SECOND)
    expect(use({ jti: 'e' })).toBe('fresh')
  })

  it('lets go of subjects with their proofs', () => {
    const { clock, store, use } = open()
    for (let at = 0; at < 100; at++) use({ subject: `s${at}`, jti: `j${at}` })
    clock.advance(KEEP * SECOND)
    use()
    expect(store.count).toBe(1)
  })

  it('takes nothing once it has stopped', () => {
    const { store, use } = open()
    store.stop()
    expect([use(), use({ hasNonce: true })]).toEqual(['floor', 'floor'])
  })
})

describe('Fingerprints', () => {
  it('have what was added and nothing else, over many growths', () => {
    const set = new Fingerprints()
    const print = (at: number) => createHash('sha256').update(String(at)).digest('binary')
    for (let at = 0; at < 5_000; at++) {
      expect(set.has(print(at))).toBe(false)
      set.add(print(at))
    }
    expect(set.size).toBe(5_000)
    for (let at = 0; at < 10_000; at++) if (set.has(print(at)) !== at < 5_000) expect.fail(String(at))
  })
})
