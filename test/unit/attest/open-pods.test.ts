import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { parseConfig } from '../../../src/config.ts'
import { openPods } from '../../../src/pods.ts'
import type { AuditFacts } from '../../../src/telemetry/audit.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { ManualClock } from '../../support/clock.ts'
import type { FakeKubelet } from '../../support/fake-kubelet.ts'
import { startFakePodsApi } from '../../support/fake-pods-api.ts'
import { type KubeletAccess, openKubeletAccess } from '../../support/kubelet-access.ts'
import { until } from '../../support/until.ts'

const PLACE = { podUid: '0f9a1c2e-1111-4222-8333-444455556666', containerId: 'ab'.repeat(32) }
const LOGS = /^GET \/containerLogs\//

let access: KubeletAccess
let kubelet: FakeKubelet
let ending: AbortController
beforeEach(async () => {
  access = await openKubeletAccess()
  ;({ kubelet } = access)
  kubelet.pods = [{ name: 'cart-1', uid: PLACE.podUid, containers: [{ name: 'app', id: PLACE.containerId }] }]
  ending = new AbortController()
})
afterEach(async () => {
  ending.abort()
  await access.close()
})

async function open(more = '') {
  const at = `url: ${kubelet.url}, ca_file: ca.crt, token_file: token${more}`
  const text = `trust_domain: example.org\nkubernetes: {attestor: kubelet, kubelet: {${at}}}\n`
  const result = await parseConfig(join(access.dir, 'holdfast.yaml'), text)
  if (!('config' in result)) throw new Error(JSON.stringify(result))
  const records: AuditFacts[] = []
  const audit = { append: (facts: AuditFacts) => void records.push(facts) }
  const [clock, health] = [new ManualClock(), new Health()]
  const { config } = result
  const pods = openPods({ config, pod: undefined, clock, health, audit, signal: ending.signal })
  if (!pods) throw new Error('no attestor')
  return { containers: pods.containers, records, clock, health }
}

it('puts an outage on record by which identities rest on old facts, and its end', async () => {
  const { containers, records, clock, health } = await open()
  const { container, ready } = containers.find(PLACE)
  containers.retain(container)
  await ready
  expect(container.selectors).toContain('k8s:ns:shop')
  const recorded = (count: number) =>
    until('a record', () => {
      // In small steps: a request has five seconds of this time.
      clock.advance(50)
      return records.length === count
    })
  kubelet.trouble = 500
  await recorded(1)
  expect(health.degraded.map(({ code }) => code)).toEqual(['kubelet_unavailable'])
  kubelet.trouble = 'none'
  await recorded(2)
  const facts = { event: 'pods', allowed: true, count: 1 }
  const detail = 'the source of pod facts is down: known containers keep their identities for up to 3600s'
  expect(records).toEqual([
    { ...facts, reason: 'pod_facts_unavailable', detail },
    { ...facts, detail: 'the source of pod facts is back' },
  ])
  containers.stop()
})

it('looks what its token may do, unless the configuration says that it knows', async () => {
  kubelet.tokens.set('good', 'proxy')
  const { containers, health } = await open()
  await until('the answer', () => health.degraded.length > 0)
  expect(health.degraded.map(({ code }) => code)).toEqual(['kubelet_overpowered'])
  expect(kubelet.asked.filter((each) => LOGS.test(each))).toHaveLength(1)
  const other = await open(', legacy_access: nodes_proxy')
  await other.containers.find(PLACE).ready
  expect(other.health.degraded.map(({ code }) => code)).toEqual(['kubelet_legacy'])
  expect(kubelet.asked.filter((each) => LOGS.test(each))).toHaveLength(1)
  containers.stop()
  other.containers.stop()
})

it('asks the Pods API alone where the configuration says so', async () => {
  await using api = await startFakePodsApi()
  api.pods = kubelet.pods
  const text = `trust_domain: example.org\nkubernetes: {attestor: pods_api, pods_api: {socket: ${api.socket}}}\n`
  const result = await parseConfig(join(access.dir, 'holdfast.yaml'), text)
  if (!('config' in result)) throw new Error(JSON.stringify(result))
  const [clock, health] = [new ManualClock(), new Health()]
  const { config } = result
  const { signal } = ending
  const pods = openPods({ config, pod: undefined, clock, health, audit: { append: () => {} }, signal })
  const found = pods?.containers.find(PLACE)
  await found?.ready
  expect(found?.container.selectors).toContain('k8s:pod-name:cart-1')
  expect([api.asked, kubelet.asked, health.degraded]).toEqual([['ListPods'], [], []])
  pods?.containers.stop()
})
