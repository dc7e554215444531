/** Two Envoys with mutual TLS between them, as deploy/envoy has them: secrets by SDS from agents of the test's own. */
import { once } from 'node:events'
import { Agent, createServer, get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type EnvoyOptions, freePort, startEnvoy, type TestEnvoy } from './envoy.ts'
import { envoySample } from './envoy-sample.ts'

export interface ServerOptions extends EnvoyOptions {
  /** The workload socket of its agent. */
  readonly socket: string
  /** The secret that is its certificate; default `default`. */
  readonly certificate?: string
  /** The secret that it verifies by; default `ALL`. */
  readonly trust?: string
  /** The prefix of SPIFFE IDs that may connect; default all. */
  readonly callers?: string
  readonly api?: 'GRPC' | 'DELTA_GRPC'
  /** Answered by Envoy itself, without an application behind it. */
  readonly direct?: boolean
}

export interface ClientOptions extends Omit<ServerOptions, 'callers'> {
  /** Where the server listens, and its SPIFFE ID. */
  readonly port: number
  readonly server: string
}

/** An Envoy of the pair; `port` takes TLS (server) or plain HTTP (client). */
export interface MtlsEnvoy extends AsyncDisposable {
  readonly envoy: TestEnvoy
  readonly port: number
}

/** The application behind the server says who called. */
export async function startMtlsServer(options: ServerOptions): Promise<MtlsEnvoy> {
  const app = createServer((request, response) => {
    response.end(String(request.headers['x-forwarded-client-cert'] ?? ''))
  }).listen(0, '127.0.0.1')
  await once(app, 'listening')
  const port = await freePort()
  const bootstrap = envoySample('mtls-server.yaml', {
    'address: 0.0.0.0, port_value: 8443': `address: 127.0.0.1, port_value: ${port}`,
    'port_value: 8080': `port_value: ${(app.address() as AddressInfo).port}`,
    ...(options.direct ? { 'route: { cluster: app }': 'direct_response: { status: 200 }' } : {}),
    'prefix: "spiffe://example.org/"': `prefix: "${options.callers ?? 'spiffe://'}"`,
    ...secretPlaces(options),
  })
  const envoy = await startEnvoy(bootstrap, options)
  return {
    envoy,
    port,
    [Symbol.asyncDispose]: async () => {
      await envoy[Symbol.asyncDispose]()
      app.closeAllConnections()
      app.close()
    },
  }
}

export async function startMtlsClient(options: ClientOptions): Promise<MtlsEnvoy> {
  const port = await freePort()
  const bootstrap = envoySample('mtls-client.yaml', {
    'port_value: 15001': `port_value: ${port}`,
    'address: api.example.org, port_value: 8443': `address: 127.0.0.1, port_value: ${options.port}`,
    'exact: "spiffe://example.org/api"': `exact: "${options.server}"`,
    ...secretPlaces(options),
  })
  const envoy = await startEnvoy(bootstrap, options)
  return { envoy, port, [Symbol.asyncDispose]: () => envoy[Symbol.asyncDispose]() }
}

function secretPlaces(options: ServerOptions): Readonly<Record<string, string>> {
  const { socket, certificate = 'default', trust = 'ALL', api = 'GRPC' } = options
  return {
    '/run/holdfast/public/workload.sock': socket,
    'name: default': `name: "${certificate}"`,
    'name: ALL': `name: "${trust}"`,
    'api_type: GRPC': `api_type: ${api}`,
  }
}

export interface HttpAnswer {
  readonly status: number
  readonly text: string
}

/** One request, on a connection of its own or on one of `agent`'s. */
export function ask(port: number, agent: Agent | false = false): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const sent = get({ host: '127.0.0.1', port, path: '/', agent }, (response: IncomingMessage) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => (text += chunk))
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text }))
      response.once('error', reject)
    })
    sent.once('error', reject)
  })
}

/** Requests one after the other on `connections` kept connections until `stop`: how many of each status there were. */
export function startLoad(port: number, connections: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const counts: Record<string, number> = {}
  let isOver = false
  const one = async () => {
    while (!isOver) {
      const key = await ask(port, agent).then(
        ({ status }) => String(status),
        (error: Error) => error.message,
      )
      counts[key] = (counts[key] ?? 0) + 1
    }
  }
  const running = Promise.all(Array.from({ length: connections }, one))
  return {
    counts,
    stop: async () => {
      isOver = true
      await running
      agent.destroy()
      return counts
    },
  }
}
