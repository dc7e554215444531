/** A real Envoy with a listener for each way of signing: the filters are those of the configurations to copy. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, startEnvoy, type TestEnvoy } from '../support/envoy.ts'
import { envoySample, UNHEARD } from '../support/envoy-sample.ts'
import { takeTimes, timesLog } from './envoy-times.ts'

/** How a listener signs: not at all, by ext_authz, by ext_proc, by ext_proc that does not look at the answer. */
export type Signing = 'none' | 'check' | 'process' | 'trip'

/** A way through the Envoy: how it signs, and at which socket it asks. */
export interface ProxyWay {
  readonly signing: Signing
  readonly socket: string
}

export interface Proxy<K extends string> extends AsyncDisposable {
  readonly envoy: TestEnvoy
  /** The listener of each way. */
  readonly ports: Readonly<Record<K, number>>
  /** The times of the last `count` calls of a way as Envoy took them, in ms. */
  times(way: K, count: number): Promise<readonly number[]>
}

const HTTP = 'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'
const OPTIONS = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions'
const ROUTER = typed('envoy.filters.http.router', 'envoy.extensions.filters.http.router.v3.Router')
const CODEC = typed(
  'envoy.filters.http.upstream_codec',
  'envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec',
)
/** Answers say what proof the target was sent. */
export const PROOF_FIELD = 'x-proof'

function typed(name: string, type: string, config: object = {}) {
  return { name, typed_config: { '@type': `type.googleapis.com/${type}`, ...config } }
}

/** Starts it; requests are signed for the target `name` at `authority`. */
export async function startProxy<K extends string>(
  ways: Readonly<Record<K, ProxyWay>>,
  target: { readonly name: string; readonly authority: string },
): Promise<Proxy<K>> {
  const names = Object.keys(ways) as K[]
  const ports = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await freePort()] as const)),
  ) as Record<K, number>
  const upstream = await freePort()
  const logs = mkdtempSync(join(tmpdir(), 'hf-times-'))
  const listeners = names.map((name) => {
    const { signing } = ways[name]
    const filters = signing === 'check' ? [filterOf('check', name, target.name), ROUTER] : [ROUTER]
    const route = { cluster: `target-${name}`, host_rewrite_literal: target.authority }
    const extensions = { target: target.name }
    const access_log = [timesLog(join(logs, name), signing)]
    const perFilter = signing === 'check' ? perRoute(extensions) : {}
    return listener(ports[name], filters, { route }, { access_log, perFilter })
  })
  const clusters = names.flatMap((name) => {
    const { signing, socket } = ways[name]
    // By ext_proc each try is signed, by ext_authz the request.
    const isOfTry = signing === 'process' || signing === 'trip'
    return [
      targetCluster(`target-${name}`, upstream, isOfTry ? filterOf(signing, name, target.name) : undefined),
      cluster(
        `agent-${name}`,
        { pipe: { path: socket } },
        { explicit_http_config: { http2_protocol_options: {} } },
      ),
    ]
  })
  const answer = {
    direct_response: { status: 200 },
    response_headers_to_add: [{ header: { key: PROOF_FIELD, value: '%REQ(dpop)%' } }],
  }
  const { layered_runtime } = envoySample('egress-signing.yaml') as { readonly layered_runtime: object }
  const bootstrap = {
    layered_runtime,
    static_resources: { listeners: [...listeners, listener(upstream, [ROUTER], answer)], clusters },
  }
  const envoy = await startEnvoy(bootstrap, { flushMs: 500 })
  return {
    envoy,
    ports,
    times: (way, count) => takeTimes(join(logs, way), count),
    [Symbol.asyncDispose]: async () => {
      await envoy[Symbol.asyncDispose]()
      rmSync(logs, { recursive: true, force: true })
    },
  }
}

interface ListenerOptions {
  readonly access_log?: readonly object[]
  readonly perFilter?: object
}

function listener(port: number, filters: readonly object[], action: object, options: ListenerOptions = {}) {
  const { access_log = [], perFilter = {} } = options
  const routes = [{ match: { prefix: '/' }, ...action }]
  const virtual = { name: 'all', domains: ['*'], routes, typed_per_filter_config: perFilter }
  const manager = typed('envoy.filters.network.http_connection_manager', HTTP, {
    stat_prefix: `at${port}`,
    route_config: { virtual_hosts: [virtual] },
    http_filters: filters,
    access_log,
  })
  return { address: addressOf(port), filter_chains: [{ filters: [manager] }] }
}

const addressOf = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } })

function perRoute(extensions: object) {
  const type = 'envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute'
  const name = 'envoy.filters.http.ext_authz'
  return { [name]: typed(name, type, { check_settings: { context_extensions: extensions } }).typed_config }
}

function targetCluster(name: string, port: number, filter: object | undefined) {
  const filters = filter ? { http_filters: [filter, CODEC] } : {}
  return cluster(name, addressOf(port), { explicit_http_config: { http_protocol_options: {} }, ...filters })
}

/** A pause of a busy machine must not be a refusal. */
const NO_LIMITS = {
  thresholds: [{ max_connections: 65_536, max_pending_requests: 65_536, max_requests: 65_536 }],
}

function cluster(name: string, address: object, options: object) {
  return {
    name,
    circuit_breakers: NO_LIMITS,
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }],
    },
    typed_extension_protocol_options: { [OPTIONS]: typed(OPTIONS, OPTIONS, options).typed_config },
  }
}

/** The filter of the configuration to copy, for this way. */
function filterOf(signing: Exclude<Signing, 'none'>, way: string, target: string): object {
  const file = signing === 'check' ? 'egress-check.yaml' : 'egress-signing.yaml'
  const wanted = `envoy.filters.http.${signing === 'check' ? 'ext_authz' : 'ext_proc'}`
  // `ext_proc` takes its times unasked.
  const timed = signing === 'check' ? { emit_filter_state_stats: true } : {}
  const sample = envoySample(file, {
    'cluster_name: holdfast }': `cluster_name: agent-${way} }`,
    ...(signing === 'trip' ? UNHEARD : {}),
  })
  const filter = findNamed(sample, wanted)
  if (!filter) throw new Error(`${file} has no ${wanted}`)
  const whole = { ...filter, typed_config: { ...filter.typed_config, ...timed } }
  return JSON.parse(JSON.stringify(whole).replaceAll('"value":"orders"', `"value":"${target}"`)) as object
}

interface Named {
  readonly name: string
  readonly typed_config?: object
}

function findNamed(tree: unknown, name: string): Named | undefined {
  if (typeof tree !== 'object' || tree === null) return undefined
  if ('name' in tree && tree.name === name) return tree as Named
  for (const branch of Object.values(tree)) {
    const found = findNamed(branch, name)
    if (found) return found
  }
  return undefined
}
