/**
 * Real containers of containerd and runc, in cgroups as a kubelet makes them, that call a real agent; only the kubelet is
 * not real. What a container may do to its own cgroup never makes it another.
 */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseTrustDomain } from '../../src/spiffe/id.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { HIERARCHIES } from '../support/cluster/groups.ts'
import {
  type LoneContainer,
  type LoneNode,
  type LoneOptions,
  newContainerId,
  openLoneNode,
} from '../support/cluster/lone-containers.ts'
import { missingForContainers } from '../support/cluster/parts.ts'
import { type FakeKubelet, type FakePod, startFakeKubelet } from '../support/fake-kubelet.ts'
import { until } from '../support/until.ts'

const missing = missingForContainers()
const HELD = 8
/** Holds connections of HTTP/2 that say no more; one that is closed comes again. */
const HOLD = `const open = () => require('node:net').connect('/run/holdfast/workload.sock')
  .on('error', () => {}).on('close', () => setTimeout(open, 20)).resume()
  .write(Buffer.from('${Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0').toString('base64')}', 'base64'))
for (let left = ${HELD}; left > 0; left--) open()`
const idOf = (name: string) => `spiffe://cluster.test/${name}`

if (missing) {
  console.warn(`SKIPPED: real containers need ${missing}`)
  it.skip('real containers are attested', () => {})
} else {
  let dir: string
  let node: LoneNode
  let kubelet: FakeKubelet
  let agent: TestAgent
  let victim: { readonly pod: FakePod; readonly container: LoneContainer }

  const identity = `layer: identity
entries:
${['victim', 'attacker', 'other']
  .map(
    (name) =>
      `  - { spiffe_id: ${idOf(name)}, selectors: ['k8s:pod-name:${name}'], deliver: { x509: true, jwt: true, wit: false } }\n`,
  )
  .join('')}`

  /** A pod that the kubelet knows, with one running container. */
  function start(name: string, options: LoneOptions & { readonly uid?: string } = {}) {
    const { uid = randomUUID(), id = newContainerId() } = options
    const pod: FakePod = { name, uid, containers: [{ name: 'app', id }] }
    kubelet.pods = [...kubelet.pods, pod]
    const container = node.run(uid, join(agent.dir, 'public'), { ...options, id })
    return { pod, container }
  }

  beforeAll(async () => {
    node = await openLoneNode()
    dir = mkdtempSync(join(tmpdir(), 'hf-containers-'))
    kubelet = await startFakeKubelet()
    writeFileSync(join(dir, 'token'), 'good')
    writeFileSync(join(dir, 'ca.pem'), kubelet.ca.pem)
    agent = await startAgent({
      policy: { 'identity.yaml': identity },
      config: (config) => ({
        ...config,
        trustDomain: parseTrustDomain('cluster.test'),
        limits: { ...config.limits, connectionsPerUid: HELD },
        kubernetes: {
          ...config.kubernetes,
          attestor: 'kubelet',
          cgroupRoot: node.node.group,
          kubelet: {
            ...config.kubernetes.kubelet,
            url: kubelet.url,
            caFile: join(dir, 'ca.pem'),
            tokenFile: join(dir, 'token'),
          },
        },
      }),
    })
    victim = start('victim')
  }, 180_000)

  afterAll(async () => {
    await node?.[Symbol.asyncDispose]()
    await agent?.[Symbol.asyncDispose]()
    await kubelet?.[Symbol.asyncDispose]()
    rmSync(dir, { recursive: true, force: true })
  })

  const outcomeOf = async (container: LoneContainer, user?: string) => {
    const { status, body } = await container.ask(undefined, user)
    const answer = JSON.parse(body)
    return status === 200
      ? answer.identities.map((each: { spiffe_id: string }) => each.spiffe_id)
      : answer.error.reason
  }

  /** Runs a shell in the container, moved to `group` of its own cgroup in the hierarchies that are listed, and asks. */
  async function askFrom(container: LoneContainer, group: string, hierarchies: readonly number[]) {
    // A new cpuset takes nobody before it has what its parent has.
    const move = hierarchies.map((index) => {
      const [own, place] = [`/cgroup/${index}`, `/cgroup/${index}/${group}`]
      const inherit = `if [ -e ${own}/cpuset.cpus ]; then echo 1 >${own}/cgroup.clone_children; fi`
      return `${inherit} && mkdir -p ${place} && echo 0 >${place}/cgroup.procs`
    })
    const call = 'exec /bin/node /app/caller.mjs /run/holdfast/workload.sock GET http://localhost/v1/identity'
    const { out, err } = await container.exec(['/bin/sh', '-c', [...move, call].join(' && ')])
    const [, status, body = ''] = /^(\d+) (.*)\n$/s.exec(out) ?? []
    if (status === undefined) throw new Error(`${out}${err}`)
    const answer = JSON.parse(body)
    return status === '200'
      ? answer.identities.map((each: { spiffe_id: string }) => each.spiffe_id)
      : answer.error.reason
  }

  const all = HIERARCHIES.map((_each, index) => index)

  describe('a real container', () => {
    it.each([
      ['root', '0:0'],
      ['a user of no name', '4711:4711'],
    ])('has the identity of its pod, as %s', async (_who, user) => {
      expect(await outcomeOf(victim.container, user)).toEqual([idOf('victim')])
    })

    it.each(['kubepods/podUID', 'kubepods/besteffort/podUID'])('is found at %s', async (below) => {
      const uid = randomUUID()
      const { container } = start('other', { uid, below: below.replace('UID', uid) })
      expect(await outcomeOf(container)).toEqual([idOf('other')])
    })

    it('has none when the kubelet does not know its pod', async () => {
      const container = node.run(randomUUID(), join(agent.dir, 'public'))
      expect(await outcomeOf(container)).toBe('pod_unknown')
    })

    it('has none when the pod is another container: the one that holds its namespaces', async () => {
      const container = node.run(victim.pod.uid, join(agent.dir, 'public'))
      expect(await outcomeOf(container)).toBe('container_refused')
    })

    it('is to try again while the kubelet has not written its status, or still lists the run before', async () => {
      const [uid, id] = [randomUUID(), newContainerId()]
      const container = node.run(uid, join(agent.dir, 'public'), { id })
      const lists: readonly FakePod['containers'][] = [
        [{ name: 'app', isUnwritten: true }],
        [{ name: 'app', id: newContainerId() }],
      ]
      const list = (containers: FakePod['containers']) => {
        kubelet.pods = [...kubelet.pods.filter((pod) => pod.uid !== uid), { name: 'other', uid, containers }]
      }
      for (const containers of lists) {
        list(containers)
        const { status, body } = await container.ask()
        expect([status, JSON.parse(body).error.reason]).toEqual([503, 'pod_facts_unavailable'])
      }
      list([{ name: 'app', id }])
      expect(await outcomeOf(container)).toEqual([idOf('other')])
    })

    it('is explained to an operator, with what weakens it', async () => {
      const body = { namespace: 'shop', name: 'victim' }
      const answer = await call(agent.adminSocket, 'POST', '/v1/explain-pod', { body })
      const [app] = answer.body.containers
      expect([answer.body.uid, answer.body.weaknesses, app.weaknesses]).toEqual([victim.pod.uid, [], []])
      const [found] = app.identities
      expect([found.spiffe_id, found.weaknesses.map((each: { message: string }) => each.message)]).toEqual([
        idOf('victim'),
        [expect.stringMatching(/can be copied/), expect.stringMatching(/names no namespace/)],
      ])
    })

    it('spends the connections of its pod alone, whatever uids it takes, and none of other pods', async () => {
      const { container } = start('attacker')
      const held = container.exec(['/bin/node', '-e', HOLD], '0:0')
      const isServed = (user: string) =>
        container.ask(undefined, user).then(
          ({ status }) => status === 200,
          () => false,
        )
      await until('no room for the pod', async () => !(await isServed('4711:4711')))
      for (const user of ['0:0', '4711:4711'])
        expect(await outcomeOf(victim.container, user)).toEqual([idOf('victim')])
      container.stop()
      await held.catch(() => {})
    })

    it('has none outside of where the kubelet puts pods', async () => {
      const { container } = start('other', { below: 'elsewhere' })
      expect(await outcomeOf(container)).toBe('container_refused')
    })
  })

  describe('a container that writes its own cgroups', () => {
    it('stays who it is in a cgroup that is named like the container of another pod', async () => {
      const { container } = start('attacker', { hasCgroups: true })
      const forged = `pod${victim.pod.uid}/${victim.container.id}`
      expect(await askFrom(container, forged, all)).toEqual([idOf('attacker')])
      const kubepods = `kubepods/burstable/${forged}`
      expect(await askFrom(container, kubepods, all)).toEqual([idOf('attacker')])
    })

    it('stays who it is when only some hierarchies name another', async () => {
      const { container } = start('attacker', { hasCgroups: true })
      const forged = `pod${victim.pod.uid}/${victim.container.id}`
      for (const index of all) expect(await askFrom(container, forged, [index])).toEqual([idOf('attacker')])
    })
  })
}
