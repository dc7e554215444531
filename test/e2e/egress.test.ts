/**
 * The whole of it with real parts: the built agent, a real authorization server, a resource server that demands
 * nonces, TLS throughout, and callers that hold neither key nor token.
 */
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadServices } from '../../src/client/grpc.ts'
import { type BuiltAgent, shownByKernel, startBuiltAgent } from '../support/built-agent.ts'
import { call } from '../support/call.ts'
import { makeClient } from '../support/client-key.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'
import { startPeer } from '../support/peer.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa, type TestCa } from '../support/tls.ts'

const ID = 'spiffe://example.org/shop'
const RESOURCE = 'https://orders.example.org/'
const uid = process.getuid?.() ?? 0

let folder: string
let ca: TestCa
let issuer: TestIssuer
let orders: ResourceServer
let agent: BuiltAgent
let egress: string

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-e2e-'))
  ca = makeTestCa()
  const { client, pem } = makeClient()
  issuer = await startIssuer({
    ca,
    nonces: true,
    clients: [client],
    resources: { [RESOURCE]: { scopes: ['orders'], format: 'jwt', ttlSeconds: 120 } },
  })
  orders = await startResourceServer({ ca })
  orders.nonce = 'first-nonce'
  write('client.pem', pem, 0o600)
  write('ca.pem', ca.pem)
  mkdirSync(join(folder, 'policy'), { mode: 0o755 })
  for (const [name, text] of Object.entries(policy())) write(join('policy', name), text)
  write(
    'holdfast.yaml',
    'trust_domain: example.org\npolicy: { files: [policy] }\negress: { socket: on }\nwit: on\n',
  )
  agent = await startBuiltAgent({ args: ['--config', join(folder, 'holdfast.yaml')] })
  egress = join(agent.dir, 'public', 'egress.sock')
}, 60_000)

afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await orders?.[Symbol.asyncDispose]()
  await issuer?.stop()
  rmSync(folder, { recursive: true, force: true })
})

function write(name: string, text: string, mode = 0o644): void {
  writeFileSync(join(folder, name), text, { mode })
}

function policy(): Readonly<Record<string, string>> {
  const trust = `tls: { trust: { file: ${join(folder, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  return {
    'identity.yaml': `layer: identity
servers:
  - name: login
    issuer: ${issuer.issuer}
    client: { id: shop, auth: private_key_jwt, key: { file: ${join(folder, 'client.pem')} } }
entries:
  - name: shop
    spiffe_id: ${ID}
    selectors: ['unix:uid:${uid}']
    deliver: { x509: false, jwt: true, wit: true }
targets:
  - { name: orders, server: login, resource: '${RESOURCE}', scopes: [orders], custody: nothing, max_ttl: 5m }
`,
    'platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['https://localhost:${orders.port}'], ${trust} }
servers:
  - { issuer: ${issuer.issuer}, ${trust} }
`,
    'application.yaml': `layer: application
targets:
  - { name: orders, grants: [{ callers: [${ID}], methods: [GET, POST], paths: [/v1/**] }] }
`,
  }
}

const run = promisify(execFile)

/** What curl prints of the body, and the status. Not waited for in place: the servers live in this process. */
async function curl(...args: readonly string[]): Promise<readonly [body: string, status: string]> {
  const fixed = ['-sS', '--max-time', '10', '-w', '\\n%{http_code}', '--unix-socket', egress]
  const { stdout } = await run('curl', [...fixed, ...args])
  const [body = '', status = ''] = stdout.split('\n')
  return [body, status]
}

/** The token as the resource server saw it: what a thief would take from its log. */
function stolen(): string {
  const [, token] = /^authorization: DPoP (\S+)/im.exec(orders.bytes) ?? []
  return token ?? ''
}

/** Sends a request as a thief would: directly, without the agent. */
function asThief(headers: Readonly<Record<string, string>>): Promise<number> {
  return new Promise((resolve, reject) => {
    request({ host: 'localhost', port: orders.port, path: '/v1/items', ca: ca.pem, headers }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
      .on('error', reject)
      .end()
  })
}

describe('a request through the egress door', () => {
  it('arrives with a token and a proof that its sender never had, over two nonce challenges', async () => {
    const [body, status] = await curl('http://orders/v1/items')
    expect([status, body]).toEqual(['200', expect.stringContaining('"jkt"')])
    expect(issuer.requests.some(({ path, status: code }) => path === '/token' && code === 400)).toBe(true)
    expect(orders.refused.length).toBeGreaterThan(0)
    expect(stolen()).toMatch(/^eyJ/)
  })

  it('carries a body', async () => {
    const [, status] = await curl('-d', 'x'.repeat(1000), 'http://orders/v1/items')
    expect(status).toBe('200')
  })

  it.each([
    ['another path', 'http://orders/v2/items', '403', 'policy_denied'],
    ['an unknown target', 'http://elsewhere/v1/items', '403', 'target_unknown'],
  ])('to %s is refused with its reason', async (_what, url, status, reason) => {
    const [body, code] = await curl(url)
    expect([code, JSON.parse(body).error.reason]).toEqual([status, reason])
  })
})

describe('the stolen token', () => {
  it.each([
    ['as a bearer token', () => ({ authorization: `Bearer ${stolen()}` })],
    ['without a proof', () => ({ authorization: `DPoP ${stolen()}` })],
    [
      'with the proof of the request it was stolen from',
      () => {
        const [, proof = ''] = /^dpop: (\S+)/im.exec(orders.bytes) ?? []
        return { authorization: `DPoP ${stolen()}`, dpop: proof }
      },
    ],
  ])('is useless %s', async (_how, headers) => {
    expect(await asThief(headers())).toBe(401)
  })
})

describe('custody nothing', () => {
  it.each([
    ['/v1/dpop', { method: 'GET' }, 'custody_denied'],
    ['/v1/wpt', {}, 'policy_denied'],
    ['/v1/headers', { method: 'GET' }, 'custody_denied'],
    ['/v1/token', {}, 'custody_denied'],
  ])('gives nothing at %s', async (path, members, reason) => {
    const url = `https://localhost:${orders.port}/v1/items`
    const { status, body } = await call(agent.socket, 'POST', path, { body: { url, ...members } })
    expect([status, body.error.reason]).toEqual([403, reason])
  })

  it('gives no JWT-SVID that the authorization server would take', async () => {
    const connection = loadServices()(agent.socket)
    const asked = connection.unary(
      'SpiffeWorkloadAPI/FetchJWTSVID',
      { audience: [issuer.issuer] },
      { timeout: 5_000 },
    )
    await expect(asked).rejects.toMatchObject({ fault: { reason: 'audience_reserved' } })
    connection.close()
  })

  it('leaves nothing behind: no token, proof or key in the caller, the log, the audit log or a file', async () => {
    await using peer = await startPeer(egress)
    const answer = await peer.call('GET', '/v1/items')
    expect(answer.body.error.reason).toBe('target_unknown')
    const texts = [
      agent.output(),
      shownByKernel(agent.pid),
      shownByKernel(peer.pid),
      ...filesBelow(agent.dir).map((file) => readFileSync(file, 'latin1')),
    ]
    const secrets = [
      stolen(),
      ...[...orders.bytes.matchAll(/^dpop: (\S+)/gim)].map(([, proof = '']) => proof),
    ]
    expect(secrets.length).toBeGreaterThan(2)
    expect(secrets.filter((secret) => texts.some((text) => text.includes(secret)))).toEqual([])
  })
})

describe('revocation', () => {
  it('of the target ends it for everybody at once', async () => {
    const ask = (path: string) => call(agent.adminSocket, 'POST', path, { body: { target: 'orders' } })
    await ask('/v1/revoke')
    const [body, status] = await curl('http://orders/v1/items')
    expect([status, JSON.parse(body).error.reason]).toEqual(['403', 'revoked'])
    await ask('/v1/lift')
    expect((await curl('http://orders/v1/items'))[1]).toBe('200')
  })
})

function filesBelow(dir: string): readonly string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .map((name) => join(dir, name))
    .filter((path) => statSync(path).isFile())
}
