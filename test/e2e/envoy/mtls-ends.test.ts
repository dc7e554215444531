/** What happens to real Envoys when trust ends or the agent does: federation, revocation, a restart. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent as HttpAgent } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Live } from '../../../src/base/live.ts'
import type { FederatedBundles } from '../../../src/issue/trusted-bundles.ts'
import type { TrustDomain } from '../../../src/spiffe/id.ts'
import { startAgent, type TestAgent } from '../../support/agent.ts'
import { startBuiltAgent } from '../../support/built-agent.ts'
import { hasEnvoy } from '../../support/envoy.ts'
import { ask, type MtlsEnvoy, startLoad, startMtlsClient, startMtlsServer } from '../../support/envoy-mtls.ts'
import { makeTestCa } from '../../support/tls.ts'
import { until } from '../../support/until.ts'

const UID = process.getuid?.() ?? 0
const SERVER = 'spiffe://a.test/server'
const CLIENT = 'spiffe://b.test/client'
/** Of the trust domain that the CA files of tests are for. */
const PLAIN = 'spiffe://example.org/app'

const policyOf = (id: string, more = '') => ({
  'identity.yaml': `layer: identity
entries:
  - spiffe_id: ${id}
    selectors: [unix:uid:${UID}]
    deliver: { x509: true, jwt: false, wit: false }
${more}`,
})

async function startDomain(trustDomain: string, id: string, more = '') {
  const federated = new Live<FederatedBundles>(new Map())
  const agent = await startAgent({
    policy: policyOf(id, more),
    federated,
    config: (config) => ({ ...config, trustDomain: trustDomain as TrustDomain }),
  })
  return {
    agent,
    trust: (other: TestAgent) => federated.set(bundleMap(other)),
    distrust: () => federated.set(new Map()),
  }
}

function bundleMap({ authority }: TestAgent): FederatedBundles {
  const bundle = authority.bundle.get()
  return new Map([[bundle.trustDomain, bundle]])
}

const countOf = async ({ envoy }: MtlsEnvoy, pattern: RegExp) =>
  Object.values(await envoy.stats(pattern)).reduce((sum, each) => sum + each, 0)

describe.skipIf(!hasEnvoy)('two trust domains', () => {
  it.each([
    ['ALL', '', 200],
    ['ROOTCA', '', 503],
    ['ROOTCA', '    sds: { rootca: all }\n', 200],
  ])('meet where the server verifies by %s %j: %d', async (trust, sds, status) => {
    const one = await startDomain('a.test', SERVER, `    federates_with: [b.test]\n${sds}`)
    const other = await startDomain('b.test', CLIENT, '    federates_with: [a.test]\n')
    await using a = one.agent
    await using b = other.agent
    one.trust(b)
    other.trust(a)
    await using server = await startMtlsServer({ socket: a.socket, trust })
    await using client = await startMtlsClient({ socket: b.socket, port: server.port, server: SERVER })
    expect((await ask(client.port)).status).toBe(status)
  })

  it('part: new handshakes fail at once, and a connection that was open answers on (SDS revokes nothing)', async () => {
    const one = await startDomain('a.test', SERVER, '    federates_with: [b.test]\n')
    const other = await startDomain('b.test', CLIENT, '    federates_with: [a.test]\n')
    await using a = one.agent
    await using b = other.agent
    one.trust(b)
    other.trust(a)
    await using server = await startMtlsServer({ socket: a.socket })
    const at = { socket: b.socket, port: server.port, server: SERVER }
    await using client = await startMtlsClient(at)
    const kept = new HttpAgent({ keepAlive: true, maxSockets: 1 })
    expect((await ask(client.port, kept)).status).toBe(200)
    one.distrust()
    await until('the server to know', async () => !(await server.envoy.admin('/certs')).includes('b.test'))
    await b.setPolicy({ 'identity.yaml': 'layer: identity\nentries: []\n' })
    expect((await ask(client.port, kept)).status).toBe(200)
    expect(await countOf(client, /^cluster\.api\.upstream_cx_total$/)).toBe(1)
    await b.setPolicy(policyOf(CLIENT, '    federates_with: [a.test]\n'))
    await using late = await startMtlsClient(at)
    expect((await ask(late.port)).status).toBe(503)
    expect(await countOf(server, /ssl\.fail_verify_error$/)).toBeGreaterThan(0)
    kept.destroy()
  })
})

describe.skipIf(!hasEnvoy)('an agent that is started again', () => {
  it('costs no request, and new certificates of the same CA come by themselves', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
    try {
      const config = writeConfig(dir)
      const start = () => startBuiltAgent({ dir, args: ['--config', config] })
      let agent = await start()
      const { socket } = agent
      await using server = await startMtlsServer({ socket, trust: 'ROOTCA' })
      await using client = await startMtlsClient({ socket, port: server.port, server: PLAIN })
      const load = startLoad(client.port, 4)
      const serving = (more: number) => until('requests', () => (load.counts['200'] ?? 0) > more)
      try {
        await serving(100)
        await agent.stop()
        await serving((load.counts['200'] ?? 0) + 100)
        const before = await serialOf(client)
        agent = await start()
        await until('new certificates on both sides', async () => (await serialOf(client)) !== before, 40_000)
        await serving((load.counts['200'] ?? 0) + 100)
        // Any that is opened now is shown a certificate of before or of after: both are trusted.
        for (let turn = 0; turn < 20; turn += 1) expect((await ask(client.port)).status).toBe(200)
        expect(Object.keys(await load.stop())).toEqual(['200'])
        expect(await countOf(server, /ssl\.(fail_verify_error|connection_error)$/)).toBe(0)
      } finally {
        await load.stop()
        await agent[Symbol.asyncDispose]()
      }
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  }, 120_000)
})

/** A configuration whose CA outlives the agent: one that is made at start ends with it. */
function writeConfig(dir: string): string {
  const policy = join(dir, 'policy')
  mkdirSync(policy, { mode: 0o755 })
  const { 'identity.yaml': identity } = policyOf(PLAIN)
  writeFileSync(join(policy, 'identity.yaml'), identity)
  const { pem, authority } = makeTestCa('example.org')
  const [certificate, key] = [join(dir, 'ca.pem'), join(dir, 'ca.key')]
  writeFileSync(certificate, pem)
  const keyText = String(authority.pair.privateKey.export({ format: 'pem', type: 'pkcs8' }))
  writeFileSync(key, keyText, { mode: 0o600 })
  const config = join(dir, 'holdfast.yaml')
  writeFileSync(
    config,
    `trust_domain: example.org
policy: { files: [${policy}] }
authority: { ca: { certificate_file: ${certificate}, key_file: ${key} } }
`,
    { mode: 0o600 },
  )
  return config
}

async function serialOf({ envoy }: MtlsEnvoy): Promise<string> {
  const { certificates } = JSON.parse(await envoy.admin('/certs'))
  return certificates.flatMap(({ cert_chain }: { cert_chain: { serial_number: string }[] }) =>
    cert_chain.map(({ serial_number }) => serial_number),
  )[0]
}
