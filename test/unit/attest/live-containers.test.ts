import { expect, it } from 'vitest'
import { LiveContainers } from '../../../src/attest/live-containers.ts'
import { ManualClock } from '../../support/clock.ts'
import { FakeKernel } from '../../support/kernel.ts'

const [ONE, OTHER] = ['ab'.repeat(32), 'cd'.repeat(32)]

it('knows which containers have a process, and looks again after a second', () => {
  const [kernel, clock] = [new FakeKernel(), new ManualClock()]
  let looks = 0
  kernel.onRead = () => {
    looks += 1
  }
  const live = new LiveContainers(kernel, clock)
  const cgroup = `0::/kubepods.slice/kubepods-pod0f9a.slice/cri-containerd-${ONE}.scope/below`
  const process = kernel.start(42, { cgroup })
  kernel.start(43)
  expect([live.has(ONE), live.has(OTHER), looks]).toEqual([true, false, 2])
  kernel.end(process)
  clock.advance(1_000)
  expect([live.has(ONE), looks]).toEqual([true, 2])
  clock.advance(1)
  expect([live.has(ONE), looks]).toEqual([false, 3])
  clock.advance(1)
  expect([live.has(ONE, clock.monotonic() - 1), looks]).toEqual([false, 4])
  expect([live.has(ONE, clock.monotonic() - 1), looks]).toEqual([false, 4])
})
