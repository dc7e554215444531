import { spawnSync } from 'node:child_process'
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parseConfig } from '../../../src/config.ts'
import { openPods } from '../../../src/pods.ts'
import type { AuditFacts } from '../../../src/telemetry/audit.ts'
import { Health } from '../../../src/telemetry/health.ts'
import { ManualClock } from '../../support/clock.ts'
import type { FakeKubelet } from '../../support/fake-kubelet.ts'
import { type FakePodsApi, startFakePodsApi } from '../../support/fake-pods-api.ts'
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

async function open(more = '', attestor = 'kubelet', socket = 'none.sock') {
  const at = `url: ${kubelet.url}, ca_file: ca.crt, token_file: token${more}`
  const settings = `{attestor: ${attestor}, kubelet: {${at}}, pods_api: {socket: ${socket}, max_mib: 1}}`
  const text = `trust_domain: example.org\nkubernetes: ${settings}\n`
  const result = await parseConfig(join(access.dir, 'holdfast.yaml'), text)
  if (!('config' in result)) throw new Error(JSON.stringify(result))
  const records: AuditFacts[] = []
  const audit = { append: (facts: AuditFacts) => void records.push(facts) }
  const [clock, health] = [new ManualClock(), new Health()]
  const { config } = result
  const said: string[] = []
  const log = { info: (line: string) => void said.push(line) }
  const pods = openPods({ config, pod: undefined, clock, health, audit, log, signal: ending.signal })
  if (!pods) throw new Error('no attestor')
  return { containers: pods.containers, records, clock, health, said }
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
  const { containers, health } = await open('', 'pods_api', api.socket)
  const found = containers.find(PLACE)
  await found.ready
  expect(found.container.selectors).toContain('k8s:pod-name:cart-1')
  expect([api.asked, kubelet.asked, health.degraded]).toEqual([['ListPods'], [], []])
  containers.stop()
})

describe('attestor: auto', () => {
  const BY_API = 'pods are known by the Pods API of the kubelet'

  /** Opens it and has a container known; then who was asked, and what the log says. */
  async function chosen(socket: string, api?: FakePodsApi) {
    const { containers, said, clock } = await open('', 'auto', socket)
    await containers.find(PLACE).ready
    const counts = () => ({ api: api?.asked.length ?? 0, kubelet: kubelet.asked.length })
    return { containers, said, clock, counts, [Symbol.dispose]: () => containers.stop() }
  }

  it('asks the Pods API of a kubelet that has it, and nobody else', async () => {
    await using api = await startFakePodsApi()
    api.pods = kubelet.pods
    using found = await chosen(api.socket, api)
    expect(found.said).toEqual([BY_API])
    expect(found.counts()).toEqual({ api: 2, kubelet: 0 })
  })

  it('stays with one that has just started', async () => {
    await using api = await startFakePodsApi()
    api.trouble = 'initializing'
    using found = await chosen(api.socket, api)
    expect(found.said).toEqual([BY_API])
    expect(found.counts().kubelet).toBe(0)
  })

  const spoiled = (trouble: FakePodsApi['trouble']) => (api: FakePodsApi) => {
    api.trouble = trouble
    return api.socket
  }
  const open777 = ({ directory, socket }: FakePodsApi) => {
    chmodSync(directory, 0o777)
    return socket
  }

  it.each<[string, RegExp, (api: FakePodsApi) => string]>([
    ['there is no socket', /none.sock: does not exist/, () => join(access.dir, 'none.sock')],
    ['others could have put the socket there', /others may write/, open777],
    ['another service listens', /is not what answers on the socket/, spoiled('unimplemented')],
    ['its list is too long', /has a list of more than 1 MiB/, spoiled('too_long')],
  ])('asks the kubelet over HTTPS where %s', async (_what, says, socketOf) => {
    await using api = await startFakePodsApi()
    using found = await chosen(socketOf(api))
    expect(found.said).toEqual([expect.stringMatching(/^pods are known by the kubelet over HTTPS: /)])
    expect(found.said[0]).toMatch(says)
    expect(found.counts().kubelet).toBeGreaterThan(0)
  })

  it('asks the kubelet over HTTPS where the socket is left from one that listened', async () => {
    const socket = join(access.dir, 'left.sock')
    const listen = `require('net').createServer().listen('${socket}', () => process.kill(process.pid, 'SIGKILL'))`
    spawnSync(process.execPath, ['-e', listen])
    using found = await chosen(socket)
    expect(found.said).toEqual([
      expect.stringMatching(/over HTTPS: the Pods API of the kubelet does not answer/),
    ])
    expect(found.counts().kubelet).toBeGreaterThan(0)
  })

  it('goes over to HTTPS when a kubelet has this version of the API no more, and for no other trouble', async () => {
    await using api = await startFakePodsApi()
    api.pods = kubelet.pods
    using found = await chosen(api.socket, api)
    const { container } = found.containers.find(PLACE)
    found.containers.retain(container)
    api.trouble = 'internal'
    const asked = found.counts().api
    const pass = (what: string, isOver: () => boolean) =>
      until(what, () => {
        found.clock.advance(50)
        return isOver()
      })
    await pass('more lists', () => found.counts().api > asked + 2)
    expect([found.counts().kubelet, found.said]).toEqual([0, [BY_API]])
    api.trouble = 'unimplemented'
    await pass('the kubelet to be asked', () => found.counts().kubelet > 1)
    expect(found.said).toHaveLength(2)
    expect(container.fault).toBeUndefined()
  })
})
