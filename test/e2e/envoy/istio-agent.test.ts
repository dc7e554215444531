/** The contract of Istio by a real istio-agent, where it is installed: what it does with a socket that is there, or is not. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { connect } from 'node:tls'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type AgentOptions, startAgent } from '../../support/agent.ts'
import { freePort } from '../../support/envoy.ts'
import { identityPolicy, idOf } from '../../support/identities.ts'
import { type IstioAgentOptions, missingForIstioAgent, startIstioAgent } from '../../support/istio-agent.ts'
import { until } from '../../support/until.ts'

const CART = 'ns/shop/sa/cart'
const FOUND = 'Existing workload SDS socket found'
const OWN = 'Starting SDS server for workload certificates'
const withCart: AgentOptions = {
  policy: identityPolicy([{ path: CART }]),
  config: (config) => ({ ...config, socketAliases: ['socket'], sds: { ...config.sds, rootca: 'all' } }),
}

const missing = missingForIstioAgent()
if (missing) {
  console.warn(`SKIPPED: a real istio-agent needs ${missing}`)
  it.skip('a real istio-agent is run', () => {})
} else describe('istio-agent', suite)

function suite(): void {
  let dir: string
  let directory: string
  let port: number
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'hf-node-'))
    directory = join(dir, 'public')
    mkdirSync(directory, { mode: 0o755 })
    port = await freePort()
  })
  afterEach(() => rmSync(dir, { recursive: true, force: true }))

  const start = (options: Partial<IstioAgentOptions> = {}) =>
    startIstioAgent({ directory, bootstrap: listening(port), ...options })
  /** The SPIFFE ID that its Envoy shows. */
  const shown = () => until('a certificate', () => idAt(port).catch(() => undefined), 45_000)
  const kinds = () =>
    readdirSync(directory).map((name) => `${name}:${lstatSync(join(directory, name)).isSocket() ? 's' : '-'}`)

  it.each([
    ['by the name that Istio looks for', {}],
    ['by its own name', { file: 'workload.sock' }],
  ])('finds the socket %s, and its Envoy has the SVID', async (_what, options) => {
    await using agent = await startAgent({ ...withCart, dir })
    const before = kinds()
    await using istio = await start(options)
    expect(await shown()).toBe(idOf(CART))
    expect(istio.log()).toContain(FOUND)
    expect(istio.log()).toContain('Starting SDS server for file certificates only')
    expect(istio.log()).not.toContain(OWN)
    expect(kinds()).toEqual(before)
    expect(dirname(agent.socket)).toBe(directory)
  })

  it('is served while it has no entry, and has its SVID the moment one is there', async () => {
    await using agent = await startAgent({ ...withCart, policy: identityPolicy([]), dir })
    await using istio = await start()
    await until('the socket to be found', () => istio.log().includes(FOUND))
    await until('a stream that waits', async () =>
      /^holdfast_sds_waiting [12]$/m.test(await agent.metrics.render()),
    )
    await agent.setPolicy(identityPolicy([{ path: CART }]))
    expect(await shown()).toBe(idOf(CART))
  })

  it('with a name of its own ends until a socket is there, and is not there by its own', async () => {
    await using istio = await start({ file: 'workload.sock' })
    expect(await istio.ended()).not.toBe(0)
    expect(istio.log()).toContain('but no socket found')
    expect(kinds()).toEqual([])
    // As the kubelet starts it again.
    await using _agent = await startAgent({ ...withCart, dir })
    await using _again = await start({ file: 'workload.sock' })
    expect(await shown()).toBe(idOf(CART))
  })

  it('without one turns to istiod, but cannot take the place of the socket, which its Envoy then finds', async () => {
    await using istio = await start()
    await until('it to turn to istiod', () => istio.log().includes('failed to sign'))
    expect(istio.log()).not.toContain(FOUND)
    expect(istio.log()).toContain('SDS grpc server for workload proxies failed to set up UDS')
    expect(kinds()).toEqual([])
    await using _agent = await startAgent({ ...withCart, dir })
    expect(await shown()).toBe(idOf(CART))
  }, 60_000)

  it.each([{}, { file: 'workload.sock' }])(
    'ends where nobody answers, and leaves the socket',
    async (options) => {
      deadSocket(directory)
      await using istio = await start(options)
      expect(await istio.ended()).not.toBe(0)
      expect(istio.log()).toContain('read-only file system')
      expect(kinds()).toContain('workload.sock:s')
    },
  )

  it('waits one second for who took the connection and says nothing, and ends', async () => {
    const silent = createServer(() => {}).listen(join(directory, 'workload.sock'))
    await once(silent, 'listening')
    await using istio = await start({ file: 'workload.sock' })
    expect(await istio.ended()).not.toBe(0)
    expect(istio.log()).toContain('SDS socket detected but not healthy: context deadline exceeded')
    expect(kinds()).toEqual(['workload.sock:s'])
    silent.close()
  })

  it('that may write puts its own server there, for every pod of the node to believe', async () => {
    await using istio = await start({ writable: true })
    await until('its server', () => istio.log().includes(OWN))
    expect(kinds()).toEqual(['socket:s'])
    await using other = await start({ bootstrap: {} })
    await until('another pod to believe it', () => other.log().includes(FOUND))
    // An agent that starts takes the name back.
    await using _agent = await startAgent({ ...withCart, dir })
    expect(readlinkSync(join(directory, 'socket'))).toBe('workload.sock')
  })
}

/** A socket that was bound once, under both names. */
function deadSocket(directory: string): void {
  const bind = `import os,socket; socket.socket(socket.AF_UNIX).bind("${directory}/workload.sock"); os.symlink("workload.sock", "${directory}/socket")`
  spawnSync('python3', ['-c', bind])
}

/** A listener whose certificate is the secret `default`, asked for as Istio does. */
function listening(port: number): object {
  const source = {
    resource_api_version: 'V3',
    initial_fetch_timeout: '0s',
    api_config_source: {
      api_type: 'GRPC',
      transport_api_version: 'V3',
      set_node_on_first_message_only: true,
      grpc_services: [{ envoy_grpc: { cluster_name: 'sds-grpc' } }],
    },
  }
  const type = (name: string, more: object) => ({
    '@type': `type.googleapis.com/envoy.extensions.${name}`,
    ...more,
  })
  const certificates = [{ name: 'default', sds_config: source }]
  const trust = { name: 'ROOTCA', sds_config: source }
  const context = {
    tls_certificate_sds_secret_configs: certificates,
    validation_context_sds_secret_config: trust,
  }
  const chain = {
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: type('transport_sockets.tls.v3.DownstreamTlsContext', { common_tls_context: context }),
    },
    filters: [
      {
        name: 'envoy.filters.network.tcp_proxy',
        typed_config: type('filters.network.tcp_proxy.v3.TcpProxy', { stat_prefix: 'tls', cluster: 'agent' }),
      },
    ],
  }
  const address = { socket_address: { address: '127.0.0.1', port_value: port } }
  // Envoy opens nothing until istiod has spoken, which here is never.
  const soon = { initial_fetch_timeout: '0.1s' }
  return {
    static_resources: { listeners: [{ name: 'tls', address, filter_chains: [chain] }] },
    dynamic_resources: { cds_config: soon, lds_config: soon },
  }
}

async function idAt(port: number): Promise<string | undefined> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false })
  try {
    await once(socket, 'secureConnect')
    return socket.getPeerX509Certificate()?.subjectAltName?.replace('URI:', '')
  } finally {
    socket.destroy()
  }
}
