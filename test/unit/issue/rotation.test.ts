import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Rotation } from '../../../src/issue/rotation.ts'

const LIFETIME = 1000
const LEAD = 100

function setUp() {
  let made = 0
  const make = (now: number) => ({ key: ++made, published: now, ends: now + LIFETIME })
  return new Rotation({ first: make(0), lead: LEAD, make })
}
const keys = (rotation: Rotation<number>) => rotation.published.map(({ key }) => key)

describe('a rotation', { timeout: 60_000 }, () => {
  it('makes a successor at half a life, lets it sign after its lead, and keeps the old key until its end', () => {
    const rotation = setUp()
    const seen: [number, number, number[]][] = []
    for (let now = 0; now <= LIFETIME; now += 1)
      if (rotation.advance(now)) seen.push([now, rotation.signing.key, keys(rotation)])
    expect(seen).toEqual([
      [500, 1, [1, 2]],
      [LIFETIME, 2, [2, 3]],
    ])
    expect(setUpAt(599).signing.key).toBe(1)
    expect(setUpAt(600).signing.key).toBe(2)
  })

  it('lets a successor sign at once when a sleep outlived the old key, and never one that it outlived too', () => {
    const awake = setUp()
    awake.advance(500)
    awake.advance(1200)
    expect(awake.signing.key).toBe(2)
    const rotation = setUp()
    rotation.advance(500)
    rotation.advance(10_000)
    expect(rotation.signing).toMatchObject({ published: 10_000 })
    expect(keys(rotation)).toEqual([rotation.signing.key])
  })

  it('takes successors from outside, the newest in place of one that has not signed', () => {
    const rotation = new Rotation({ first: { key: 1, published: 0, ends: LIFETIME }, lead: LEAD })
    expect(rotation.advance(999)).toBe(false)
    rotation.offer({ key: 2, published: 10, ends: 5000 })
    rotation.offer({ key: 3, published: 20, ends: 5000 })
    rotation.advance(119)
    expect([rotation.signing.key, keys(rotation)]).toEqual([1, [1, 3]])
    rotation.advance(120)
    expect([rotation.signing.key, keys(rotation)]).toEqual([3, [1, 3]])
  })

  it('lets a successor sign at once that verifiers know by a key that signs or has signed, and keeps both', () => {
    const rotation = new Rotation({ first: { key: 1, published: 0, ends: LIFETIME }, lead: LEAD })
    rotation.offer({ key: 21, published: 10, ends: 5000 })
    rotation.offer({ key: 11, published: 20, ends: 5000 }, (known) => known === 1)
    expect([rotation.signing.key, keys(rotation)]).toEqual([11, [1, 11]])
    rotation.offer({ key: 12, published: 30, ends: 5000 }, (known) => known === 1)
    expect([rotation.signing.key, keys(rotation)]).toEqual([12, [1, 11, 12]])
    rotation.advance(LIFETIME)
    expect(keys(rotation)).toEqual([11, 12])
  })

  it('lets a successor sign no sooner than what it is known by', () => {
    const rotation = new Rotation({ first: { key: 1, published: 0, ends: LIFETIME }, lead: LEAD })
    rotation.offer({ key: 21, published: 10, ends: 5000 })
    rotation.offer({ key: 22, published: 50, ends: 5000 }, (known) => known === 21)
    rotation.advance(109)
    expect([rotation.signing.key, keys(rotation)]).toEqual([1, [1, 22]])
    rotation.advance(110)
    expect(rotation.signing.key).toBe(22)
  })

  it('publishes each key for its lead before it signs, and as long as anything that it signed is valid', () => {
    const steps = fc.array(
      fc.record({ wait: fc.integer({ min: 1, max: 60 }), ttl: fc.integer({ min: 1, max: 400 }) }),
      {
        minLength: 50,
        maxLength: 200,
      },
    )
    fc.assert(
      fc.property(steps, (moves) => {
        const rotation = setUp()
        const firstSeen = new Map<number, number>([[1, -LEAD]])
        const issued: { key: number; expires: number }[] = []
        let now = 0
        for (const { wait, ttl } of moves) {
          now += wait
          rotation.advance(now)
          const published = keys(rotation)
          for (const key of published) if (!firstSeen.has(key)) firstSeen.set(key, now)
          const { key, ends } = rotation.signing
          expect(ends).toBeGreaterThan(now)
          expect(now - (firstSeen.get(key) ?? now)).toBeGreaterThanOrEqual(LEAD)
          issued.push({ key, expires: Math.min(now + ttl, ends) })
          expect(issued.filter((svid) => svid.expires > now && !published.includes(svid.key))).toEqual([])
        }
      }),
      { numRuns: 60, seed: 1 },
    )
  })
})

function setUpAt(now: number): Rotation<number> {
  const rotation = setUp()
  for (let at = 0; at <= now; at += 1) rotation.advance(at)
  return rotation
}
