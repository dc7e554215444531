/**
 * A real Envoy Gateway without Kubernetes: the objects to copy of deploy/gateway-api from a file, with the places of a test
 * put in, and the Envoy of the tests as its proxy. Its xDS server has one port for all, so one at a time.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { type Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseAllDocuments, stringify } from 'yaml'
import { ROOT } from './built-agent.ts'
import { ENVOY_VERSIONS, envoyBinary, freePort } from './envoy.ts'
import { until } from './until.ts'
import type { Received } from './verify-rig.ts'
import { type Heard, heardOf } from './verify-ways.ts'

export const SAMPLE = join(ROOT, 'deploy/gateway-api/envoy-gateway.yaml')
export const hasEnvoyGateway = spawnSync('envoy-gateway', ['version']).status === 0

// biome-ignore lint/suspicious/noExplicitAny: objects are data, whose members tests know.
type Any = any

export interface EnvoyGateway extends AsyncDisposable {
  /** Header names and values in turn, of what reached the application. */
  readonly arrived: readonly (readonly string[])[]
  /** On one connection for all, or on one of its own. */
  ask(request: Received, connection?: Agent): Promise<Heard>
  log(): string
}

export interface GatewayOptions {
  /** The verifier's socket. */
  readonly socket: string
  /** Default true, as the sample wants. */
  readonly backends?: boolean
}

/** Starts it; resolves when its proxy answers. */
export async function startEnvoyGateway({ socket, backends = true }: GatewayOptions): Promise<EnvoyGateway> {
  const dir = mkdtempSync(join(tmpdir(), 'hf-gateway-'))
  const arrived: (readonly string[])[] = []
  const app = createServer((incoming, response) => {
    arrived.push(incoming.rawHeaders.map((text, at) => (at % 2 === 0 ? text.toLowerCase() : text)))
    response.end('{}')
  }).listen(0, '127.0.0.1')
  await once(app, 'listening')
  const port = await freePort()
  layOut(dir, backends)
  const objects = placed({ socket, port, app: (app.address() as AddressInfo).port })
  writeFileSync(join(dir, 'objects/all.yaml'), objects.map((one) => stringify(one)).join('---\n'))
  const child = launch(dir)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (output += chunk))
  const gateway: EnvoyGateway = {
    arrived,
    ask: (received, connection) => ask(port, received, connection),
    log: () => output,
    [Symbol.asyncDispose]: async () => {
      await ended(child)
      app.closeAllConnections()
      app.close()
      rmSync(dir, { recursive: true, force: true })
    },
  }
  try {
    const nobody = { method: 'GET', path: '/nothing', headers: [['Host', 'gateway.test']] } as const
    await until('Envoy Gateway to route', () => running(child, ask(port, nobody)), 60_000)
  } catch (error) {
    await gateway[Symbol.asyncDispose]()
    throw new Error(`${error}\n${output}`)
  }
  return gateway
}

async function running(child: ChildProcess, asked: Promise<Heard>): Promise<Heard | undefined> {
  if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`)
  return asked.catch(() => undefined)
}

/** Its own Envoy is that of the tests: a version that is there is not looked for elsewhere. */
function layOut(dir: string, backends: boolean): void {
  const binaries = join(dir, 'data/envoy-versions', ENVOY_VERSIONS[0], 'bin')
  for (const path of [binaries, join(dir, 'objects')]) mkdirSync(path, { recursive: true })
  symlinkSync(envoyBinary(), join(binaries, 'envoy'))
  const home = (name: string) => join(dir, name)
  const host = {
    configHome: home('config'),
    dataHome: home('data'),
    stateHome: home('state'),
    runtimeDir: home('run'),
  }
  const infrastructure = { type: 'Host', host }
  const resource = { type: 'File', file: { paths: [home('objects')] } }
  const config = {
    apiVersion: 'gateway.envoyproxy.io/v1alpha1',
    kind: 'EnvoyGateway',
    gateway: { controllerName: 'gateway.envoyproxy.io/gatewayclass-controller' },
    provider: { type: 'Custom', custom: { resource, infrastructure } },
    extensionApis: { enableBackend: backends },
  }
  writeFileSync(join(dir, 'gateway.yaml'), stringify(config))
}

/** With a group of its own, so that its Envoy ends with it. */
function launch(dir: string): ChildProcess {
  const env = { PATH: process.env['PATH'], HOME: dir }
  const made = spawnSync('envoy-gateway', ['certgen', '--local', '--config-home', join(dir, 'config')], {
    env,
  })
  if (made.status !== 0) throw new Error(`certgen: ${made.stderr}`)
  const args = ['server', '--config-path', join(dir, 'gateway.yaml')]
  return spawn('envoy-gateway', args, { cwd: dir, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
}

async function ended(child: ChildProcess): Promise<void> {
  const { pid } = child
  if (pid === undefined) return
  if (child.exitCode === null && child.signalCode === null) {
    const gone = once(child, 'exit')
    child.kill('SIGTERM')
    await Promise.race([gone, until('its end', () => child.exitCode !== null, 10_000).catch(() => false)])
  }
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // Nobody of the group is left.
  }
}

/** The sample; routes of the verifier's rig in place of its own; one more that no policy of its own is for. */
function placed({ socket, port, app }: { socket: string; port: number; app: number }): readonly Any[] {
  const objects = parseAllDocuments(readFileSync(SAMPLE, 'utf8')).map((document): Any => document.toJS())
  const of = (kind: string, name: string): Any =>
    objects.find((one) => one.kind === kind && one.metadata.name === name)
  of('EnvoyProxy', 'holdfast').spec.provider = { type: 'Host', host: { envoyVersion: ENVOY_VERSIONS[0] } }
  of('Gateway', 'public').spec.listeners = [{ name: 'http', protocol: 'HTTP', port }]
  of('Backend', 'holdfast-verifier').spec.endpoints[0].unix.path = socket
  const route = of('HTTPRoute', 'orders')
  const policy = of('SecurityPolicy', 'holdfast-orders')
  const [rule] = route.spec.rules
  rule.backendRefs = [{ group: 'gateway.envoyproxy.io', kind: 'Backend', name: 'app' }]
  rule.matches[0].path.value = '/v1'
  policy.spec.extAuth.contextExtensions[0].value = 'api'
  const [strict, strictPolicy, other] = [route, policy, route].map((one) => structuredClone(one))
  strict.metadata.name = 'strict'
  strict.spec.rules[0].matches[0].headers = [{ name: 'x-test-route', value: 'strict' }]
  strictPolicy.metadata.name = 'holdfast-strict'
  strictPolicy.spec.targetRefs[0].name = 'strict'
  strictPolicy.spec.extAuth.contextExtensions[0].value = 'strict'
  other.metadata.name = 'other'
  other.spec.rules[0].matches[0].path.value = '/other'
  const backend = structuredClone(of('Backend', 'holdfast-verifier'))
  backend.metadata.name = 'app'
  backend.spec = { endpoints: [{ ip: { address: '127.0.0.1', port: app } }] }
  return [...objects, strict, strictPolicy, other, backend]
}

function ask(port: number, received: Received, agent: Agent | false = false): Promise<Heard> {
  const { method, path, headers, route } = received
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, agent, setHost: false, method, path }, (response) =>
      resolve(heardOf(response)),
    )
    for (const [name, value] of headers) sent.appendHeader(name, value)
    if (route) sent.setHeader('x-test-route', route)
    sent.once('error', reject).end()
  })
}
