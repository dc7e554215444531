/** Bounds that all have in common: one owner, or several together, leave something for the next. */
import { describe, expect, it } from 'vitest'
import { Shares } from '../../../src/base/shares.ts'
import { faultOf } from '../../support/faults.ts'

/** How many `owner` gets. */
function fill(shares: Shares, owner: string): number {
  let count = 0
  for (; !shares.isFull(owner); count += 1) shares.take(owner)
  return count
}

describe('a bound that all have in common', () => {
  it('gives one owner half of it, and each newcomer half of what is left', () => {
    const shares = new Shares('keys', 1_200)
    expect(['a', 'b', 'c'].map((owner) => fill(shares, owner))).toEqual([600, 300, 150])
    expect(shares.all).toBe(1_050)
  })

  it('gives owners that take in turn the same, and leaves the next one as much', () => {
    const shares = new Shares('keys', 1_200)
    const owners = ['a', 'b', 'c']
    for (let turn = 0; turn < 1_000; turn += 1)
      for (const owner of owners) if (!shares.isFull(owner)) shares.take(owner)
    expect(owners.map((owner) => shares.of(owner))).toEqual([300, 300, 300])
    expect(shares.isFull('d')).toBe(false)
  })

  it('is reached by so many that nothing is left', () => {
    const shares = new Shares('keys', 8, 'keys_exhausted')
    const gives = Array.from({ length: 8 }, (_none, at) => shares.take(`owner-${at}`))
    expect(faultOf(() => shares.take('late'))).toBe('keys_exhausted: 8 keys, the limit of the node')
    gives[3]?.()
    gives[3]?.()
    expect(shares.all).toBe(7)
    shares.take('late')
    expect(faultOf(() => shares.take('later'))).toMatch(/^keys_exhausted: /)
  })

  it('says whose share is used up, and forgets who holds nothing', () => {
    const shares = new Shares('requests', 4)
    const gives = [shares.take('a'), shares.take('a')]
    expect(faultOf(() => shares.take('a'))).toBe(
      'overloaded: 2 requests are of a, and 2 are left for all others: it gets no more',
    )
    for (const give of gives) give()
    expect([shares.all, shares.of('a')]).toEqual([0, 0])
  })
})
