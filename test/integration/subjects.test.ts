/** On somebody's behalf: tokens handed in, handles on every door, a real authorization server, and nobody mixed up. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseJws } from '../../src/spiffe/jws.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { type Answer, call } from '../support/call.ts'
import { ecPair } from '../support/certificates.ts'
import { makeClient } from '../support/client-key.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'
import { RawClient } from '../support/raw-client.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { signToken } from '../support/tokens.ts'

const uid = process.getuid?.() ?? 0
const SHOP = 'spiffe://dev.holdfast.test/shop'
const OTHER = 'spiffe://dev.holdfast.test/other'
const RESOURCE = 'https://orders.example.org/'
const HOME = 'https://login.example.org'
const TXN = 'txnCanaryA1b2.C3d4.E5f6'
const home = ecPair()
const ca = makeTestCa()
const SERVICE = 'holdfast.v1.ProofService'

let dir: string
let issuer: TestIssuer
let server: ResourceServer
let agent: TestAgent
let egress: string

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-subjects-'))
  const { client, pem } = makeClient()
  writeFileSync(join(dir, 'client.pem'), pem, {
    mode: 0o600,
  })
  writeFileSync(join(dir, 'ca.pem'), ca.pem)
  issuer = await startIssuer({
    ca,
    clients: [client],
    resources: { [RESOURCE]: { scopes: ['orders'] } },
    exchange: { subjects: { [HOME]: home.publicKey } },
  })
  server = await startResourceServer({
    ca,
    handlers: {
      // Answers come in another order than requests.
      '/v1/who': (request, response, proved) => {
        const answer = JSON.stringify({ ...proved, asked: request.headers['x-asked'] })
        setTimeout(() => response.writeHead(200).end(answer), Number(request.headers['x-wait']))
      },
    },
  })
  agent = await startAgent({ policy: policy() })
  egress = join(agent.dir, 'public', 'egress.sock')
})

afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await issuer?.stop()
  rmSync(dir, { recursive: true, force: true })
})

const TARGETS = {
  orders: 'custody: token, txn_token: true, exchange: { subjects: [RULE] }',
  either: 'custody: token, exchange: { subjects: [RULE], subject: optional }',
  own: 'custody: token',
} as const

function policy(): Readonly<Record<string, string>> {
  const trust = `tls: { trust: { file: ${join(dir, 'ca.pem')} } }, addresses: [127.0.0.1, '::1']`
  const names = Object.keys(TARGETS) as (keyof typeof TARGETS)[]
  const entry = (name: string, id: string) =>
    `  - { name: ${name}, spiffe_id: ${id}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false } }\n`
  const identity = names.map(
    (name) =>
      `  - { name: ${name}, server: login, resource: '${RESOURCE}', scopes: [orders], max_ttl: 5m, ${TARGETS[name].replace('RULE', `'${HOME}'`)} }\n`,
  )
  const platform = names.map(
    (name) => `  - { name: ${name}, origins: ['https://localhost:${server.port}'], ${trust} }\n`,
  )
  const application = names.map(
    (name) =>
      `  - { name: ${name}, grants: [{ callers: [${SHOP}, ${OTHER}], methods: [GET], paths: [/v1/**] }] }\n`,
  )
  return {
    'identity.yaml': `layer: identity
servers:
  - name: login
    issuer: ${issuer.issuer}
    client: { id: shop, auth: private_key_jwt, key: { file: ${join(dir, 'client.pem')} } }
entries:
${entry('shop', SHOP)}${entry('other', OTHER)}targets:
${identity.join('')}`,
    'platform.yaml': `layer: platform\ntargets:\n${platform.join('')}servers:\n  - { issuer: ${issuer.issuer}, ${trust} }\n`,
    'application.yaml': `layer: application\ntargets:\n${application.join('')}`,
  }
}

const tokenOf = (sub: string, over: Record<string, unknown> = {}) => {
  const exp = Math.floor(Date.now() / 1000) + 110
  return signToken({ alg: 'ES256', typ: 'at+jwt' }, { iss: HOME, sub, exp, ...over }, home)
}
const post = (path: string, body: object): Promise<Answer> => call(agent.socket, 'POST', path, { body })

async function handleOf(token: string, id = SHOP): Promise<string> {
  const { status, body } = await post('/v1/subjects', { token, spiffe_id: id })
  expect([status, Object.keys(body)]).toEqual([200, ['handle', 'expires']])
  return body.handle
}

/** A request over the egress door. */
const get = (target: string, headers: Record<string, string> = {}, path = '/v1/echo') =>
  call(egress, 'GET', path, { headers: { host: target, ...headers } })
const reasonOf = ({ status, body }: Answer) => body.error?.reason ?? status

describe('a token that is handed in', () => {
  it('makes requests on behalf of its subject, and its handle does not leave', async () => {
    const handle = await handleOf(tokenOf('ada'))
    const { status, body } = await get('orders', { 'holdfast-subject': handle })
    expect([status, body.sub]).toEqual([200, 'ada'])
    expect(server.bytes).not.toContain(handle)
    expect(server.bytes.toLowerCase()).not.toContain('holdfast-subject')
    expect((await get('either', { 'holdfast-subject': handle })).body.sub).toBe('ada')
    expect((await get('own', { 'holdfast-subject': handle })).body.sub).toBe('shop')
  })

  it('is wanted where policy says so, and elsewhere the own token serves', async () => {
    expect(reasonOf(await get('orders'))).toBe('subject_required')
    expect((await get('either')).body.sub).toBe('shop')
  })

  it('serves headers and tokens too, over JSON and gRPC', async () => {
    using client = new RawClient(agent.socket)
    const added = await client.unary(`${SERVICE}/AddSubject`, { token: tokenOf('ada') })
    const { handle, expires } = added as { handle: string; expires: number }
    expect(expires).toBeGreaterThan(Date.now() / 1000)
    const url = `https://localhost:${server.port}/v1/items`
    const subOf = (authorization: string) => parseJws(authorization.replace('DPoP ', ''))?.payload['sub']
    const over = await client.unary(`${SERVICE}/RequestHeaders`, { method: 'GET', url, subject: handle })
    expect(subOf((over as { headers: Record<string, string> }).headers['authorization'] ?? '')).toBe('ada')
    const { body } = await post('/v1/headers', { method: 'GET', url, subject: handle })
    expect(subOf(body.headers.authorization)).toBe('ada')
    const { token } = (await post('/v1/token', { target: 'orders', subject: handle })).body
    expect(subOf(token)).toBe('ada')
    expect(reasonOf(await post('/v1/token', { target: 'orders' }))).toBe('subject_required')
  })

  it.each([
    ['unknown', async () => 'A'.repeat(43)],
    ['of another identity', () => handleOf(tokenOf('ada'), OTHER)],
    ['empty', async () => ''],
  ])('is unknown by a handle that is %s, on every door', async (_what, make) => {
    const handle = await make()
    const refused = await get('orders', { 'holdfast-subject': handle, 'holdfast-spiffe-id': SHOP })
    expect([refused.status, reasonOf(refused)]).toEqual([403, 'subject_unknown'])
    if (handle === '') return
    const asked = await post('/v1/token', { target: 'own', subject: handle, spiffe_id: SHOP })
    expect([asked.status, reasonOf(asked)]).toEqual([403, 'subject_unknown'])
  })

  it.each([
    ['of another issuer', () => tokenOf('ada', { iss: 'https://evil.example.org' })],
    ['for somebody else', () => tokenOf('ada', { aud: 'https://other.example.org' })],
    ['that is opaque', () => 'opaque-token'],
  ])('is refused %s, before any server sees it', async (_what, make) => {
    const before = issuer.requests.length
    const headers = { 'holdfast-subject': await handleOf(make()) }
    expect(reasonOf(await get('orders', headers))).toBe('subject_refused')
    expect(issuer.requests.length).toBe(before)
  })

  it.each([
    ['no token', {}, 'invalid_request'],
    ['a token with a line break', { token: 'a\r\nb' }, 'invalid_request'],
    ['a token over 16 KiB', { token: 'a'.repeat(16_385) }, 'invalid_request'],
    ['an unknown member', { token: 'a', act: 'b' }, 'invalid_request'],
    ['an identity that is not its own', { token: 'a', spiffe_id: `${SHOP}/x` }, 'no_identity'],
    ['an expired token', { token: tokenOf('ada', { exp: 1 }) }, 'token_expired'],
  ])('is not taken with %s', async (_what, body, reason) => {
    expect(reasonOf(await post('/v1/subjects', body))).toBe(reason)
    expect(agent.records.at(-1)).toMatchObject({ event: 'subject.take', allowed: false, reason })
  })

  it('is on record by issuer, hash of the subject and end, and no record holds it or its handle', async () => {
    const token = tokenOf('ada-canary')
    const handle = await handleOf(token)
    const taken = agent.records.at(-1)
    expect(taken).toMatchObject({ event: 'subject.take', allowed: true, spiffe_id: SHOP })
    expect(taken?.detail).toMatch(new RegExp(`^iss ${HOME}, sub [\\w-]{16}, exp \\d+$`))
    await get('orders', { 'holdfast-subject': handle })
    const used = agent.records.filter(({ event }) => event === 'egress').at(-1)
    expect([used?.subject, used?.subject?.length]).toEqual([taken?.subject, 16])
    await handleOf(tokenOf('x', { iss: 'secret-in-iss' }))
    const text = JSON.stringify(agent.records)
    expect([token, handle, 'ada-canary', 'secret-in-iss'].filter((each) => text.includes(each))).toEqual([])
  })

  it('ends with the revocation of its identity', async () => {
    const handle = await handleOf(tokenOf('ada'))
    const revoke = (path: string) => call(agent.adminSocket, 'POST', path, { body: { spiffe_id: SHOP } })
    await revoke('/v1/revoke')
    await revoke('/v1/lift')
    expect(reasonOf(await get('orders', { 'holdfast-subject': handle }))).toBe('subject_unknown')
  })
})

describe('a Txn-Token', () => {
  it('passes unmodified where policy says so, elsewhere not, and two never', async () => {
    const headers = { 'holdfast-subject': await handleOf(tokenOf('ada')), 'txn-token': TXN }
    const seen = () => server.requests.at(-1)?.headers['txn-token']
    await get('orders', headers)
    expect(seen()).toBe(TXN)
    await get('either', headers)
    expect(seen()).toBeUndefined()
    const twice = await get('orders', { ...headers, Txn_Token: TXN })
    expect([twice.status, reasonOf(twice)]).toEqual([400, 'header_refused'])
    expect(JSON.stringify(agent.records)).not.toContain(TXN)
  })
})

describe('two subjects and two workloads at once', () => {
  const ROUNDS = 1_000
  const AT_ONCE = 32

  it(`are never mixed, in ${ROUNDS} interleaved requests`, async () => {
    const callers = await Promise.all(
      [SHOP, OTHER].flatMap((id) =>
        ['ada', 'bob'].map(async (sub) => ({ id, sub, handle: await handleOf(tokenOf(sub), id) })),
      ),
    )
    const answers: {
      readonly id: string
      readonly sub: string
      readonly jkt: string
      readonly mixed: boolean
    }[] = []
    let next = 0
    const work = async () => {
      for (let round = next++; round < ROUNDS; round = next++) {
        const { id, sub, handle } = callers[(round * 7) % callers.length] ?? { id: '', sub: '', handle: '' }
        const { status, body: text } = await get(
          'orders',
          {
            'holdfast-subject': handle,
            'holdfast-spiffe-id': id,
            'x-asked': String(round),
            'x-wait': String((round * 13) % 5),
          },
          '/v1/who',
        )
        const mixed = status !== 200 || text.sub !== sub || text.asked !== String(round)
        answers.push({ id, sub, jkt: text.jkt, mixed })
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, work))
    expect(answers).toHaveLength(ROUNDS)
    expect(answers.filter(({ mixed }) => mixed)).toEqual([])
    const jkts = [SHOP, OTHER].map(
      (id) => new Set(answers.filter((each) => each.id === id).map(({ jkt }) => jkt)),
    )
    expect(jkts.map((set) => set.size)).toEqual([1, 1])
    expect(new Set(jkts.flatMap((set) => [...set])).size).toBe(2)
    const pairs = new Set(answers.map(({ id, sub }) => `${id} ${sub}`))
    expect(pairs.size).toBe(4)
  })
})
