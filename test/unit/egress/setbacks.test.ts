import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { Setbacks } from '../../../src/egress/setbacks.ts'
import { ManualClock } from '../../support/clock.ts'
import { faultOf } from '../../support/faults.ts'

const make = (limit = 10) => {
  const clock = new ManualClock()
  return { clock, setbacks: new Setbacks(clock, limit, () => 0) }
}
const DOWN = new Fault('issuer_unavailable', 'down', { action: 'Mend it.', owner: 'platform' })

describe('setbacks', () => {
  it('count failures of requests that were under way together as one', () => {
    const { clock, setbacks } = make()
    for (let index = 0; index < 8; index += 1) setbacks.add('a', DOWN)
    expect(setbacks.waitOf('a')).toBe(500)
    clock.advance(500)
    setbacks.add('a', DOWN)
    expect(setbacks.waitOf('a')).toBe(1_000)
  })

  it('tell the failure as it was, with the time to wait in whole seconds', () => {
    const { clock, setbacks } = make()
    setbacks.add('a', new Fault('issuer_unavailable', 'down', { retryAfterSeconds: 7 }))
    clock.advance(1_500)
    expect(faultOf(() => setbacks.check('a'))).toBe('issuer_unavailable: down')
    expect(setbacks.add('a', DOWN).retryAfterSeconds).toBe(6)
    clock.advance(5_500)
    expect(() => setbacks.check('a')).not.toThrow()
  })

  it('keep owner and cure', () => {
    expect(make().setbacks.add('a', DOWN)).toMatchObject({ owner: 'platform', action: 'Mend it.' })
  })

  it('never wait over a minute by themselves, and forget after a success', () => {
    const { clock, setbacks } = make()
    for (let index = 0; index < 12; index += 1) {
      setbacks.add('a', DOWN)
      expect(setbacks.waitOf('a')).toBeLessThanOrEqual(30_000)
      clock.advance(60_000)
    }
    setbacks.clear('a')
    setbacks.add('a', DOWN)
    expect(setbacks.waitOf('a')).toBe(500)
  })

  it('are bounded: the oldest go', () => {
    const { setbacks } = make(2)
    for (const key of ['a', 'b', 'c']) setbacks.add(key, DOWN)
    expect(['a', 'b', 'c'].map((key) => setbacks.waitOf(key))).toEqual([0, 500, 500])
  })
})
