/** A full node: callers in the cgroups of 220 containers that a kubelet lists, without the containers. */
import { spawn } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as wait } from 'node:timers/promises'
import { closeGroups, HIERARCHIES, openGroups } from '../support/cluster/groups.ts'
import { type FakeKubelet, type FakePod, podList, startFakeKubelet } from '../support/fake-kubelet.ts'
import { restOfPod } from '../support/pod-sizes.ts'
import { type BenchAgent, endOf, type Setup, startAgent } from './agent.ts'
import { startBareGrpc } from './bare-grpc.ts'
import { REQUEST } from './fetch-x509.ts'
import type { Measured } from './figures.ts'
import type { BenchOptions } from './main.ts'
import { NO_PYTHON } from './python.ts'
import { median } from './rounds.ts'

const PODS = 110
/** Those of the chart. */
const FLAGS = ['--max-semi-space-size=4']
const CONTAINERS = ['app', 'proxy']
const NAMES = ['pods_attest_us', 'pods_220_rss_mb'] as const
/** For so long each answer of the kubelet is another: a list that has changed is parsed. */
const CHURN = 30_000
const LOOK_EVERY = 200
// Until the way of a connection is compiled, it costs more than twice as much.
const WARM_VISITS = 1_500
const BLOCK = 200

export async function measurePodCrowd({ quick }: BenchOptions): Promise<readonly Measured[]> {
  if (process.getuid?.() !== 0) return NAMES.map((name) => ({ name, value: undefined, note: 'needs root' }))
  await using node = await openFullNode()
  const crowd = await gatherPods(node)
  if (!crowd) return NAMES.map((name) => ({ name, value: undefined, note: NO_PYTHON }))
  const { mb, note } = await memoryOf(node, quick ? CHURN / 3 : CHURN)
  const bare = await startBareGrpc()
  const [costs, floors] = await visitCosts(crowd, [node.agent, bare], quick ? 3 : 8)
  bare.stop()
  await crowd.leave()
  const whole = `${Math.round(median(costs))} µs with all that grpc-js takes`
  return [
    { name: 'pods_attest_us', value: median(costs.map((cost, at) => cost - (floors[at] ?? 0))), note: whole },
    { name: 'pods_220_rss_mb', value: mb, note },
  ]
}

/** CPU µs a visit of each server, in blocks that take turns. */
async function visitCosts(crowd: PodCrowd, servers: readonly [Server, Server], blocks: number) {
  const costs: readonly [number[], number[]] = [[], []]
  for (const { socket } of servers) await crowd.visit(socket, WARM_VISITS)
  for (let block = 0; block < blocks; block++)
    for (const [index, server] of servers.entries()) {
      const before = server.cpu()
      await crowd.visit(server.socket, BLOCK)
      costs[index]?.push((server.cpu() - before) / BLOCK)
    }
  return costs
}

type Server = Pick<BenchAgent, 'socket' | 'cpu'>

interface FullNode extends AsyncDisposable {
  readonly agent: BenchAgent
  readonly kubelet: FakeKubelet
  /** The cgroups of each container, one in each hierarchy. */
  readonly groups: readonly (readonly string[])[]
}

async function openFullNode(): Promise<FullNode> {
  const root = `/holdfast-bench-${process.pid}`
  const kubelet = await startFakeKubelet()
  kubelet.pods = Array.from({ length: PODS }, (_none, at) => podAt(at))
  openRoot(root)
  const groups = kubelet.pods.flatMap(({ uid, containers }) =>
    containers.map(({ id = '' }) => groupsAt(`${root}/kubepods/burstable/pod${uid}/${id}`)),
  )
  const agent = await startAgent({ flags: FLAGS, setup: (base) => setup(base, kubelet, root) })
  return {
    agent,
    kubelet,
    groups,
    [Symbol.asyncDispose]: async () => {
      await agent.stop()
      await kubelet.stop()
      await closeGroups(root)
    },
  }
}

/** Makes `root`, whose children have its CPUs. */
function openRoot(root: string): void {
  openGroups(root)
  for (const { place } of HIERARCHIES) {
    const file = join(place, root, 'cgroup.clone_children')
    if (existsSync(file)) writeFileSync(file, '1')
  }
}

function groupsAt(group: string): readonly string[] {
  return HIERARCHIES.map(({ place }) => {
    mkdirSync(join(place, group), { recursive: true })
    return join(place, group, 'cgroup.procs')
  })
}

function podAt(at: number): FakePod {
  const containers = CONTAINERS.map((name) => ({ name, id: randomBytes(32).toString('hex') }))
  const name = `cart-${at}-7f9c5d4b88-x2x9z`
  const owners = [{ kind: 'ReplicaSet', name: `cart-${at}-7f9c5d4b88`, uid: randomUUID() }]
  const labels = { app: `cart-${at}`, 'pod-template-hash': '7f9c5d4b88', 'app.kubernetes.io/part-of': 'shop' }
  const more = restOfPod(CONTAINERS)
  return { name, uid: randomUUID(), serviceAccount: `cart-${at}`, labels, owners, containers, more }
}

function setup(base: string, kubelet: FakeKubelet, root: string): Setup {
  writeFileSync(join(base, 'token'), 'good', { mode: 0o600 })
  writeFileSync(join(base, 'ca.pem'), kubelet.ca.pem)
  const entries = Array.from(
    { length: PODS },
    (_none, at) => `  - spiffe_id: spiffe://bench.holdfast.test/ns/shop/sa/cart-${at}
    selectors: ['k8s:ns:shop', 'k8s:sa:cart-${at}']
    instance: container
    deliver: { x509: true, jwt: false, wit: false }
`,
  )
  return {
    policy: {
      identity: `layer: identity\nentries:\n${entries.join('')}`,
      platform: 'layer: platform\n',
      application: 'layer: application\n',
    },
    config: `kubernetes:
  attestor: kubelet
  cgroup_root: ${root}
  kubelet: { url: '${kubelet.url}', ca_file: ${join(base, 'ca.pem')}, token_file: ${join(base, 'token')} }
`,
  }
}

interface PodCrowd {
  /** New processes in a container that is known, one after the other: connect, one answer, close. */
  visit(socket: string, count: number): Promise<void>
  leave(): Promise<void>
}

/** A process in each container, which holds its stream; undefined on a machine without Python. */
async function gatherPods({ agent, groups }: FullNode): Promise<PodCrowd | undefined> {
  const child = spawn('python3', [resolve('test/bench/pods.py')], { stdio: ['pipe', 'pipe', 'pipe'] })
  const isThere = await Promise.race([
    once(child, 'spawn').then(() => true),
    once(child, 'error').then(() => false),
  ])
  if (!isThere) return undefined
  const ended = endOf(child, 'the crowd')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const say = async (line: string, wanted: number) => {
    child.stdin.write(`${line}\n`)
    const { value } = await lines.next()
    if (Number(value) !== wanted) throw new Error(`${value} of ${wanted} had an SVID`)
  }
  await say(JSON.stringify({ socket: agent.socket, request: REQUEST.toString('hex'), groups }), groups.length)
  return {
    visit: (socket, count) => say(`${socket} ${count}`, count),
    leave: async () => {
      child.kill('SIGKILL')
      await ended
    },
  }
}

/** The most that the agent has in memory while all hold their streams and each list of the kubelet is another. */
async function memoryOf({ agent, kubelet }: FullNode, length: number) {
  const size = Buffer.byteLength(JSON.stringify(podList(kubelet.pods)))
  const end = performance.now() + length
  const [cpu, lists] = [agent.cpu(), kubelet.asked.length]
  let changes = 0
  kubelet.onAsk = () => {
    const [first, ...others] = kubelet.pods
    const more = { ...first?.more, status: { message: `change ${++changes}` } }
    if (first) kubelet.pods = [{ ...first, more }, ...others]
  }
  let mb = 0
  for (; performance.now() < end; await wait(LOOK_EVERY)) mb = Math.max(mb, agent.residentMb())
  kubelet.onAsk = () => {}
  const each = (agent.cpu() - cpu) / (kubelet.asked.length - lists)
  const note = `lists of ${Math.round(size / PODS / 1000)} KB a pod; ${Math.round(each / 1000)} ms CPU for each that has changed`
  return { mb, note }
}
