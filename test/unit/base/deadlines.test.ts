import { expect, it } from 'vitest'
import { Deadlines } from '../../../src/base/deadlines.ts'
import { ManualClock } from '../../support/clock.ts'

function openDeadlines() {
  const clock = new ManualClock()
  const ended: string[] = []
  const deadlines = new Deadlines<string>(clock, 1_000, (item) => {
    ended.push(`${item} at ${clock.monotonic()}`)
  })
  return { clock, ended, deadlines }
}

it('each item ends when its own time is over', () => {
  const { clock, ended, deadlines } = openDeadlines()
  deadlines.add('first')
  clock.advance(400)
  deadlines.add('second')
  deadlines.add('third')
  clock.advance(599)
  expect(ended).toEqual([])
  clock.advance(10_000)
  expect(ended).toEqual(['first at 1000', 'second at 1400', 'third at 1400'])
  expect(deadlines.items).toEqual([])
})

it('what is deleted does not end, nor does what is added anew before its new time', () => {
  const { clock, ended, deadlines } = openDeadlines()
  for (const item of ['gone', 'renewed', 'other']) deadlines.add(item)
  clock.advance(500)
  deadlines.delete('gone')
  deadlines.add('renewed')
  expect(deadlines.items).toEqual(['other', 'renewed'])
  clock.advance(900)
  expect(ended).toEqual(['other at 1000'])
  clock.advance(100)
  expect(ended).toEqual(['other at 1000', 'renewed at 1500'])
})

it('time begins again after all have ended', () => {
  const { clock, ended, deadlines } = openDeadlines()
  deadlines.add('one')
  deadlines.delete('one')
  clock.advance(900)
  deadlines.add('two')
  clock.advance(5_000)
  deadlines.add('three')
  clock.advance(5_000)
  expect(ended).toEqual(['two at 1900', 'three at 6900'])
})

it('an item that adds another as it ends does not hold up those after it', () => {
  const clock = new ManualClock()
  const ended: string[] = []
  const deadlines = new Deadlines<string>(clock, 1_000, (item) => {
    ended.push(`${item} at ${clock.monotonic()}`)
    if (item === 'one') deadlines.add('new')
  })
  deadlines.add('one')
  clock.advance(400)
  deadlines.add('two')
  clock.advance(3_000)
  expect(ended).toEqual(['one at 1000', 'two at 1400', 'new at 2000'])
})
