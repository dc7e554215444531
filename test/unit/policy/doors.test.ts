/** What each door may be asked at each custody. */
import { describe, expect, it } from 'vitest'
import type { RuleBook } from '../../../src/policy/book.ts'
import { decide, decideTarget } from '../../../src/policy/decide.ts'
import type { Door, Target } from '../../../src/policy/grant.ts'
import { runPolicyTests } from '../../../src/policy/tests.ts'
import { bookOf, context, LAYERS, question } from '../../support/policy.ts'

const WHERE = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'
const SERVERS =
  'servers:\n  - { name: login, issuer: "https://as.example.org", client: { auth: jwt_spiffe } }\ntargets:'

function shop(custody: string, server = 'server: login') {
  const identity = LAYERS.identity
    .replace(WHERE, server)
    .replace('custody: headers', `custody: ${custody}`)
    .replace('targets:', SERVERS)
  return { ...LAYERS, identity }
}

function orders(book: RuleBook): Target {
  const target = book.targets.get('orders')
  if (!target) throw new Error('there is no target orders')
  return target
}

describe('a door', () => {
  it.each([
    ['nothing', 'egress', undefined],
    ['nothing', 'headers', 'an application may not hold its request headers'],
    ['nothing', 'token', 'an application may not hold its token'],
    ['headers', 'egress', undefined],
    ['headers', 'headers', undefined],
    ['headers', 'token', 'an application may not hold its token'],
    ['token', 'egress', undefined],
    ['token', 'headers', undefined],
    ['token', 'token', undefined],
  ] as const)('at custody %s, %s', async (custody, door, message) => {
    const book = await bookOf(shop(custody))
    const decision = decide(book, question(book, { door }))
    expect(decision.allowed).toBe(message === undefined)
    if (!decision.allowed) {
      expect(decision).toMatchObject({ reason: 'custody_denied', owner: 'identity' })
      expect(decision.message).toBe(`custody of orders is ${custody}: ${message}`)
      const cure = door === 'token' ? 'token' : 'headers'
      expect(decision.action).toBe(`Use the egress door, or set custody: ${cure} at identity.yaml:14.`)
    }
  })

  it.each(['egress', 'token'] as const)('%s wants a server of which the agent is a client', async (door) => {
    for (const server of [WHERE.replace('as.example', 'other.example'), 'server: none']) {
      const book = await bookOf(shop('token', server))
      for (const token of ['full', 'hash', 'none'] as const) {
        expect(decide(book, question(book, { door, token }))).toMatchObject({
          allowed: false,
          reason: 'policy_denied',
          owner: 'identity',
          message: expect.stringContaining('the agent can get no token for orders'),
        })
      }
    }
  })

  it.each([
    ['egress', true],
    ['token', false],
  ] as const)('%s at a tokenless target without a server: %s', async (door, allowed) => {
    const book = await bookOf(shop('token', 'server: none\n    tokenless: true'))
    expect(decide(book, question(book, { door })).allowed).toBe(allowed)
  })

  it.each([
    ['another method', { method: 'DELETE' }, 'application'],
    ['another path', { url: 'https://orders.example.org/admin' }, 'application'],
    ['TRACE', { method: 'TRACE' }, 'application'],
    ['another binding', { kind: 'wpt' }, 'identity'],
    ['a bearer token', { kind: 'bearer' }, 'identity'],
  ] as const)('opens no wider than the grant: %s', async (_what, over, owner) => {
    const application = LAYERS.application.replace('[GET, HEAD]', '[GET, HEAD, TRACE]')
    const book = await bookOf({ ...shop('token'), application })
    for (const door of ['egress', 'headers', 'token'] satisfies Door[]) {
      expect(decide(book, question(book, { ...over, door }))).toMatchObject({
        allowed: false,
        reason: 'policy_denied',
        owner,
      })
    }
  })

  it('is what a policy test may name', async () => {
    const test = (name: string, more: string) =>
      `  - { name: ${name}, spiffe_id: spiffe://example.org/web, method: GET, url: "https://orders.example.org/health", ${more} }\n`
    const application = `${LAYERS.application}tests:\n${test('a', 'door: egress, expect: allow')}${test('b', 'expect: deny')}`
    const results = runPolicyTests(await bookOf({ ...shop('nothing'), application }))
    expect(results.map(({ passed }) => passed)).toEqual([true, true])
  })
})

describe('decideTarget', () => {
  it('answers as decide does for a URL of the target', async () => {
    const book = await bookOf(shop('nothing'))
    const asked = question(book, { door: 'egress' })
    expect(decideTarget(book, orders(book), asked)).toEqual(decide(book, asked))
    const denied = question(book, { door: 'egress', method: 'PUT' })
    expect(decideTarget(book, orders(book), denied)).toEqual(decide(book, denied))
  })

  it('takes no URL of another place for the target, whatever the target allows', async () => {
    const book = await bookOf(shop('nothing'))
    const asked = question(book, { door: 'egress', url: 'https://evil.test/orders/1' })
    expect(decideTarget(book, orders(book), asked)).toMatchObject({
      allowed: false,
      reason: 'target_unknown',
      owner: 'platform',
      message: 'the target orders has no origin https://evil.test',
    })
  })

  it('asks no other target of the same origin', async () => {
    const other = LAYERS.application.replace('name: orders', 'name: stock').replace('/orders/**', '/stock/**')
    const book = await bookOf({
      ...shop('nothing'),
      other,
      place: LAYERS.platform.replace('name: orders', 'name: stock'),
      identity2: 'layer: identity\ntargets:\n  - { name: stock, server: login, custody: nothing }\n',
    })
    const asked = question(book, { door: 'egress', url: 'https://orders.example.org/stock/1' })
    expect(decide(book, asked)).toMatchObject({ allowed: true, target: { name: 'stock' } })
    expect(decideTarget(book, orders(book), asked)).toMatchObject({ allowed: false, owner: 'application' })
  })

  it('denies what security denies', async () => {
    const security = 'layer: security\ndeny: [{ target: orders, reason: incident 7 }]\n'
    const book = await bookOf({ ...shop('nothing'), security })
    const asked = question(book, { door: 'egress' })
    expect(decideTarget(book, orders(book), asked)).toMatchObject({ allowed: false, owner: 'security' })
  })
})

describe('bearer tokens', () => {
  const security =
    'layer: security\nexceptions:\n  - { target: orders, binding: bearer, approver: ann, until: 2030-12-31 }\n'
  const files = shop('nothing', 'server: login\n    binding: [bearer]')
  const short = { ...files, identity: files.identity.replace('    max_ttl: 10m\n', ''), security }

  it('leave through egress while their exception holds, and then never', async () => {
    let now = context.now()
    const book = await bookOf(short, { now: () => now })
    const asked = question(book, { door: 'egress', kind: 'bearer' })
    expect(decide(book, asked).allowed).toBe(true)
    expect(decide(book, { ...asked, kind: 'dpop' }).allowed).toBe(false)
    now = Date.parse('2031-01-01T00:00:00Z') / 1000
    expect(decide(book, asked)).toMatchObject({
      allowed: false,
      reason: 'policy_denied',
      owner: 'security',
      message: 'the exception for bearer tokens of orders has ended',
      nearest: { file: 'security.yaml', line: 3 },
    })
  })

  it.each(['headers', 'token'] as const)('never leave through %s', async (door) => {
    const book = await bookOf(short)
    expect(decide(book, question(book, { door, kind: 'bearer' }))).toMatchObject({ reason: 'custody_denied' })
  })
})
