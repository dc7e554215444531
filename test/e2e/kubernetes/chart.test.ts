/** The chart, by the controllers of a real cluster: its pods get ready, hand their sockets over, and take another policy without a restart. */
import { lstatSync, readlinkSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { logOf } from '../../support/cluster/pods.ts'
import { until } from '../../support/until.ts'
import { examplesSuite } from './examples.ts'
import { probeJobSuite } from './probe-job.ts'
import { findingsOf, generationOf, missing, openRelease, type Release, rolledOut } from './release.ts'
import { policyFor } from './release-values.ts'
import { resourcesSuite } from './resources.ts'
import { rolloutSuite } from './rollout.ts'

const PUBLIC = '/run/holdfast/public'

if (missing) {
  console.warn(`SKIPPED: Kubernetes needs ${missing}`)
  it.skip('Kubernetes runs on real parts', () => {})
} else {
  let release: Release

  beforeAll(async () => {
    release = await openRelease()
  }, 300_000)
  afterAll(() => release?.[Symbol.asyncDispose](), 60_000)

  it('is ready by its probes, with its sockets and their other names on the node', async () => {
    const { cluster } = release
    const { spec } = await rolledOut(cluster)
    expect(spec.containers[0].image).toBe('holdfast:0.1.0')
    const inode = (name: string) => lstatSync(cluster.node.path(`${PUBLIC}/${name}`))
    expect(inode('workload.sock').isSocket()).toBe(true)
    expect(inode('egress.sock').isSocket()).toBe(true)
    const aliases = ['socket', 'api.sock', 'spire-agent.sock']
    expect(aliases.map((name) => readlinkSync(cluster.node.path(`${PUBLIC}/${name}`)))).toEqual(
      aliases.map(() => 'workload.sock'),
    )
    expect((inode('.').mode & 0o777).toString(8)).toBe('755')
    expect((lstatSync(cluster.node.path('/run/holdfast/private')).mode & 0o777).toString(8)).toBe('700')
  }, 100_000)

  it('is what `holdfast check --kubernetes` wants', async () => {
    await rolledOut(release.cluster)
    const findings = await findingsOf(release.cluster)
    expect(findings.length).toBeGreaterThan(6)
    expect(findings.filter((finding) => !finding.endsWith(' ok'))).toEqual([])
  }, 100_000)

  it('knows pods by the Pods API of a kubelet that has it, and of one without it over HTTPS', async () => {
    const { cluster, upgrade } = release
    const log = async () => logOf(cluster, await rolledOut(cluster))
    expect(await log()).toContain('pods are known by the Pods API of the kubelet')
    await upgrade({ kubelet: { podsApiDirectory: '/var/lib/kubelet/pods-api' } })
    expect(await log()).toMatch(/pods are known by the kubelet over HTTPS: .*pods-api.sock: does not exist/)
    expect(lstatSync(cluster.node.path('/var/lib/kubelet/pods-api')).isDirectory()).toBe(true)
    await upgrade()
    await rolledOut(cluster)
  }, 200_000)

  describe('the examples', () => examplesSuite(() => release))
  describe('its CronJob', () => probeJobSuite(() => release))

  it('takes another policy over as it runs, and keeps the last good one', async () => {
    const { cluster, rig, services, upgrade } = release
    const pod = await rolledOut(cluster)
    const generation = await generationOf(cluster)
    const log = () => logOf(cluster, pod)
    const policy = policyFor(rig, services.good)
    const security = (text: string) =>
      upgrade({ policy: { ...policy, 'security.yaml': `layer: security\n${text}\n` } })
    await security('deny: [{ spiffe_id: spiffe://cluster.test/ns/shop/sa/thief, reason: freeze }]')
    const policies = async () =>
      new Set([...(await log()).matchAll(/"policy":"(\w+)"/g)].map(([, hash]) => hash))
    await until('another policy', async () => (await policies()).size > 1, 150_000)
    await security('deny: 7')
    await until('a broken policy', async () => /the last good policy stays/.test(await log()), 150_000)
    await upgrade()
    expect(await generationOf(cluster)).toBe(generation)
    const { metadata, status } = await rolledOut(cluster)
    expect([metadata.uid, status.containerStatuses[0].restartCount]).toEqual([pod.metadata.uid, 0])
  }, 310_000)

  describe('an upgrade', () =>
    rolloutSuite(
      () => release,
      () => describe('custom resources', () => resourcesSuite(() => release)),
    ))
}
