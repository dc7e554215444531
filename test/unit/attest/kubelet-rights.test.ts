/** What a token may do at a kubelet: told by an answer, never guessed from silence. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { watchKubeletRights } from '../../../src/attest/kubelet-rights.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { ClusterHttps } from '../../../src/cluster/https.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { ManualClock } from '../../support/clock.ts'
import { type FakeKubelet, startFakeKubelet } from '../../support/fake-kubelet.ts'
import { until } from '../../support/until.ts'

let kubelet: FakeKubelet
let dir: string
let https: ClusterHttps
let answers: number
const clock = new ManualClock()
const health = new Health()
const ending = new AbortController()
beforeEach(async () => {
  kubelet = await startFakeKubelet()
  dir = mkdtempSync(join(tmpdir(), 'holdfast-rights-'))
  writeFileSync(join(dir, 'ca.crt'), kubelet.ca.pem)
  writeFileSync(join(dir, 'token'), 'good')
  https = new ClusterHttps({
    name: 'the kubelet',
    url: kubelet.url,
    verification: { kind: 'cluster-ca', file: join(dir, 'ca.crt') },
    tokenFile: join(dir, 'token'),
    timeout: 5_000,
    clock: systemClock,
  })
  answers = 0
})
afterEach(async () => {
  https.close()
  await kubelet.stop()
  rmSync(dir, { recursive: true })
})

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
