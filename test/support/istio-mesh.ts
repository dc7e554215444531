/**
 * A mesh on this machine, of Istio's own programs: istiod beside a real API server, with its objects in files, and two
 * sidecars that it configures, `web` before `cart`. Nothing redirects traffic: both have listeners of their own.
 */
import { type ChildProcess, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { join } from 'node:path'
import { parseAllDocuments, stringify } from 'yaml'
import { ROOT } from './built-agent.ts'
import { openControlPlane } from './cluster/control-plane.ts'
import { type Node, openNode } from './cluster/node.ts'
import { missingForCluster } from './cluster/parts.ts'
import { makePki, type Pki } from './cluster/pki.ts'
import { ENVIRONMENT, layOut, missingForIstioAgent, proxyConfig, SCRIPT } from './istio-agent.ts'
import { until } from './until.ts'
import type { Received } from './verify-rig.ts'
import { type Heard, heardOf } from './verify-ways.ts'

// biome-ignore lint/suspicious/noExplicitAny: objects are data, whose members tests know.
type Any = any

/** Why no mesh can be run here; undefined when it can. */
export function missingForMesh(): string | undefined {
  if (spawnSync('pilot-discovery', ['version']).status !== 0) return 'pilot-discovery'
  return missingForIstioAgent() ?? missingForCluster()
}

const ISTIOD = '127.0.0.1:15010'
const [IN, OUT] = [18_080, 18_082]
/** Where `web` takes requests for orders.example.org, which a test may make a service. */
export const TARGET_PORT = 18_083

export interface Mesh extends AsyncDisposable {
  /** Header names and values in turn, of what reached the application behind `cart`. */
  readonly arrived: readonly (readonly string[])[]
  /** This machine, as programs of the mesh reach it. */
  readonly outside: string
  /** As the application beside `web` asks: through both sidecars. */
  ask(received?: Partial<Received>): Promise<Heard>
  /** The same of orders.example.org: through `web`. */
  askTarget(received: Partial<Received>): Promise<Heard>
  /** What curl says in the node, such as how a request ends that comes past `web`. */
  curl(...args: readonly string[]): string
  /** Objects that istiod has besides; it hears of a change by itself. */
  setObjects(objects: readonly Any[]): void
  /** GET of the administration of a sidecar. */
  admin(name: 'cart' | 'web', path: string): string
  /** Ends of the logs of all. */
  logs(): string
}

export interface MeshOptions {
  /** The public directory of the agent. */
  readonly directory: string
  readonly trustDomain: string
  readonly mesh?: object
}

/** Starts it; resolves when requests come through. */
export async function openMesh({ directory, trustDomain, mesh = {} }: MeshOptions): Promise<Mesh> {
  const node = await openNode()
  const arrived: (readonly string[])[] = []
  const app = createServer((incoming, response) => {
    arrived.push(incoming.rawHeaders.map((text, at) => (at % 2 === 0 ? text.toLowerCase() : text)))
    response.end('{}')
  }).listen(join(node.dir, 'app.sock'))
  const sidecars: ChildProcess[] = []
  const close = async () => {
    // Groups: what istio-agent started does not end with it.
    for (const { pid, exitCode } of sidecars) if (pid && exitCode === null) process.kill(-pid, 'SIGKILL')
    app.closeAllConnections()
    app.close()
    await node[Symbol.asyncDispose]()
  }
  const names = ['istiod', 'cart', 'web']
  const logs = () => names.map((name) => `--- ${name}\n${node.logOf(name)}`).join('\n')
  const { node: address } = node.network
  const at = join(node.dir, 'istiod')
  const setObjects = (objects: readonly Any[]) => {
    const all = [...topology(address, join(node.dir, 'app.sock')), ...objects]
    writeFileSync(join(at, 'objects/all.yaml'), all.map((one) => stringify(one)).join('---\n'))
  }
  const askAt = (place: Place, { method = 'GET', path = '/', headers = [] }: Partial<Received>) =>
    askOver({ address, ...place }, { method, path, headers })
  const ask: Mesh['ask'] = (received = {}) => askAt({ name: 'cart.shop.test', port: OUT }, received)
  try {
    await once(app, 'listening')
    const pki = makePki(join(node.dir, 'pki'))
    await openControlPlane(node, pki)
    mkdirSync(join(at, 'objects'), { recursive: true })
    setObjects([])
    startIstiod(node, pki, at, { trustDomain, ...mesh })
    for (const [name, ip, port] of [
      ['cart', '127.0.0.2', 20_000],
      ['web', '127.0.0.3', 20_100],
    ] as const)
      sidecars.push(startSidecar(node, { name, ip, port, directory, trustDomain }))
    const comes = () =>
      ask().then(
        ({ status }) => status === 200,
        () => false,
      )
    await until('the mesh', comes, 60_000)
  } catch (error) {
    const said = logs()
    await close()
    throw new Error(`${error}\n${said}`)
  }
  return {
    arrived,
    outside: node.network.outside,
    ask,
    askTarget: (received) => askAt({ name: 'orders.example.org', port: TARGET_PORT }, received),
    setObjects,
    logs,
    curl: (...args) => node.run('curl', '--silent', '--show-error', '--max-time', '5', ...args),
    admin: (name, path) =>
      node.run('curl', '--silent', `http://127.0.0.1:${name === 'cart' ? 20_000 : 20_100}${path}`),
    [Symbol.asyncDispose]: close,
  }
}

/** Objects of a file of deploy/istio with `places` put in. */
export function istioSample(name: string, places: Readonly<Record<string, string>>): readonly Any[] {
  let text = readFileSync(join(ROOT, 'deploy/istio', name), 'utf8')
  for (const [from, to] of Object.entries(places)) {
    if (!text.includes(from)) throw new Error(`${name} does not say ${from}`)
    text = text.replaceAll(from, to)
  }
  return parseAllDocuments(text).map((document): Any => document.toJS())
}

/** Without the filters that only Istio's build of Envoy has: those measure, and none has to do with identity. */
function startIstiod(node: Node, pki: Pki, at: string, mesh: object): void {
  const { cert, key } = pki.client('istiod', 'istiod', 'system:masters')
  const kubeconfig = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: 'one', cluster: { server: 'https://127.0.0.1', 'certificate-authority': pki.caFile } },
    ],
    users: [{ name: 'istiod', user: { 'client-certificate': cert, 'client-key': key } }],
    contexts: [{ name: 'one', context: { cluster: 'one', user: 'istiod' } }],
    'current-context': 'one',
  }
  writeFileSync(join(at, 'kubeconfig'), JSON.stringify(kubeconfig), { mode: 0o600 })
  writeFileSync(join(at, 'mesh.yaml'), stringify({ defaultProviders: {}, ...mesh }))
  const env = {
    POD_NAME: 'istiod-0',
    POD_NAMESPACE: 'istio-system',
    // Certificates are the agent's: istiod issues none.
    ENABLE_CA_SERVER: 'false',
    PILOT_CERT_PROVIDER: 'none',
    PILOT_ENABLE_METADATA_EXCHANGE: 'false',
    PILOT_ENABLE_ALPN_FILTER: 'false',
    VALIDATION_WEBHOOK_CONFIG_NAME: '',
    INJECTION_WEBHOOK_CONFIG_NAME: '',
    CLOUD_PLATFORM: 'none',
  }
  const addresses = [
    '--httpAddr=127.0.0.1:15080',
    '--httpsAddr=',
    `--grpcAddr=${ISTIOD}`,
    '--secureGRPCAddr=',
  ]
  const files = ['kubeconfig', 'objects', 'mesh.yaml'].map((name) => join(at, name))
  const [config = '', objects = '', file = ''] = files
  const from = ['--kubeconfig', config, '--configDir', objects, '--meshConfig', file]
  const more = ['--monitoringAddr=127.0.0.1:15014', '--ctrlz_port=0']
  node.start('istiod', ['env', '-C', at, 'pilot-discovery', 'discovery', ...from, ...addresses, ...more], env)
}

interface SidecarOptions extends Pick<MeshOptions, 'directory' | 'trustDomain'> {
  readonly name: string
  readonly ip: string
  /** Of its administration; the next three are its own too. */
  readonly port: number
}

function startSidecar(node: Node, { name, ip, port, directory, trustDomain }: SidecarOptions): ChildProcess {
  const dir = layOut(join(node.dir, name))
  mkdirSync(join(dir, 'etc/istio/pod'), { recursive: true })
  writeFileSync(join(dir, 'etc/istio/pod/labels'), `app="${name}"\n`)
  const env = {
    ...ENVIRONMENT,
    POD_NAME: `${name}-1`,
    SERVICE_ACCOUNT: name,
    INSTANCE_IP: ip,
    TRUST_DOMAIN: trustDomain,
    WORKLOAD_IDENTITY_SOCKET_FILE: 'workload.sock',
    ISTIO_META_INTERCEPTION_MODE: 'NONE',
    ENVOY_PROMETHEUS_PORT: String(port + 2),
    ENVOY_STATUS_PORT: String(port + 3),
    PROXY_CONFIG: JSON.stringify({
      ...proxyConfig(ISTIOD, port, port + 1),
      interceptionMode: 'NONE',
      runtimeValues: { 'envoy.reloadable_features.ext_proc_graceful_grpc_close': 'true' },
    }),
  }
  // In a container it is one place; here programs run beside those of the machine, with paths of their own.
  const real = '/run/secrets/workload-spiffe-uds'
  const script = `mkdir -p ${real} && mount --bind "$1" ${real} && mount -o remount,bind,ro ${real} && ${SCRIPT}`
  const shell = ['sh', '-c', script, 'sh', directory, 'ro']
  return node.start(name, ['setsid', 'unshare', '--mount', 'env', '-C', dir, ...shell], env)
}

/** What is called for whom, and where both listen. */
function topology(address: string, socket: string): readonly Any[] {
  const of = (kind: string, name: string, spec: object, namespace = 'shop') => ({
    apiVersion: `${kind === 'PeerAuthentication' ? 'security' : 'networking'}.istio.io/v1`,
    kind,
    metadata: { name, namespace },
    spec,
  })
  const labels = { app: 'cart', 'security.istio.io/tlsMode': 'istio' }
  const http = (number: number) => ({ number, protocol: 'HTTP', name: 'http' })
  return [
    of('PeerAuthentication', 'default', { mtls: { mode: 'STRICT' } }, 'istio-system'),
    of('ServiceEntry', 'cart', {
      hosts: ['cart.shop.test'],
      location: 'MESH_INTERNAL',
      resolution: 'STATIC',
      ports: [http(OUT)],
      endpoints: [{ address: '127.0.0.2', ports: { http: IN }, labels, serviceAccount: 'cart' }],
    }),
    of('Sidecar', 'cart', {
      workloadSelector: { labels: { app: 'cart' } },
      ingress: [
        { port: http(IN), bind: '127.0.0.2', captureMode: 'NONE', defaultEndpoint: `unix://${socket}` },
      ],
      egress: [{ hosts: ['~/*'] }],
    }),
    of('Sidecar', 'web', {
      workloadSelector: { labels: { app: 'web' } },
      egress: [
        { port: http(OUT), bind: address, captureMode: 'NONE', hosts: ['./cart.shop.test'] },
        { port: http(TARGET_PORT), bind: address, captureMode: 'NONE', hosts: ['./orders.example.org'] },
      ],
    }),
  ]
}

interface Place {
  readonly name: string
  readonly port: number
}

type Sent = Pick<Received, 'method' | 'path' | 'headers'>

function askOver(place: Place & { readonly address: string }, sending: Sent): Promise<Heard> {
  const { address, name, port } = place
  const { headers, method, path } = sending
  return new Promise((resolve, reject) => {
    const options = { host: address, port, agent: false, setHost: false, method, path } as const
    const sent = request(options, (response) => resolve(heardOf(response)))
    sent.setHeader('Host', `${name}:${port}`)
    for (const [line, value] of headers) if (line !== 'Host') sent.appendHeader(line, value)
    sent.once('error', reject).end()
  })
}
