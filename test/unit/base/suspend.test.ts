import { expect, it } from 'vitest'
import { watchSuspend } from '../../../src/base/suspend.ts'
import { ManualClock } from '../../support/clock.ts'

it('tells of a sleep, which only time since boot sees, and of nothing else', () => {
  const clock = new ManualClock()
  let slept = 0
  let resumed = 0
  const stop = watchSuspend(
    clock,
    () => (resumed += 1),
    () => clock.monotonic() + slept,
  )
  clock.advance(10_000)
  clock.jump(3_600_000)
  clock.advance(10_000)
  expect(resumed).toBe(0)
  slept = 60_000
  clock.advance(1_000)
  expect(resumed).toBe(1)
  clock.advance(10_000)
  expect(resumed).toBe(1)
  stop()
  slept = 120_000
  clock.advance(10_000)
  expect(resumed).toBe(1)
})
