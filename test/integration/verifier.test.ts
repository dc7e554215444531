/** The verifier over time: lost bindings, revocations, nonces of several nodes, and tokens of a real server. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import type { Config } from '../../src/config.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { makeClient } from '../support/client-key.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'
import { makeTestCa } from '../support/tls.ts'
import { openVerifyRig, type VerifyRig } from '../support/verify-rig.ts'
import { type Heard, WAYS, type Way } from '../support/verify-ways.ts'

const uid = process.getuid?.() ?? 0
const json = WAYS[0] as Way
const SHOP = 'spiffe://dev.holdfast.test/shop'
const resultOf = ({ isAllowed, reason }: Heard) => (isAllowed ? 'ok' : reason)

const files: string[] = []
function directory(): string {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-verifier-'))
  files.push(dir)
  return dir
}
afterAll(() => {
  for (const dir of files) rmSync(dir, { recursive: true, force: true })
})

describe('a hop that stops carrying proofs', () => {
  let rig: VerifyRig
  beforeEach(async () => {
    rig = await openVerifyRig()
  })
  afterEach(async () => rig?.[Symbol.asyncDispose]())

  const EDGE = { route: 'gated', address: '192.0.2.7' }
  const ask = (over: object) => json.ask(rig.socket, rig.request(over)).then(resultOf)
  const lost = async () =>
    /^holdfast_binding_lost_total\{hop="(\w+)"\} (\d+)$/m.exec(await rig.agent.metrics.render())?.slice(1)

  it.each([
    ['drops the proof', { without: ['DPoP'] }, 'proof_missing'],
    ['turns it into a bearer token', { scheme: 'Bearer', without: ['DPoP'] }, 'token_downgraded'],
  ])('is counted when it %s', async (_what, over, reason) => {
    expect(await ask({ ...EDGE, ...over })).toBe(reason)
    expect(await lost()).toBeUndefined()
    expect(await ask(EDGE)).toBe('ok')
    expect(await ask({ ...EDGE, ...over })).toBe(reason)
    expect(await lost()).toEqual(['edge', '1'])
    rig.pass(601)
    expect(await ask({ ...EDGE, ...over })).toBe(reason)
    expect(await lost()).toEqual(['edge', '1'])
  })

  it('is not taken for another hop, nor for a request without any token', async () => {
    expect(await ask(EDGE)).toBe('ok')
    expect(await ask({ route: 'gated', certificate: rig.gateway, without: ['DPoP'] })).toBe('proof_missing')
    expect(await ask({ ...EDGE, without: ['DPoP', 'Authorization'] })).toBe('token_missing')
    expect(await lost()).toBeUndefined()
  })

  it('has a name that metrics take', async () => {
    expect(await ask({ route: 'gated', certificate: rig.gateway })).toBe('ok')
    expect(await ask({ route: 'gated', certificate: rig.gateway, without: ['DPoP'] })).toBe('proof_missing')
    expect(await lost()).toEqual(['front_gate', '1'])
    expect(await rig.agent.metrics.render()).toContain(
      'holdfast_verified_total{reason="proof_missing",owner="platform"} 1',
    )
  })
})

describe('a status list', () => {
  it('that revokes a token is heard of within its ttl, for the token that was let in before', async () => {
    await using rig = await openVerifyRig()
    const status = { status_list: { idx: 0, uri: rig.statusUri } }
    const ask = () => json.ask(rig.socket, rig.request({ claims: { status } })).then(resultOf)
    expect(await ask()).toBe('ok')
    rig.statuses[0] = 1
    rig.pass(29)
    expect(await ask()).toBe('ok')
    rig.pass(1)
    expect(await ask()).toBe('token_revoked')
    expect(rig.asked.filter((path) => path === '/status')).toHaveLength(2)
  })
})

describe('a revocation', () => {
  const revoke = ({ agent }: VerifyRig, body: object) =>
    call(agent.adminSocket, 'POST', '/v1/revoke', { body })

  it('of a proof key refuses the next request, on the same connection too', async () => {
    await using rig = await openVerifyRig()
    expect(resultOf(await json.ask(rig.socket, rig.request()))).toBe('ok')
    await revoke(rig, { jkt: rig.key.jkt })
    const heard = await json.ask(rig.socket, rig.request())
    expect([heard.reason, heard.status]).toEqual(['token_revoked', 401])
  })

  it('of the service takes its right to ask', async () => {
    await using rig = await openVerifyRig({ verifiers: SHOP })
    expect(resultOf(await json.ask(rig.socket, rig.request()))).toBe('ok')
    await revoke(rig, { spiffe_id: SHOP })
    expect(resultOf(await json.ask(rig.socket, rig.request()))).toBe('verifier_foreign')
  })
})

describe('the key of nonces', () => {
  const keyFile = (bytes: number, mode: number) => {
    const file = join(directory(), 'nonce.key')
    writeFileSync(file, randomBytes(bytes), { mode })
    return file
  }
  const withKey = (file: string | undefined) => (config: Config) => ({
    ...config,
    verifier: { ...config.verifier, nonceKeyFile: file },
  })
  const nonceOf = async (rig: VerifyRig) =>
    (await json.ask(rig.socket, rig.request({ route: 'strict' }))).headers['dpop-nonce']

  it.each([
    ['is shared by nodes that have the same', true, 'ok'],
    ['is each node\u2019s own otherwise', false, 'proof_nonce'],
  ])('%s', async (_what, isShared, expected) => {
    const file = isShared ? keyFile(32, 0o600) : undefined
    await using one = await openVerifyRig({ config: withKey(file) })
    await using two = await openVerifyRig({ config: withKey(file) })
    // Its memory has begun once it has answered; of that second it cannot know whether another node has seen the proof.
    await nonceOf(two)
    for (const rig of [one, two]) rig.pass(1)
    const request = two.request({ route: 'strict', proof: { nonce: await nonceOf(one) } })
    expect(resultOf(await json.ask(two.socket, request))).toBe(expected)
  })

  it.each([
    ['is too short', 31, 0o600, 'config_invalid'],
    ['others can read', 32, 0o644, 'policy_writable'],
  ])('that %s is refused at the start', async (_what, bytes, mode, reason) => {
    const config = withKey(keyFile(bytes, mode))
    await expect(openVerifyRig({ config })).rejects.toMatchObject({ reason })
  })
})

describe('tokens of a real server', () => {
  const RESOURCE = 'https://orders.example.org/'
  const OPAQUE = 'https://opaque.example.org/'
  const ca = makeTestCa()
  let issuer: TestIssuer
  let agent: TestAgent
  let socket: string
  let shift = 0

  beforeAll(async () => {
    const dir = directory()
    const { client, pem } = makeClient()
    writeFileSync(join(dir, 'client.pem'), pem, { mode: 0o600 })
    writeFileSync(join(dir, 'ca.pem'), ca.pem)
    issuer = await startIssuer({
      ca,
      clients: [client],
      resources: { [RESOURCE]: { scopes: ['orders'] }, [OPAQUE]: { scopes: ['orders'], format: 'opaque' } },
    })
    agent = await startAgent({
      clock: {
        ...systemClock,
        now: () => systemClock.now() + shift,
        monotonic: () => systemClock.monotonic() + shift,
      },
      config: (config) => ({ ...config, verifier: { ...config.verifier, socket: 'on' } }),
      policy: policyOf(dir, issuer.issuer),
    })
    socket = join(agent.dir, 'public', 'verifier.sock')
    shift = 8_000
  })
  afterAll(async () => {
    await agent?.[Symbol.asyncDispose]()
    await issuer?.stop()
  })

  const policyOf = (dir: string, url: string) => {
    const resources = { orders: RESOURCE, opaque: OPAQUE }
    const each = (line: (name: string, resource: string) => string) =>
      Object.entries(resources)
        .map(([name, resource]) => `  - { name: ${name}, ${line(name, resource)} }\n`)
        .join('')
    return {
      'identity.yaml': `layer: identity
servers:
  - { name: login, issuer: ${url}, client: { id: shop, auth: private_key_jwt, key: { file: ${join(dir, 'client.pem')} } } }
entries:
  - { name: shop, spiffe_id: ${SHOP}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false } }
targets:
${each((_name, resource) => `server: login, resource: '${resource}', scopes: [orders], custody: headers, max_ttl: 5m`)}routes:
${each((name, resource) => `servers: [login], audience: ['${resource}'], max_ttl: 5m, introspect: ${name === 'opaque'}`)}`,
      'platform.yaml': `layer: platform
servers:
  - { issuer: ${url}, tls: { trust: { file: ${join(dir, 'ca.pem')} } }, addresses: [127.0.0.1, '::1'] }
targets:
${each((name) => `origins: ['https://${name}.example.org']`)}routes:
${each((name) => `origins: ['https://${name}.example.org'], verifiers: ['unix:uid:${uid}']`)}`,
      'application.yaml': `layer: application
targets:
${each(() => `grants: [{ callers: [${SHOP}], methods: [GET], paths: [/v1/**] }]`)}routes:
${each(() => `grants: [{ callers: ['client:login/shop'], methods: [GET], paths: [/v1/**], scopes: [orders] }]`)}`,
    }
  }

  /** The headers that the agent makes for a caller, as the service behind the target receives them. */
  async function received(name: string) {
    const url = `https://${name}.example.org/v1/items`
    const { body } = await call(agent.socket, 'POST', '/v1/headers', { body: { method: 'GET', url } })
    const headers = Object.entries(body.headers as Record<string, string>)
    return { route: name, method: 'GET', path: '/v1/items', headers }
  }

  it.each(WAYS.map((way) => [way.name, way] as const))(
    'are verified by %s, and each proof once',
    async (_name, way) => {
      const request = await received('orders')
      expect((await way.ask(socket, request)).isAllowed).toBe(true)
      expect((await way.ask(socket, request)).isAllowed).toBe(false)
      expect(agent.records.filter(({ event }) => event === 'verify').at(-1)).toMatchObject({
        reason: 'proof_replayed',
        caller: 'client:login/shop',
      })
    },
  )

  it('are asked about where they are opaque, at most every five seconds', async () => {
    const request = await received('opaque')
    const asked = () => issuer.requests.filter(({ path }) => path === '/token/introspection').length
    expect(resultOf(await json.ask(socket, request))).toBe('ok')
    expect(resultOf(await json.ask(socket, await received('opaque')))).toBe('ok')
    expect(asked()).toBe(1)
    const token = request.headers.find(([name]) => name === 'authorization')?.[1].slice('DPoP '.length) ?? ''
    await issuer.revoke(token)
    expect(resultOf(await json.ask(socket, await received('opaque')))).toBe('ok')
    shift += 6_000
    expect(resultOf(await json.ask(socket, await received('opaque')))).toBe('token_inactive')
    expect(asked()).toBe(2)
  })
})
