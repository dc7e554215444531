/** A client registered at a real authorization server with what `holdfast client register-info` prints, and nothing else. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { Fault } from '../../src/base/fault.ts'
import { registerInfo } from '../../src/cli/client.ts'
import { exitCodeOf } from '../../src/cli/failure.ts'
import type { ClientRegistration } from '../../src/operate/client-registration.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { ManualClock } from '../support/clock.ts'
import { keptIo } from '../support/io.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'
import { makeTestCa } from '../support/tls.ts'

// Real time goes on while the test's stands still, which is what a machine that slept looks like: keys would be replaced.
vi.mock('../../src/base/suspend.ts', () => ({ watchSuspend: () => () => {} }))

const ID = 'spiffe://dev.holdfast.test/shop'
const RESOURCE = 'https://orders.example.org/'
const uid = process.getuid?.() ?? 0
const ca = makeTestCa()
const closing: (() => unknown)[] = []

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-register-'))
  writeFileSync(join(dir, 'ca.pem'), ca.pem)
  closing.push(() => rmSync(dir, { recursive: true, force: true }))
})
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
  vi.useRealTimers()
})

interface Started {
  readonly agent: TestAgent
  readonly clock: Clock
  readonly issuer: string
}

/** An agent whose time, and with it everybody's, moves when told to. */
async function start(
  client: string,
  listen = true,
  clock: Clock = new ManualClock(Date.now()),
): Promise<Started> {
  const probe = await startIssuer({ ca, clients: [] })
  const { issuer } = probe
  await probe.stop()
  const agent = await startAgent({
    clock,
    policy: policy(issuer, client),
    config: (config) => ({
      ...config,
      bundleEndpoint: {
        ...config.bundleEndpoint,
        listen: listen ? { host: '127.0.0.1', port: 0 } : undefined,
      },
    }),
  })
  closing.push(() => agent[Symbol.asyncDispose]())
  return { agent, clock, issuer }
}

function policy(issuer: string, client: string): Readonly<Record<string, string>> {
  const trust = `tls: { trust: { file: ${join(dir, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  return {
    'identity.yaml': `layer: identity
servers:
  - { name: login/main, issuer: ${issuer}, client: ${client} }
entries:
  - { name: shop, spiffe_id: ${ID}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false }, instance: identity }
targets:
  - { name: orders, server: login/main, resource: '${RESOURCE}', scopes: [orders], custody: token, max_ttl: 5m }
  - { name: stock, server: login/main, resource: '${RESOURCE}', scopes: [orders], custody: token, max_ttl: 5m }
`,
    'platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['https://orders.example.org'] }
  - { name: stock, origins: ['https://stock.example.org'] }
servers:
  - { issuer: ${issuer}, ${trust} }
`,
    'application.yaml': `layer: application
targets:
  - { name: orders, grants: [{ callers: [${ID}], methods: [GET], paths: [/v1/**] }] }
  - { name: stock, grants: [{ callers: [${ID}], methods: [GET], paths: [/v1/**] }] }
`,
  }
}

async function printed({ agent }: Started): Promise<ClientRegistration> {
  const io = keptIo()
  await registerInfo('login/main', { dir: agent.dir, output: 'json' }, io)
  return JSON.parse(io.written.out)
}

/** The server of `started`, which knows of its clients what was printed. */
async function serverFor(started: Started, format: 'jwt' | 'opaque' = 'jwt', roots: readonly string[] = []) {
  const { clients } = await printed(started)
  const issuer = await startIssuer({
    ca,
    port: Number(new URL(started.issuer).port),
    clients: clients.map((metadata) => ({ clientId: metadata.client_id, metadata })),
    resources: { [RESOURCE]: { scopes: ['orders'], format } },
    clientRoots: roots,
  })
  closing.push(() => issuer.stop())
  return issuer
}

/** Its token, or why there is none. */
async function token({ agent }: Started, target = 'orders'): Promise<string> {
  const { body } = await call(agent.socket, 'POST', '/v1/token', { body: { target } })
  return body.token ?? `${body.error.reason}: ${body.error.message}`
}

function age({ clock }: Started, seconds: number): void {
  if (!(clock instanceof ManualClock)) throw new Error('time is not to be moved')
  clock.advance(seconds * 1000)
  vi.setSystemTime(clock.now())
}

function jump({ clock }: Started, seconds: number): void {
  if (!(clock instanceof ManualClock)) throw new Error('time is not to be moved')
  clock.jump(seconds * 1000)
  vi.setSystemTime(clock.now())
}

const claimsOf = (text: string) => parseJws(text)?.payload
const statuses = ({ requests }: TestIssuer) =>
  requests.filter(({ path }) => path === '/token').map(({ status }) => status)

describe('a client with the key of the node', () => {
  const NODE = '{ id: shop-client, auth: private_key_jwt, key: node }'

  it('gets tokens as registered, before and after its key is replaced, though the server keeps a copy of the JWKS', async () => {
    const started = await start(NODE)
    vi.useFakeTimers({ toFake: ['Date'], now: started.clock.now() })
    const [{ jwks_uri: uri = '' } = {}] = (await printed(started)).clients
    const kids = async () =>
      ((await (await fetch(uri)).json()) as { keys: { kid: string }[] }).keys.map(({ kid }) => kid)
    const [first] = await kids()
    age(started, 3_590)
    const issuer = await serverFor(started)
    expect(claimsOf(await token(started))).toMatchObject({ client_id: 'shop-client', aud: RESOURCE })
    // The server keeps the JWKS of ten seconds before the change.
    age(started, 15)
    expect(claimsOf(await token(started, 'stock'))).toMatchObject({ client_id: 'shop-client' })
    const [, next] = await kids()
    // The wall clock alone: a renewal must not start and run out of time within one step.
    jump(started, 600)
    expect(claimsOf(await token(started))).toMatchObject({ client_id: 'shop-client' })
    expect([await kids(), first]).toEqual([[next], expect.not.stringMatching(String(next))])
    expect(statuses(issuer).filter((status) => status === 200)).toHaveLength(3)
    expect(statuses(issuer)).not.toContain(401)
  })

  it('is registered with a JWKS to fetch, never with keys', async () => {
    const started = await start(NODE)
    const found = await printed(started)
    expect(found).toMatchObject({ server: 'login/main', issuer: started.issuer })
    expect(found.clients).toEqual([
      {
        client_id: 'shop-client',
        token_endpoint_auth_method: 'private_key_jwt',
        token_endpoint_auth_signing_alg: 'ES256',
        jwks_uri: `http://127.0.0.1:${started.agent.daemon.endpointPort}/clients/login%2Fmain/jwks.json`,
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
        scope: 'orders',
        dpop_bound_access_tokens: true,
        tls_client_certificate_bound_access_tokens: false,
      },
    ])
  })

  it('is not registered while nobody can fetch its key, and the cure is said', async () => {
    const started = await start(NODE, false)
    const fault = Fault.from(await printed(started).catch((caught: unknown) => caught))
    expect([fault.reason, exitCodeOf(fault)]).toEqual(['config_invalid', 2])
    expect(fault.message).toContain('the key of client shop-client ends with the agent')
    expect(fault.action).toMatch(/Set bundle_endpoint\.listen.*tls_client_auth.*key: \{ file: PATH \}/)
  })

  it('gives its token back when the agent stops', async () => {
    const started = await start(NODE, true, systemClock)
    const issuer = await serverFor(started, 'opaque')
    const held = await token(started)
    expect(await issuer.isLive(held)).toBe(true)
    await started.agent.daemon.stop(3_000)
    expect(await issuer.isLive(held)).toBe(false)
  })

  it('is found in the endpoint only while policy names it', async () => {
    const started = await start(NODE)
    const [{ jwks_uri: uri = '' } = {}] = (await printed(started)).clients
    expect((await fetch(uri)).status).toBe(200)
    await started.agent.setPolicy(policy(started.issuer, '{ auth: tls_client_auth }'))
    expect((await fetch(uri)).status).toBe(404)
  })
})

describe('a client that shows an X.509-SVID', () => {
  it('gets a token as registered, by its SPIFFE ID', async () => {
    const started = await start('{ auth: tls_client_auth }')
    const endpoint = await fetch(`http://127.0.0.1:${started.agent.daemon.endpointPort}/`)
    const { keys } = (await endpoint.json()) as { keys: { x5c?: string[] }[] }
    const roots = keys.flatMap(({ x5c = [] }) => x5c.map((der) => pemOf(der)))
    await serverFor(started, 'jwt', roots)
    expect(claimsOf(await token(started))).toMatchObject({ client_id: ID })
  })
})

const pemOf = (der: string) =>
  `-----BEGIN CERTIFICATE-----\n${der.replace(/(.{64})/g, '$1\n')}\n-----END CERTIFICATE-----\n`
