/** Mutual TLS between real Envoys whose secrets come from agents by SDS, row by row of what Envoy does with them. */
import { describe, expect, it } from 'vitest'
import { Live } from '../../../src/base/live.ts'
import type { FederatedBundles } from '../../../src/issue/trusted-bundles.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import type { TrustDomain } from '../../../src/spiffe/id.ts'
import { startAgent, type TestAgent } from '../../support/agent.ts'
import { ENVOY_VERSIONS, hasEnvoy } from '../../support/envoy.ts'
import { ask, type MtlsEnvoy, startLoad, startMtlsClient, startMtlsServer } from '../../support/envoy-mtls.ts'
import { until } from '../../support/until.ts'

const UID = process.getuid?.() ?? 0
const OWN = 'a.test'
const SERVER = `spiffe://${OWN}/server`
const CLIENT = `spiffe://${OWN}/client`

interface EntryText {
  readonly id: string
  /** Seconds; a change of it is a new SVID. */
  readonly ttl?: number
  readonly uid?: number
  readonly federatesWith?: readonly string[]
  readonly sds?: string
}

function policyOf(...entries: readonly EntryText[]): Readonly<Record<string, string>> {
  const texts = entries.map(
    ({ id, ttl = 3600, uid = UID, federatesWith = [], sds = '{}' }) => `  - spiffe_id: ${id}
    selectors: [unix:uid:${uid}]
    x509_ttl: ${ttl}s
    federates_with: [${federatesWith.join(', ')}]
    sds: ${sds}
    deliver: { x509: true, jwt: false, wit: false }
`,
  )
  return { 'identity.yaml': `layer: identity\nentries:\n${texts.join('')}` }
}

const startDomain = (
  trustDomain: string,
  policy: Readonly<Record<string, string>>,
  federated = new Live<FederatedBundles>(new Map()),
) =>
  startAgent({
    policy,
    federated,
    config: (config) => ({ ...config, trustDomain: trustDomain as TrustDomain }),
  })

/** An agent and two Envoys: the client's requests reach the application behind the server. */
async function startPair(
  over: { api?: 'GRPC' | 'DELTA_GRPC'; version?: (typeof ENVOY_VERSIONS)[number] } = {},
) {
  const agent = await startDomain(OWN, policyOf({ id: SERVER }, { id: CLIENT }))
  const { socket } = agent
  const server = await startMtlsServer({ ...over, socket, certificate: SERVER })
  const at = { ...over, socket, certificate: CLIENT, port: server.port }
  const client = await startMtlsClient({ ...at, server: SERVER })
  const end = async () => {
    for (const part of [client, server, agent]) await part[Symbol.asyncDispose]()
  }
  return { agent, server, client, [Symbol.asyncDispose]: end }
}

/** A counter of its secrets: `update_success`, `update_rejected`. */
async function secretCount({ envoy }: MtlsEnvoy, name: string): Promise<number> {
  const counts = await envoy.stats(new RegExp(`\\.${name}$`))
  return Object.values(counts).reduce((sum, each) => sum + each, 0)
}

const handshakes = async ({ envoy }: MtlsEnvoy) =>
  Object.values(await envoy.stats(/^listener\.127\.0\.0\.1_\d+\.ssl\.handshake$/))[0]

async function rotate(agent: TestAgent, turn: number): Promise<void> {
  const ttl = 3600 + turn
  await agent.setPolicy(policyOf({ id: SERVER, ttl }, { id: CLIENT, ttl }))
}

describe.skipIf(!hasEnvoy)('mutual TLS by SDS', () => {
  it.each(
    ENVOY_VERSIONS.flatMap((version) => (['GRPC', 'DELTA_GRPC'] as const).map((api) => ({ version, api }))),
  )('works between Envoys $version by $api, and the server learns who called', async (over) => {
    await using pair = await startPair(over)
    const called = { status: 200, text: expect.stringMatching(`^By=${SERVER};.*;URI=${CLIENT}$`) }
    expect(await ask(pair.client.port)).toEqual(called)
    expect(await secretCount(pair.server, 'update_rejected')).toBe(0)
    const before = await secretCount(pair.client, 'update_success')
    await rotate(pair.agent, 1)
    await until(
      'the new certificate',
      async () => (await secretCount(pair.client, 'update_success')) > before,
    )
    expect(await ask(pair.client.port)).toEqual(called)
  })

  it('refuses a server that is not the one expected, and a caller that is not let in', async () => {
    await using agent = await startDomain(OWN, policyOf({ id: SERVER }, { id: CLIENT }))
    const { socket } = agent
    const callers = `spiffe://${OWN}/other`
    await using server = await startMtlsServer({ socket, certificate: SERVER, callers })
    const at = { socket, port: server.port, certificate: CLIENT }
    await using kept = await startMtlsClient({ ...at, server: SERVER })
    await using deceived = await startMtlsClient({ ...at, server: callers })
    expect((await ask(kept.port)).status).toBe(503)
    expect((await ask(deceived.port)).status).toBe(503)
    const refusals = async ({ envoy }: MtlsEnvoy) =>
      Object.values(await envoy.stats(/ssl\.fail_verify_san$/)).some((count) => count > 0)
    expect([await refusals(server), await refusals(deceived)]).toEqual([true, true])
  })

  it('loses no request to eight rotations, and opens no connection for them', async () => {
    await using pair = await startPair()
    const load = startLoad(pair.client.port, 8)
    for (let turn = 1; turn <= 8; turn += 1) {
      const [sent, before] = [load.counts['200'] ?? 0, await secretCount(pair.server, 'update_success')]
      await rotate(pair.agent, turn)
      await until(`rotation ${turn}`, async () => (await secretCount(pair.server, 'update_success')) > before)
      await until('requests after it', () => (load.counts['200'] ?? 0) > sent + 50)
    }
    const counts = await load.stop()
    expect(Object.keys(counts)).toEqual(['200'])
    const [opened] = Object.values(await pair.client.envoy.stats(/^cluster\.api\.upstream_cx_total$/))
    expect(await handshakes(pair.server)).toBe(opened)
    expect(opened).toBeLessThanOrEqual(8)
    expect(await secretCount(pair.server, 'update_rejected')).toBe(0)
  })

  it('pushes to each secret what has changed of it, and nothing else', async () => {
    await using pair = await startPair()
    await rotate(pair.agent, 1)
    await until('the rotation', async () => {
      const counts = await pair.server.envoy.stats(/^sds\..*\.update_success$/)
      return Object.entries(counts).some(([name, count]) => name.includes('server') && count === 2)
    })
    const counts = await pair.server.envoy.stats(/^sds\..*\.update_success$/)
    expect(Object.values(counts).sort()).toEqual([1, 2])
    const attempts = await pair.server.envoy.stats(/^sds\..*\.update_attempt$/)
    expect(Object.values(attempts).sort()).toEqual([2, 3])
  })

  it('begins with the entry: who came too early is not sent away', async () => {
    await using agent = await startDomain(OWN, policyOf({ id: SERVER, uid: 4_000_000 }))
    const { socket } = agent
    await using server = await startMtlsServer({ socket, early: true })
    await until('two waiting', async () => /^holdfast_sds_waiting 2$/m.test(await agent.metrics.render()))
    expect(await server.envoy.admin('/ready')).toContain('INITIALIZING')
    await agent.setPolicy(policyOf({ id: SERVER }))
    await using client = await startMtlsClient({ socket, port: server.port, server: SERVER })
    expect((await ask(client.port)).status).toBe(200)
    expect(await server.envoy.stats(/^cluster\.holdfast\.upstream_rq_total$/)).toEqual({
      'cluster.holdfast.upstream_rq_total': 2,
    })
  })

  it('leaves what Envoy refuses alone until it changes, and traffic goes on', async () => {
    const federated = new Live<FederatedBundles>(new Map())
    const federatesWith = ['b.test']
    const policy = policyOf({ id: SERVER, federatesWith }, { id: CLIENT })
    await using agent = await startDomain(OWN, policy, federated)
    const { socket } = agent
    await using server = await startMtlsServer({ socket, certificate: SERVER })
    await using client = await startMtlsClient({
      socket,
      certificate: CLIENT,
      port: server.port,
      server: SERVER,
    })
    const nacks = async () => /outcome="nack"\} (\d+)/.exec(await agent.metrics.render())?.[1]
    const own = agent.authority.bundle.get()
    federated.set(bundlesOf({ ...own, x509Authorities: [Buffer.from('no certificate')] }))
    await until('both to refuse it', async () => (await nacks()) === '2')
    expect(await secretCount(server, 'update_rejected')).toBe(1)
    expect(await secretCount(client, 'update_rejected')).toBe(1)
    expect((await ask(client.port)).status).toBe(200)
    federated.set(bundlesOf(own))
    await until('the cure', async () => (await server.envoy.admin('/certs')).includes('b.test'))
    expect((await ask(client.port)).status).toBe(200)
    expect(await nacks()).toBe('2')
  })
})

const bundlesOf = (bundle: Bundle): FederatedBundles =>
  new Map([['b.test' as TrustDomain, { ...bundle, trustDomain: 'b.test' as TrustDomain }]])
