import { afterEach, beforeEach, expect, it } from 'vitest'
import { watchKubeletRights } from '../../../src/attest/kubelet-rights.ts'
import type { ClusterHttps } from '../../../src/cluster/https.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { ManualClock } from '../../support/clock.ts'
import type { FakeKubelet } from '../../support/fake-kubelet.ts'
import { type KubeletAccess, openKubeletAccess } from '../../support/kubelet-access.ts'
import { until } from '../../support/until.ts'

let access: KubeletAccess
let kubelet: FakeKubelet
let https: ClusterHttps
let answers: number
const clock = new ManualClock()
const health = new Health()
const ending = new AbortController()
beforeEach(async () => {
  access = await openKubeletAccess()
  ;({ kubelet } = access)
  https = access.open()
  answers = 0
})
afterEach(() => access.close())

const MINUTE = 60_000
const codes = () => health.degraded.map(({ code }) => code)
/** Counts questions that have been answered, or could not be. */
const counted = {
  ask: (...args: Parameters<ClusterHttps['ask']>) =>
    https.ask(...args).finally(() => {
      answers += 1
    }),
}

async function looked(after: number): Promise<void> {
  const before = answers
  clock.advance(after)
  await until('an answer', () => answers > before)
  // What follows the answer runs after it.
  await new Promise((resolve) => setImmediate(resolve))
}

it('follows what the token may do', async () => {
  watchKubeletRights({ https: counted, clock, health, signal: ending.signal })
  await looked(0)
  expect(codes()).toEqual([])

  kubelet.tokens.set('good', 'proxy')
  clock.advance(9 * MINUTE)
  expect(answers).toBe(1)
  await looked(MINUTE)
  expect(codes()).toEqual(['kubelet_overpowered'])
  expect(kubelet.asked).toEqual(['GET /containerLogs/holdfast_preflight/none/none'])

  // None of these tells anything: what was told stays, and the next question comes sooner.
  kubelet.trouble = 500
  await looked(10 * MINUTE)
  kubelet.trouble = 'none'
  kubelet.tokens.delete('good')
  await looked(MINUTE)
  await kubelet.stop()
  await looked(MINUTE)
  expect(codes()).toEqual(['kubelet_overpowered'])

  kubelet.tokens.set('good', 'pods')
  await kubelet.resume()
  await looked(MINUTE)
  expect(codes()).toEqual([])

  const before = answers
  ending.abort()
  clock.advance(60 * MINUTE)
  expect(answers).toBe(before)
})
