/** SPIFFE clients that nobody here wrote, in the cgroup of a container that the kubelet has not told of yet: they try again. */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { parseTrustDomain } from '../../src/spiffe/id.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { ManualClock } from '../support/clock.ts'
import { closeGroups, HIERARCHIES, openGroups } from '../support/cluster/groups.ts'
import { newContainerId } from '../support/cluster/lone-containers.ts'
import { missingForContainers } from '../support/cluster/parts.ts'
import type { FakePod } from '../support/fake-kubelet.ts'
import { type KubeletAccess, openKubeletAccess } from '../support/kubelet-access.ts'
import { until } from '../support/until.ts'
import { CLIENTS, follow, missingTool, prepare } from './clients.ts'

const CART = 'spiffe://cluster.test/cart'
const GROUP = `/holdfast-clients-${process.pid}`
const POLICY = `layer: identity
entries:
  - { spiffe_id: ${CART}, selectors: ['k8s:pod-name:cart'], deliver: { x509: true, jwt: true, wit: false } }
`
const missing = missingForContainers()

if (missing) {
  console.warn(`SKIPPED: clients in the cgroups of pods need ${missing}`)
  it.skip('clients in the cgroups of pods try again', () => {})
} else {
  let access: KubeletAccess
  let agent: TestAgent
  const clock = new ManualClock(systemClock.now())

  beforeAll(async () => {
    openGroups(GROUP)
    // A new cpuset takes nobody before it has what its parent has.
    for (const { place } of HIERARCHIES)
      if (existsSync(join(place, GROUP, 'cpuset.cpus')))
        writeFileSync(join(place, GROUP, 'cgroup.clone_children'), '1')
    access = await openKubeletAccess()
    agent = await startAgent({
      clock,
      policy: { 'identity.yaml': POLICY },
      config: (config) => ({
        ...config,
        trustDomain: parseTrustDomain('cluster.test'),
        kubernetes: {
          ...config.kubernetes,
          attestor: 'kubelet',
          cgroupRoot: GROUP,
          kubelet: {
            ...config.kubernetes.kubelet,
            url: access.kubelet.url,
            caFile: join(access.dir, 'ca.crt'),
            tokenFile: join(access.dir, 'token'),
          },
        },
      }),
    })
  })

  afterAll(async () => {
    await agent?.[Symbol.asyncDispose]()
    await access?.close()
    await closeGroups(GROUP)
  })

  /** How many calls have heard that they may try again. */
  async function refusals(): Promise<number> {
    const lines = (await agent.metrics.render()).split('\n')
    const line = lines.find((each) =>
      /^holdfast_requests_total\{method="FetchX509SVID",reason="pod_facts_unavailable"/.test(each),
    )
    return Number(line?.split(' ').at(-1) ?? 0)
  }

  /** `command` as it is started in the cgroup of a container of `uid`. */
  function within(uid: string, id: string, command: readonly string[]): readonly string[] {
    const places = HIERARCHIES.map(({ place }) => join(place, GROUP, 'kubepods', `pod${uid}`, id))
    for (const place of places) mkdirSync(place, { recursive: true })
    const move = places.map((place) => `echo $$ >${place}/cgroup.procs`).join(' && ')
    return ['sh', '-c', `${move} && exec "$0" "$@"`, ...command]
  }

  describe.each(CLIENTS.map((client) => [client.name, client] as const))('%s', (_name, client) => {
    const lacking = missingTool(client)
    if (lacking) console.warn(`SKIPPED: ${client.name} needs ${lacking}; .ci/tools installs it`)

    it.skipIf(lacking !== undefined)(
      'is refused as long as the status of its container is not written, and has its SVID then',
      async () => {
        const [uid, id] = [randomUUID(), newContainerId()]
        const pod: FakePod = { name: 'cart', uid, containers: [{ name: 'app', isUnwritten: true }] }
        access.kubelet.pods = [pod]
        const before = await refusals()
        await using follower = follow(within(uid, id, prepare(client)), agent.socket)
        await until(
          'it to come again',
          async () => {
            clock.advance(100)
            return (await refusals()) > before + 1
          },
          20_000,
        )
        access.kubelet.pods = [{ ...pod, containers: [{ name: 'app', id }] }]
        let isOver = false
        const svid = follower.next('x509', (line) => line.x509[0]?.spiffe_id === CART)
        void svid.finally(() => {
          isOver = true
        })
        await until(
          'its SVID',
          () => {
            clock.advance(100)
            return isOver
          },
          20_000,
        )
        await svid
      },
      120_000,
    )
  })
}
