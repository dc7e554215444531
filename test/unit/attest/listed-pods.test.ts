import { expect, it } from 'vitest'
import { ListedPods } from '../../../src/attest/listed-pods.ts'
import { parsePods } from '../../../src/attest/pod-list.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { ManualClock } from '../../support/clock.ts'
import { podList } from '../../support/fake-kubelet.ts'

const settled = () => new Promise((resolve) => setImmediate(resolve))

/** Lists that answer at once, with a bell. */
function open(every: number) {
  const clock = new ManualClock()
  const list = parsePods(podList([{ name: 'a', uid: 'a', containers: [] }]))
  const asked: number[] = []
  let ring = () => {}
  const lists = {
    ask: async () => {
      asked.push(clock.monotonic())
      return list
    },
    listen: (bell: () => void) => {
      ring = bell
    },
    close: () => {},
  }
  const pods = new ListedPods({ lists, clock, health: new Health(), every })
  return { clock, asked, pods, ring: () => ring() }
}

it('a bell that never stops makes ten lists a second, and the last ring one more', async () => {
  const { clock, asked, pods, ring } = open(60_000)
  pods.need(true)
  for (let step = 0; step < 1_000; step += 1) {
    ring()
    clock.advance(1)
    await settled()
  }
  expect(asked.length).toBeGreaterThanOrEqual(9)
  expect(asked.length).toBeLessThanOrEqual(11)
  const last = asked.at(-1) ?? 0
  clock.advance(10_000)
  await settled()
  expect(asked.filter((at) => at > last).length).toBeLessThanOrEqual(2)
})

it('a bell is not heard while nobody needs the list, or after the end', async () => {
  const { clock, asked, pods, ring } = open(1_000)
  pods.need(true)
  pods.need(false)
  ring()
  clock.advance(5_000)
  expect(asked).toEqual([])
  pods.need(true)
  ring()
  pods.stop()
  ring()
  clock.advance(5_000)
  await settled()
  expect(asked).toEqual([])
})
