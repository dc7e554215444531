/** The parts of the demo, all real and on loopback: an authorization server, two resource servers, the built agent. */
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type PublicJwk, publicJwkOf, thumbprint } from '../../src/spiffe/jwk.ts'
import { type BuiltAgent, startBuiltAgent } from '../support/built-agent.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa, type TestCa } from '../support/tls.ts'
import { type CarelessServer, startCareless } from './careless.ts'

const ID = 'spiffe://example.org/shop'
const RESOURCE = 'https://orders.example.org/'

export interface Parts extends AsyncDisposable {
  readonly ca: TestCa
  readonly issuer: TestIssuer
  /** Checks the proof of each request. */
  readonly careful: ResourceServer
  /** Takes a token from anybody. */
  readonly careless: CarelessServer
  readonly agent: BuiltAgent
  /** The agent's egress socket. */
  readonly egress: string
}

/** Starts all; what has started ends when a later one does not start. */
export async function startParts(): Promise<Parts> {
  const ends: (() => unknown)[] = []
  const stop = async () => {
    for (const end of ends.splice(0).reverse()) await end()
  }
  try {
    return { ...(await startAll((end) => ends.push(end))), [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function startAll(atEnd: (end: () => unknown) => void): Promise<Omit<Parts, keyof AsyncDisposable>> {
  const started = <T extends AsyncDisposable>(part: T): T => {
    atEnd(() => part[Symbol.asyncDispose]())
    return part
  }
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-demo-'))
  atEnd(() => rmSync(folder, { recursive: true, force: true }))
  const ca = makeTestCa()
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const issuer = await quietly(() => startLogin(ca, publicJwkOf(createPublicKey(privateKey))))
  atEnd(() => issuer.stop())
  const careful = started(await startResourceServer({ ca }))
  const careless = started(await startCareless({ ca, issuer: issuer.issuer, audience: RESOURCE }))
  const key = String(privateKey.export({ format: 'pem', type: 'pkcs8' }))
  const files = { 'client.pem': key, 'ca.pem': ca.pem, ...policyFiles(folder, issuer.issuer, careful.port) }
  mkdirSync(join(folder, 'policy'), { mode: 0o755 })
  for (const [name, text] of Object.entries(files))
    writeFileSync(join(folder, name), text, { mode: name === 'client.pem' ? 0o600 : 0o644 })
  const agent = started(await startBuiltAgent({ args: ['--config', join(folder, 'holdfast.yaml')] }))
  return { ca, issuer, careful, careless, agent, egress: join(agent.dir, 'public', 'egress.sock') }
}

function startLogin(ca: TestCa, jwk: PublicJwk): Promise<TestIssuer> {
  return startIssuer({
    ca,
    nonces: true,
    clients: [{ clientId: 'shop', jwks: [{ ...jwk, kid: thumbprint(jwk) }], scopes: ['orders'] }],
    resources: { [RESOURCE]: { scopes: ['orders'], format: 'jwt', ttlSeconds: 120 } },
  })
}

/** Without what oidc-provider says of development set-ups: this is one. */
export async function quietly<T>(work: () => Promise<T>): Promise<T> {
  const { info, warn } = console
  Object.assign(console, { info: () => {}, warn: () => {} })
  try {
    return await work()
  } finally {
    Object.assign(console, { info, warn })
  }
}

function policyFiles(folder: string, issuer: string, port: number): Readonly<Record<string, string>> {
  const trust = `tls: { trust: { file: ${join(folder, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  return {
    'holdfast.yaml': 'trust_domain: example.org\npolicy: { files: [policy] }\negress: { socket: on }\n',
    'policy/identity.yaml': `layer: identity
servers:
  - name: login
    issuer: ${issuer}
    client: { id: shop, auth: private_key_jwt, key: { file: ${join(folder, 'client.pem')} } }
entries:
  - name: shop
    spiffe_id: ${ID}
    selectors: ['unix:uid:${process.getuid?.() ?? 0}']
    deliver: { x509: false, jwt: false, wit: false }
targets:
  - { name: orders, server: login, resource: '${RESOURCE}', scopes: [orders], custody: nothing, max_ttl: 5m }
`,
    'policy/platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['https://localhost:${port}'], ${trust} }
servers:
  - { issuer: ${issuer}, ${trust} }
`,
    'policy/application.yaml': `layer: application
targets:
  - { name: orders, grants: [{ callers: [${ID}], methods: [GET], paths: [/v1/**] }] }
`,
  }
}
