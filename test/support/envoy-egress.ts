/** An application's side of an Envoy that signs: the configurations to copy, started, and requests through them. */
import { request } from 'node:http'
import { ENVOY_VERSIONS, type EnvoyVersion, freePort, startEnvoy } from './envoy.ts'
import { envoySample, type Places } from './envoy-sample.ts'
import { until } from './until.ts'

/** What the configurations have to be told of. */
export interface SigningParts {
  readonly orders: { readonly port: number }
  readonly agent: { readonly socket: string }
  /** Roots of the target's certificate, in PEM. */
  readonly caFile: string
}

/** An answer. */
export interface Got {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

interface Sent {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string | string[]>>
  readonly body?: string
}

/** Sends to the listener of an Envoy, as its application does. */
export function sendBy(port: number, { method = 'GET', path = '/v1/items', headers = {}, body }: Sent = {}) {
  return new Promise<Got>((resolve, reject) => {
    const sent = request({ port, host: '127.0.0.1', method, path, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => (text += chunk))
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
      )
      response.once('error', reject)
    })
    sent.once('error', reject).end(body)
  })
}

/** The listener takes connections a moment after Envoy says LIVE. */
export async function openSigning(
  name: string,
  rig: SigningParts,
  places: Places = {},
  version: EnvoyVersion = ENVOY_VERSIONS[0],
) {
  const port = await freePort()
  const bootstrap = envoySample(name, {
    'port_value: 443': `port_value: ${rig.orders.port}`,
    'address: orders.example.org': 'address: 127.0.0.1',
    'orders.example.org': 'localhost',
    // No key of digits alone: those come first in every object, and 44300 holds the 443 of above.
    'port_value: 15001': `port_value: ${port}`,
    '/etc/ssl/certs/ca-certificates.crt': rig.caFile,
    '/run/holdfast/public/workload.sock': rig.agent.socket,
    ...places,
  })
  const envoy = await startEnvoy(bootstrap, { version })
  await until('the listener', () => sendBy(port, { path: '/none' }).catch(() => undefined))
  return { port, envoy }
}
