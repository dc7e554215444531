/** The ops port: liveness, readiness and metrics over plain HTTP on a private address; no identity is ever shown. */
import type { RequestListener, ServerResponse } from 'node:http'
import type { Millis } from '../base/clock.ts'
import { openPublicServer, type PublicServer } from '../serve/public-server.ts'
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
const PATIENCE: Millis = 5_000
const CONNECTIONS = 64

/** Listens; throws config_invalid when the address cannot be had. */
export function openOps(options: OpsOptions): Promise<PublicServer> {
  const { host, port } = options
  return openPublicServer({
    name: 'ops.listen',
    host,
    port,
    files: undefined,
    connections: CONNECTIONS,
    maxHeaderSize: HEADER_BYTES,
    patience: PATIENCE,
    listener: listenerOf(options),
  })
}

function listenerOf(options: OpsOptions): RequestListener {
  return (request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return reply(response, 405, 'method not allowed\n')
    void answer(options, (request.url ?? '').split('?')[0] ?? '', response)
  }
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
