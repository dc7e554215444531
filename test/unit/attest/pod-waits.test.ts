import { expect, it } from 'vitest'
import { parsePods } from '../../../src/attest/pod-list.ts'
import type { Listed } from '../../../src/attest/pod-source.ts'
import { PodWaits } from '../../../src/attest/pod-waits.ts'
import { ManualClock } from '../../support/clock.ts'
import { podList } from '../../support/fake-kubelet.ts'

const list = parsePods(podList([]))

/** Waits for a kubelet that answers when the test says so. */
function open() {
  const clock = new ManualClock()
  const asked: number[] = []
  const kubelet = {
    since: async (since: number): Promise<Listed> => {
      asked.push(since)
      return { list, asked: since }
    },
  }
  const waits = new PodWaits(kubelet, clock)
  const answer = (at = asked.at(-1) ?? 0) => waits.take({ list, asked: at })
  return { clock, asked, waits, answer }
}

it('asks at once, soon after the first list, and then every tenth of a second', () => {
  const { clock, asked, waits, answer } = open()
  void waits.until(() => false)
  for (const pause of [50, 100, 100]) {
    answer()
    clock.advance(pause)
  }
  expect(asked).toEqual([0, 50, 150, 250])
})

it.each([
  [50, 200],
  [1_000, 250],
])('after a list that took %i ms it asks another %i ms after the next', (took, pause) => {
  const { clock, asked, waits, answer } = open()
  void waits.until(() => false)
  clock.advance(took)
  answer()
  clock.advance(50)
  answer()
  clock.advance(pause)
  expect(asked).toEqual([0, took + 50, took + 50 + pause])
})

it('counts from the newest list, whoever asked for it, and ends with the last who waits', async () => {
  const { clock, asked, waits, answer } = open()
  let isOver = false
  const waiting = waits.until(() => isOver)
  answer()
  clock.advance(40)
  answer(40)
  clock.advance(60)
  expect(asked).toEqual([0])
  isOver = true
  answer(100)
  await waiting
  clock.advance(10_000)
  expect(asked).toEqual([0])
})

it('asks at most some ten times a second of a caller that comes again and again, and at once of one that comes later', async () => {
  const { clock, asked, waits, answer } = open()
  const come = () => {
    const came = clock.monotonic()
    return waits.until((heard) => heard.asked >= came)
  }
  let waiting = come()
  let answered = 0
  for (let ms = 0; ms < 5_000; ms += 10) {
    clock.advance(10)
    if (asked.length === answered) continue
    answered = asked.length
    answer()
    await waiting
    waiting = come()
  }
  expect(asked.length).toBeLessThan(90)
  answer()
  clock.advance(10_000)
  answer()
  const before = asked.length
  void come()
  expect(asked.length).toBe(before + 1)
})

it('lets everybody go at the end', async () => {
  const { clock, asked, waits } = open()
  const waiting = waits.until(() => false)
  waits.stop()
  await waiting
  clock.advance(10_000)
  expect(asked).toEqual([0])
})
