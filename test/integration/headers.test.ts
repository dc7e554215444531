/** Headers and tokens for applications that send requests themselves: a real authorization server, a real target. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import type { Config } from '../../src/config.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { type Answer, call } from '../support/call.ts'
import { makeClient } from '../support/client-key.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'
import { RawClient } from '../support/raw-client.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'

const uid = process.getuid?.() ?? 0
const ID = 'spiffe://dev.holdfast.test/shop'
const OTHER = 'spiffe://dev.holdfast.test/other'
const RESOURCE = 'https://orders.example.org/'
const ca = makeTestCa()

let dir: string
let issuer: TestIssuer
let orders: ResourceServer
let stock: ResourceServer
let held: ResourceServer
let agent: TestAgent

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-headers-'))
  const { client, pem } = makeClient()
  writeFileSync(join(dir, 'client.pem'), pem, { mode: 0o600 })
  writeFileSync(join(dir, 'ca.pem'), ca.pem)
  issuer = await startIssuer({
    ca,
    clients: [client],
    resources: { [RESOURCE]: { scopes: ['orders'] } },
  })
  ;[orders, stock, held] = await Promise.all([
    startResourceServer({ ca }),
    startResourceServer({ ca }),
    startResourceServer({ ca }),
  ])
  agent = await startAgent({ policy: policy(), config: withoutSocket })
})

afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  for (const server of [orders, stock, held]) await server?.[Symbol.asyncDispose]()
  await issuer?.stop()
  rmSync(dir, { recursive: true, force: true })
})

beforeEach(() => {
  for (const server of [orders, stock]) server.nonce = undefined
})

const withoutSocket = (config: Config): Config => ({ ...config, egress: { ...config.egress, socket: 'off' } })

function policy(more: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  const trust = `tls: { trust: { file: ${join(dir, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  const custody = { orders: 'headers', stock: 'token', held: 'nothing' }
  const ports = { orders: orders.port, stock: stock.port, held: held.port }
  const names = ['orders', 'stock', 'held'] as const
  const identity = names.map(
    (name) =>
      `  - { name: ${name}, server: login, resource: '${RESOURCE}', scopes: [orders], custody: ${custody[name]}, max_ttl: 5m }\n`,
  )
  const platform = names.map(
    (name) => `  - { name: ${name}, origins: ['https://localhost:${ports[name]}'], ${trust} }\n`,
  )
  const application = names.map(
    (name) =>
      `  - { name: ${name}, grants: [{ callers: [${ID}], methods: [GET, POST], paths: [/v1/**] }] }\n`,
  )
  return {
    'identity.yaml': `layer: identity
servers:
  - name: login
    issuer: ${issuer.issuer}
    client: { id: shop, auth: private_key_jwt, key: { file: ${join(dir, 'client.pem')} } }
entries:
  - { name: shop, spiffe_id: ${ID}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false } }
  - { name: other, spiffe_id: ${OTHER}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false } }
targets:
${identity.join('')}`,
    'platform.yaml': `layer: platform\ntargets:\n${platform.join('')}servers:\n  - { issuer: ${issuer.issuer}, ${trust} }\n`,
    'application.yaml': `layer: application\ntargets:\n${application.join('')}`,
    ...more,
  }
}

const urlOf = ({ port }: ResourceServer, path = '/v1/items') => `https://localhost:${port}${path}`
const post = (path: string, body: object): Promise<Answer> => call(agent.socket, 'POST', path, { body })
const headersFor = (url: string, method = 'GET') => post('/v1/headers', { method, url })

interface Got {
  readonly status: number
  readonly report: {
    readonly status: number
    readonly dpop_nonce?: string
    readonly www_authenticate?: string
  }
}

/** Sends as the application would, with its own TLS. */
function send(url: string, headers: Readonly<Record<string, string>>, method = 'GET'): Promise<Got> {
  return new Promise((resolve, reject) => {
    request(url, { method, headers, ca: ca.pem, agent: false }, (response) => {
      response.resume()
      const { statusCode: status = 0, headers: got } = response
      const nonce = got['dpop-nonce']
      const challenge = got['www-authenticate']
      const report = {
        status,
        ...(typeof nonce === 'string' ? { dpop_nonce: nonce } : {}),
        ...(challenge ? { www_authenticate: challenge } : {}),
      }
      resolve({ status, report })
    })
      .on('error', reject)
      .end()
  })
}

describe('the headers of one request', () => {
  it('are taken by the target, with the egress socket off', async () => {
    const { status, body } = await headersFor(urlOf(orders))
    expect(status).toBe(200)
    expect(Object.keys(body)).toEqual(['headers', 'jkt', 'expires', 'token_expires'])
    expect(Object.keys(body.headers)).toEqual(['authorization', 'dpop'])
    const proof = parseJws(body.headers.dpop)?.payload
    expect(body.expires).toBe(Number(proof?.['iat']) + 60)
    const token = parseJws(body.headers.authorization.replace('DPoP ', ''))?.payload
    expect(token).toMatchObject({ aud: RESOURCE, scope: 'orders', cnf: { jkt: body.jkt } })
    expect((await send(urlOf(orders), body.headers)).status).toBe(200)
  })

  it('serve no second request, no other method and no other path', async () => {
    const { headers } = (await headersFor(urlOf(orders))).body
    expect((await send(urlOf(orders), headers, 'POST')).status).toBe(401)
    expect((await send(urlOf(orders, '/v1/other'), headers)).status).toBe(401)
    expect((await send(urlOf(orders), headers)).status).toBe(200)
    expect((await send(urlOf(orders), headers)).status).toBe(401)
  })

  it('come over gRPC too, with the nonce loop', async () => {
    orders.nonce = 'over-grpc'
    using client = new RawClient(agent.socket)
    const service = 'holdfast.v1.ProofService'
    const ask = () =>
      client.unary(`${service}/RequestHeaders`, { method: 'GET', url: urlOf(orders, '/v1/grpc') })
    const headersIn = (message: object) => (message as { headers: Record<string, string> }).headers
    const first = await send(urlOf(orders, '/v1/grpc'), headersIn(await ask()))
    expect(first.status).toBe(401)
    const told = { url: urlOf(orders, '/v1/grpc'), ...first.report }
    expect(await client.unary(`${service}/ReportResponse`, told)).toMatchObject({ retry: true })
    expect((await send(urlOf(orders, '/v1/grpc'), headersIn(await ask()))).status).toBe(200)
  })

  it('are on record before they leave, and no record holds them', async () => {
    const { headers, jkt } = (await headersFor(urlOf(orders))).body
    expect(agent.records.at(-1)).toMatchObject({
      event: 'sign.headers',
      allowed: true,
      spiffe_id: ID,
      target: 'orders',
      method: 'GET',
      path: '/v1/**',
      jkt,
      jti: parseJws(headers.dpop)?.payload['jti'],
      token: parseJws(headers.dpop)?.payload['ath']?.toString().slice(0, 16),
    })
    const records = JSON.stringify(agent.records)
    expect([headers.dpop, headers.authorization].filter((text) => records.includes(text))).toEqual([])
  })

  it.each([
    ['custody nothing', () => ({ url: urlOf(held) }), 403, 'custody_denied', 'held'],
    ['another path', () => ({ url: urlOf(orders, '/v2') }), 403, 'policy_denied', 'orders'],
    ['another method', () => ({ method: 'PUT' }), 403, 'policy_denied', 'orders'],
    ['another identity', () => ({ spiffe_id: OTHER }), 403, 'policy_denied', 'orders'],
    [
      'an unknown origin',
      () => ({ url: 'https://elsewhere.example.test/' }),
      403,
      'target_unknown',
      undefined,
    ],
    ['the authorization server', () => ({ url: `${issuer.issuer}/token` }), 403, 'target_unknown', undefined],
  ])('are refused for %s, which is on record', async (_what, over, status, reason, target) => {
    const answer = await post('/v1/headers', { method: 'GET', url: urlOf(orders), ...over() })
    expect([answer.status, answer.body.error.reason]).toEqual([status, reason])
    expect(agent.records.at(-1)).toMatchObject({ event: 'sign.headers', allowed: false, reason })
    expect(agent.records.at(-1)?.target).toBe(target)
  })

  it('end with the revocation of the target, of the identity and of the key', async () => {
    const { jkt } = (await headersFor(urlOf(orders))).body
    for (const ask of [{ target: 'orders' }, { spiffe_id: ID }, { jkt }]) {
      await call(agent.adminSocket, 'POST', '/v1/revoke', { body: ask })
      const { body } = await post('/v1/headers', { method: 'GET', url: urlOf(orders), spiffe_id: ID })
      if ('jkt' in ask) expect([body.jkt === jkt, body.error?.reason]).toEqual([false, undefined])
      else expect(body.error?.reason).toBe('spiffe_id' in ask ? 'no_identity' : 'revoked')
      await call(agent.adminSocket, 'POST', '/v1/lift', { body: ask })
    }
    expect((await headersFor(urlOf(orders))).status).toBe(200)
  })
})

describe('the report of an answer', () => {
  it('asks for one more try with the nonce, and for one only', async () => {
    const url = urlOf(orders, '/v1/nonce')
    orders.nonce = 'one'
    const first = await send(url, (await headersFor(url)).body.headers)
    expect((await post('/v1/responses', { url, ...first.report })).body).toEqual({ retry: true })
    orders.nonce = 'two'
    const second = await send(url, (await headersFor(url)).body.headers)
    expect(second.status).toBe(401)
    expect((await post('/v1/responses', { url, ...second.report })).body).toEqual({ retry: false })
    expect((await send(url, (await headersFor(url)).body.headers)).status).toBe(200)
  })

  it('teaches nothing about a URL that was not just signed for', async () => {
    const url = urlOf(orders, '/v1/planted')
    const told = { url, status: 401, dpop_nonce: 'planted', www_authenticate: 'DPoP error="use_dpop_nonce"' }
    expect((await post('/v1/responses', told)).body).toEqual({ retry: false })
    const { headers } = (await headersFor(url)).body
    expect(parseJws(headers.dpop)?.payload['nonce']).not.toBe('planted')
  })

  it('teaches the nonce of one origin to no other', async () => {
    const url = urlOf(orders, '/v1/own')
    await headersFor(url)
    await post('/v1/responses', { url, status: 200, dpop_nonce: 'of-orders' })
    const nonceAt = async (at: string) => parseJws((await headersFor(at)).body.headers.dpop)?.payload['nonce']
    expect(await nonceAt(url)).toBe('of-orders')
    expect(await nonceAt(urlOf(stock))).not.toBe('of-orders')
  })

  it('gives a refused token up, at most once a minute', async () => {
    const url = urlOf(orders, '/v1/refused')
    const tokens = new Set<string>()
    for (let round = 0; round < 4; round += 1) {
      tokens.add((await headersFor(url)).body.headers.authorization)
      const told = { url, status: 401, www_authenticate: 'DPoP error="invalid_token"' }
      expect((await post('/v1/responses', told)).body).toEqual({ retry: false })
    }
    expect(tokens.size).toBe(2)
  })

  it.each([
    ['a nonce of 257 characters', { dpop_nonce: 'n'.repeat(257) }],
    ['a nonce with a line break', { dpop_nonce: 'a\r\nb' }],
    ['a status of no HTTP', { status: 1000 }],
    ['a challenge with a line break', { www_authenticate: 'DPoP\r\nx: y' }],
    ['a challenge without end', { www_authenticate: 'x'.repeat(4097) }],
    ['an unknown member', { nonce: 'n' }],
  ])('is refused with %s', async (_what, over) => {
    const { status, body } = await post('/v1/responses', { url: urlOf(orders), status: 401, ...over })
    expect([status, body.error.reason]).toEqual([400, 'invalid_request'])
  })
})

describe('the token', () => {
  it.each([
    ['a URL', () => ({ url: urlOf(stock) })],
    ['the name of the target', () => ({ target: 'stock' })],
  ])('is released at custody token for %s, and is of use only with proofs', async (_what, place) => {
    const { status, body } = await post('/v1/token', place())
    expect(status).toBe(200)
    const { token, token_type, jkt, expires } = body
    expect(token_type).toBe('DPoP')
    expect(parseJws(token)?.payload).toMatchObject({ aud: RESOURCE, cnf: { jkt } })
    expect(expires).toBeLessThanOrEqual(Number(parseJws(token)?.payload['exp']))
    expect((await send(urlOf(stock), { authorization: `Bearer ${token}` })).status).toBe(401)
    const signed = await post('/v1/dpop', { method: 'GET', url: urlOf(stock), access_token: token })
    const headers = { authorization: `DPoP ${token}`, dpop: signed.body.proof }
    expect((await send(urlOf(stock), headers)).status).toBe(200)
  })

  it('is on record before it leaves, by its hash', async () => {
    const { token, jkt } = (await post('/v1/token', { target: 'stock' })).body
    expect(agent.records.at(-1)).toMatchObject({
      event: 'token.release',
      allowed: true,
      target: 'stock',
      jkt,
    })
    expect(JSON.stringify(agent.records)).not.toContain(token)
  })

  it.each([
    ['custody headers', () => ({ target: 'orders' }), 403, 'custody_denied'],
    ['custody headers, by URL', () => ({ url: urlOf(orders) }), 403, 'custody_denied'],
    ['custody nothing', () => ({ target: 'held' }), 403, 'custody_denied'],
    ['a path of no grant', () => ({ url: urlOf(stock, '/v2') }), 403, 'policy_denied'],
    ['an identity of no grant', () => ({ target: 'stock', spiffe_id: OTHER }), 403, 'policy_denied'],
    ['an unknown target', () => ({ target: 'elsewhere' }), 403, 'target_unknown'],
    ['an unknown origin', () => ({ url: 'https://elsewhere.example.test/' }), 403, 'target_unknown'],
    ['a URL and a name', () => ({ target: 'stock', url: urlOf(stock) }), 400, 'invalid_request'],
    ['neither', () => ({}), 400, 'invalid_request'],
  ])('is refused for %s', async (_what, place, status, reason) => {
    const answer = await post('/v1/token', place())
    expect([answer.status, answer.body.error.reason]).toEqual([status, reason])
  })
})

describe('an audit log that cannot be written', () => {
  it.each([
    ['/v1/headers', () => ({ method: 'GET', url: urlOf(orders) })],
    ['/v1/token', () => ({ target: 'stock' })],
  ])('keeps the answer of %s back', async (path, body) => {
    const settle = vi.spyOn(agent.audit, 'settle').mockRejectedValueOnce(new Fault('audit_unavailable'))
    const answer = await post(path, body())
    settle.mockRestore()
    expect(answer.body).toEqual({ error: expect.objectContaining({ reason: 'audit_unavailable' }) })
  })
})

describe('mode: observe', () => {
  it('lets headers through that no rule foresees, but nothing past custody, and never a token', async () => {
    const observe = 'layer: security\nobserve: { approver: sec@example.test, until: 2999-01-01 }\n'
    await using observed = await startAgent({ policy: policy({ 'security.yaml': observe }) })
    const ask = async (path: string, body: object) => {
      const answer = await call(observed.socket, 'POST', path, { body })
      return answer.body.error?.reason ?? answer.status
    }
    const headers = (url: string) => ask('/v1/headers', { method: 'GET', url })
    expect(await headers(urlOf(orders, '/v2'))).toBe(200)
    expect(observed.records.at(-1)).toMatchObject({ event: 'sign.headers', observed: 'policy_denied' })
    expect(await headers(urlOf(held, '/v2'))).toBe('policy_denied')
    expect(await ask('/v1/token', { url: urlOf(stock, '/v2') })).toBe('policy_denied')
  })
})
