/** The ops port: liveness, readiness and metrics over plain HTTP on a private address; no identity is ever shown. */
import { createServer, type Server, type ServerResponse } from 'node:http'
import { Fault } from '../base/fault.ts'
import type { Health } from '../telemetry/health.ts'
import type { Metrics } from '../telemetry/metrics.ts'

export interface OpsOptions {
  readonly host: string
  readonly port: number
  readonly health: Health
  readonly metrics: Metrics
  /** Passive and draining agents are alive but not ready. */
  readonly serving: () => boolean
}

const HEADER_BYTES = 4096
const TIMEOUT_MS = 5_000
const CONNECTIONS = 64

/** Listens; resolves with the port. Throws config_invalid when the address cannot be had. */
export function openOps(options: OpsOptions): Promise<{ readonly port: number; stop(): void }> {
  const server = createServer({
    maxHeaderSize: HEADER_BYTES,
    requestTimeout: TIMEOUT_MS,
    headersTimeout: TIMEOUT_MS,
  })
  server.maxConnections = CONNECTIONS
  server.on('request', (request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return reply(response, 405, 'method not allowed\n')
    void answer(options, (request.url ?? '').split('?')[0] ?? '', response)
  })
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      reject(
        new Fault('config_invalid', `ops.listen: ${options.host}:${options.port} cannot be used`, {
          cause: error,
        }),
      )
    })
    server.listen(options.port, options.host, () =>
      resolve({ port: portOf(server), stop: () => stopServer(server) }),
    )
  })
}

async function answer(options: OpsOptions, path: string, response: ServerResponse): Promise<void> {
  if (path === '/livez') return reply(response, 200, 'alive\n')
  if (path === '/readyz') return ready(options, response)
  if (path === '/metrics') return reply(response, 200, await options.metrics.render())
  reply(response, 404, 'not found: /livez, /readyz, /metrics\n')
}

function ready({ health, serving }: OpsOptions, response: ServerResponse): void {
  const degraded = health.degraded.map(({ code, message }) => `degraded ${code}: ${message}\n`).join('')
  const waiting = health.pending.map((name) => `pending ${name}\n`).join('')
  if (health.ready && serving()) reply(response, 200, `ready\n${degraded}`)
  else reply(response, 503, `not ready\n${serving() ? '' : 'not serving\n'}${waiting}${degraded}`)
}

function reply(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, {
    'Content-Type': 'text/plain; version=0.0.4; charset=utf-8',
    'Cache-Control': 'no-store',
  })
  response.end(text)
}

function portOf(server: Server): number {
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

function stopServer(server: Server): void {
  server.close()
  server.closeAllConnections()
}
