/** An Envoy in front of an application, as deploy/envoy has it: the verifier's requests sent through it for real. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { freePort, startEnvoy, type TestEnvoy } from './envoy.ts'
import { envoySample } from './envoy-sample.ts'
import { until } from './until.ts'
import type { Received, VerifyRig } from './verify-rig.ts'
import type { Heard } from './verify-ways.ts'

/** A request as the application got it: names in lower case and values in turn. */
export type Arrived = readonly string[]

export interface EnvoyIngress extends AsyncDisposable {
  readonly envoy: TestEnvoy
  readonly port: number
  /** What reached the application. */
  readonly arrived: readonly Arrived[]
  ask(request: Received): Promise<Heard>
  /** A connection that stays, for one request after the other. */
  connect(): Promise<KeptConnection>
}

export interface KeptConnection extends Disposable {
  ask(request: Received): Promise<Heard>
}

const ROUTES = ['api', 'strict', 'gated', 'narrow', 'traded']

// biome-ignore lint/suspicious/noExplicitAny: a configuration is data, whose members tests know.
type Any = any

/** Starts it without TLS, which is SDS's matter; `isRaw` as `encode_raw_headers`. */
export async function startEnvoyIngress(rig: VerifyRig, isRaw: boolean): Promise<EnvoyIngress> {
  const arrived: Arrived[] = []
  const app = createServer((request, response) => {
    arrived.push(request.rawHeaders.map((text, at) => (at % 2 === 0 ? text.toLowerCase() : text)))
    response.end('{}')
  }).listen(0, '127.0.0.1')
  await once(app, 'listening')
  const port = await freePort()
  const bootstrap = envoySample('ingress-verify.yaml', {
    'address: 0.0.0.0, port_value: 8443': `address: 127.0.0.1, port_value: ${port}`,
    'port_value: 8080': `port_value: ${(app.address() as AddressInfo).port}`,
    '/run/holdfast/public/verifier.sock': rig.socket,
    '/run/holdfast/public/workload.sock': rig.agent.socket,
    'encode_raw_headers: true': `encode_raw_headers: ${isRaw}`,
  })
  byHeader(bootstrap)
  const envoy = await startEnvoy(bootstrap)
  const ingress: EnvoyIngress = {
    envoy,
    port,
    arrived,
    ask: async (request) => {
      using connection = await open(port)
      return await connection.ask(request)
    },
    connect: () => open(port),
    [Symbol.asyncDispose]: async () => {
      await envoy[Symbol.asyncDispose]()
      app.closeAllConnections()
      app.close()
    },
  }
  await until('the listener', () =>
    open(port).then(
      (one) => one[Symbol.dispose]() ?? true,
      () => false,
    ),
  )
  return ingress
}

/** One route of the sample for each of the rig's, told by a header; no TLS. */
function byHeader(bootstrap: Any): void {
  const [listener] = bootstrap.static_resources.listeners
  const [chain] = listener.filter_chains
  delete chain.transport_socket
  const [host] = chain.filters[0].typed_config.route_config.virtual_hosts
  const [sample] = host.routes
  host.routes = ROUTES.map((route) => {
    const one = structuredClone(sample)
    one.match.headers = [{ name: 'x-test-route', string_match: { exact: route } }]
    const checked = one.typed_per_filter_config['envoy.filters.http.ext_authz'].check_settings
    checked.context_extensions.route = route
    return one
  })
}

async function open(port: number): Promise<KeptConnection> {
  const socket = connect({ port, host: '127.0.0.1' })
  await once(socket, 'connect')
  return { ask: (request) => askOn(socket, request), [Symbol.dispose]: () => void socket.destroy() }
}

/** Bytes as they are: duplicates, order and paths are the test's. */
async function askOn(socket: Socket, { route = 'api', method, path, headers }: Received): Promise<Heard> {
  let text = ''
  const take = (chunk: Buffer) => (text += chunk.toString('latin1'))
  socket.on('data', take)
  const lines = headers.map(([name, value]) => `${name}: ${value}`)
  const head = [`${method} ${path}?secret=1 HTTP/1.1`, `x-test-route: ${route}`, ...lines]
  socket.write(`${head.join('\r\n')}\r\n\r\n`)
  const { end, length } = await until('an answer', () => {
    const found = text.indexOf('\r\n\r\n')
    const size = Number(/^content-length: (\d+)/im.exec(text)?.[1] ?? 0)
    return found >= 0 && text.length >= found + 4 + size ? { end: found, length: size } : undefined
  })
  socket.off('data', take)
  const [line = '', ...rest] = text.slice(0, end).split('\r\n')
  const said = rest.map((each) => [
    each.slice(0, each.indexOf(':')).toLowerCase(),
    each.slice(each.indexOf(':') + 2),
  ])
  const status = Number(line.split(' ')[1])
  const body = text.slice(end + 4, end + 4 + length)
  return { isAllowed: status === 200, status, headers: Object.fromEntries(said), body }
}
