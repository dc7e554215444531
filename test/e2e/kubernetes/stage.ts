/** What the suites share: a cluster, the servers that pods call, the agent in a pod, and callers in theirs. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CLIENTS, missingTool, prepare } from '../../conformance/clients.ts'
import { call } from '../../support/call.ts'
import { type AgentPodOptions, prepareAgent, startAgentPod } from '../../support/cluster/agent-pod.ts'
import type { Json } from '../../support/cluster/api.ts'
import { type Cluster, makeNamespace, openCluster } from '../../support/cluster/cluster.ts'
import { missingForCluster } from '../../support/cluster/parts.ts'
import { containerOf, podOf, startPod, WAITING } from '../../support/cluster/pods.ts'
import { startUpstream, type Upstream } from '../../support/cluster/upstream.ts'
import { until } from '../../support/until.ts'

export const SHOP = 'shop'
export const CART = 'spiffe://cluster.test/ns/shop/sa/cart'
export const STATIC = 'spiffe://cluster.test/static'
/** The client of an SDK that nobody here wrote, in the image. */
export const CLIENT = '/usr/bin/client'
/** A user that no image knows. */
export const SOMEBODY = '4711:4711'
const SOCKETS = '/run/holdfast/public'

const [GO] = CLIENTS

/** What this machine lacks; undefined when the suites can run. */
export const missing = missingForCluster() ?? (GO && missingTool(GO))

export interface Stage extends AsyncDisposable {
  readonly cluster: Cluster
  readonly upstream: Upstream
  /** What the agent's pods are started with. */
  readonly agentOptions: AgentPodOptions
}

const configOf = (kubernetes: string) => `trust_domain: cluster.test
dir: /run/holdfast
policy: { files: [/etc/holdfast-policy] }
authority: { nodes: one }
egress: { socket: on }
wit: on
audit: { sink: stdout }
socket_aliases: [spire-agent.sock]
ops: { listen: 'pod:9465' }
kubernetes: ${kubernetes}
`

const ENTRIES = `  - name: cart
    spiffe_id: ${CART}
    selectors: ['k8s:ns:shop', 'k8s:sa:cart']
    deliver: { x509: true, jwt: true, wit: true }
    instance: container
  - name: static
    spiffe_id: ${STATIC}
    selectors: ['k8s:pod-name:static-node-1', 'k8s:container-name:app']
    deliver: { x509: true, jwt: false, wit: false }
`

/** Opens it all, for an agent with these settings of Kubernetes; it is not started yet. */
export async function openStage(kubernetes = '{ attestor: kubelet }'): Promise<Stage> {
  const [client = ''] = GO ? prepare(GO) : []
  const cluster = await openCluster({ [CLIENT.slice(1)]: client })
  try {
    const upstream = await startUpstream(cluster.node.network.outside)
    const agentOptions = { hosts: upstream.hosts }
    const { secrets } = upstream
    const policy = upstream.policy(ENTRIES, [CART])
    await prepareAgent(cluster, { config: configOf(kubernetes), policy, secrets })
    await makeNamespace(cluster, SHOP, ['cart', 'till'])
    return {
      cluster,
      upstream,
      agentOptions,
      [Symbol.asyncDispose]: async () => {
        await cluster[Symbol.asyncDispose]()
        await upstream[Symbol.asyncDispose]()
      },
    }
  } catch (error) {
    await cluster[Symbol.asyncDispose]()
    throw error
  }
}

/** The agent's door, as the node sees it. */
export const doorOf = ({ node }: Cluster, name = 'workload') => node.path(`${SOCKETS}/${name}.sock`)

/** Starts a pod of the agent and waits until its socket answers. */
export async function startAgent({ cluster, agentOptions }: Stage, name: string): Promise<Json> {
  const pod = await startAgentPod(cluster, name, agentOptions)
  await untilAnswering(cluster)
  return pod
}

export async function untilAnswering(cluster: Cluster): Promise<void> {
  await until(
    'the agent to answer',
    async () => {
      const answer = await call(doorOf(cluster), 'GET', '/v1/identity').catch(() => undefined)
      return answer !== undefined && answer.status !== 503
    },
    30_000,
  )
}

/** A pod of the shop with the agent's sockets, read-only, and a directory for what it writes. */
export function callerPod(
  name: string,
  command: readonly string[] = WAITING.command,
  account = 'cart',
): Json {
  const volumeMounts = [
    { name: 'sockets', mountPath: '/run/holdfast', readOnly: true },
    { name: 'out', mountPath: '/out' },
  ]
  const env = [
    { name: 'OUT', value: '/out/lines' },
    { name: 'SPIFFE_ENDPOINT_SOCKET', value: 'unix:///run/holdfast/workload.sock' },
  ]
  return podOf(SHOP, name, {
    account,
    spec: {
      // Without the API server a kubelet cannot renew such a token, and then it tells nothing new of the pod.
      automountServiceAccountToken: false,
      containers: [{ ...WAITING, command, volumeMounts, env, stdin: true }],
      volumes: [
        { name: 'sockets', hostPath: { path: SOCKETS, type: 'Directory' } },
        { name: 'out', emptyDir: {} },
      ],
    },
  })
}

/** A caller that asks again and again. */
export const callerCommand = (socket: 'workload' | 'egress', url: string, how: number | 'open') => [
  '/bin/node',
  '/app/caller.mjs',
  `/run/holdfast/${socket}.sock`,
  'GET',
  url,
  String(how),
]

/** What a pod wrote to its file: read from the node's disk, so that no part of the cluster is needed. */
export function linesOf({ node }: Cluster, pod: Json): readonly string[] {
  const volume = `kubelet/pods/${pod.metadata.uid}/volumes/kubernetes.io~empty-dir/out/lines`
  try {
    return readFileSync(join(node.dir, volume), 'utf8').split('\n').filter(Boolean)
  } catch {
    return []
  }
}

export const lastOf = (cluster: Cluster, pod: Json) => linesOf(cluster, pod).at(-1) ?? ''

export interface CallerAnswer {
  readonly status: number
  readonly body: Json
}

/** Calls from within a container of a pod, as somebody. */
export async function ask(
  { containers }: Cluster,
  pod: Json,
  url: string,
  socket: 'workload' | 'egress' = 'workload',
  container?: string,
): Promise<CallerAnswer> {
  const program = ['/bin/busybox', 'env', '-u', 'OUT', '/bin/node', '/app/caller.mjs']
  const command = [...program, `/run/holdfast/${socket}.sock`, 'GET', url]
  const { out, err } = await containers.exec(containerOf(pod, container), command, SOMEBODY)
  const [, status, body = ''] = /^(\d+) (.*)\n$/s.exec(out) ?? []
  if (status === undefined) throw new Error(`the caller wrote: ${out}${err}`)
  return { status: Number(status), body: body.startsWith('{') ? JSON.parse(body) : body }
}

/** Starts a pod of the shop. */
export const startCaller = (
  { cluster }: Stage,
  name: string,
  command?: readonly string[],
  account?: string,
): Promise<Json> => startPod(cluster, callerPod(name, command, account))
