import { describe, expect, it } from 'vitest'
import { type Denied, decide } from '../../../src/policy/decide.ts'
import { parseWorkloadId } from '../../../src/spiffe/id.ts'
import { bookOf, context, LAYERS, question } from '../../support/policy.ts'

const identity = (over: string) => LAYERS.identity.replace('    max_ttl: 10m\n', `    max_ttl: 10m\n${over}`)

async function denied(files: Readonly<Record<string, string>>, over = {}): Promise<Denied> {
  const book = await bookOf(files)
  const decision = decide(book, question(book, over))
  if (decision.allowed) throw new Error('allowed')
  return decision
}

describe('decide', () => {
  it('allows what identity, platform and application each have a statement for, and names the rule', async () => {
    const book = await bookOf()
    const decision = decide(book, question(book))
    expect(decision).toMatchObject({
      allowed: true,
      target: { name: 'orders' },
      identity: { custody: 'headers', maxTtl: 600, binding: ['dpop'] },
      rule: { file: 'application.yaml', line: 5 },
    })
  })

  it.each([
    ['identity', { platform: LAYERS.platform, application: LAYERS.application }],
    ['application', { identity: LAYERS.identity, platform: LAYERS.platform }],
  ])('denies where %s is silent, and names that layer as owner', async (owner, files) => {
    const entries = LAYERS.identity.replace(/^targets:[\s\S]*/m, '')
    const book = await bookOf('identity' in files ? files : { ...files, identity: entries })
    expect(decide(book, question(book))).toMatchObject({
      allowed: false,
      reason: 'policy_denied',
      owner,
      message: `no ${owner} policy file says anything about orders`,
    })
  })

  it('knows no target that platform has not placed', async () => {
    expect(await denied({ identity: LAYERS.identity, application: LAYERS.application })).toMatchObject({
      reason: 'target_unknown',
      owner: 'platform',
      action: 'Add https://orders.example.org to the origins of a target in a platform policy file.',
    })
  })

  it.each([
    [
      'another caller',
      { spiffeId: parseWorkloadId('spiffe://example.org/batch') },
      'names spiffe://example.org/batch',
      'callers',
    ],
    ['another path', { url: 'https://orders.example.org/admin' }, 'the path /admin', 'Add /admin to paths'],
    [
      'a path that only begins alike',
      { url: 'https://orders.example.org/ordersX' },
      'the path /ordersX',
      'paths',
    ],
    [
      'a path below a whole one',
      { url: 'https://orders.example.org/health/x' },
      'the path /health/x',
      'paths',
    ],
    ['another method', { method: 'DELETE' }, 'DELETE', 'Add DELETE to methods at application.yaml:5'],
    ['a method in lower case', { method: 'get' }, 'get', 'methods'],
    ['no method, as a WPT has none', { method: undefined }, 'cover no method', "Add '*' to methods"],
  ])('denies %s and says the smallest change', async (_what, over, message, action) => {
    const decision = await denied(LAYERS, over)
    expect(decision).toMatchObject({ reason: 'policy_denied', owner: 'application' })
    expect(decision.message).toContain(message)
    expect(decision.action).toContain(action)
    expect(decision.nearest?.file).toBe('application.yaml')
  })

  it.each(['TRACE', 'CONNECT', 'trace', 'Connect'])(
    'never allows %s, even where every method is granted',
    async (method) => {
      const application = LAYERS.application.replace('[GET, HEAD]', `["*"]`)
      expect(await denied({ ...LAYERS, application }, { method })).toMatchObject({
        action: `${method} is never granted: use another method.`,
      })
    },
  )

  it('allows a prefix itself and all below it', async () => {
    const book = await bookOf()
    for (const path of ['/orders', '/orders/', '/orders/a/b', '/health']) {
      const asked = question(book, { url: `https://orders.example.org${path}` })
      expect(decide(book, asked).allowed, path).toBe(true)
    }
  })

  it.each([
    ['a port', 'https://orders.example.org:8443/orders/1'],
    ['plain HTTP', 'http://orders.example.org/orders/1'],
    ['a longer host', 'https://orders.example.org.evil.test/orders/1'],
  ])('takes %s for another origin', async (_what, url) => {
    expect(await denied(LAYERS, { url })).toMatchObject({ reason: 'target_unknown' })
  })

  it('refuses an IP literal unless a target lists it', async () => {
    expect(await denied(LAYERS, { url: 'https://192.0.2.7/' })).toMatchObject({ reason: 'url_refused' })
    const platform = LAYERS.platform.replace('"https://orders', '"https://192.0.2.7", "https://orders')
    const book = await bookOf({ ...LAYERS, platform })
    expect(decide(book, question(book, { url: 'https://192.0.2.7/orders/1' })).allowed).toBe(true)
  })

  it('keeps headers from an application where custody is nothing', async () => {
    const files = { ...LAYERS, identity: LAYERS.identity.replace('custody: headers', 'custody: nothing') }
    expect(await denied(files)).toMatchObject({ reason: 'custody_denied', owner: 'identity' })
  })

  it('denies a kind of proof that the target is not bound by', async () => {
    const files = { ...LAYERS, application: LAYERS.application.replace('[GET, HEAD]', '["*"]') }
    expect(await denied(files, { kind: 'wpt', method: undefined })).toMatchObject({
      reason: 'policy_denied',
      owner: 'identity',
      message: 'requests to orders are bound by dpop, not by wpt',
    })
  })

  it('denies a request that carries a further kind which is not allowed', async () => {
    expect(await denied(LAYERS, { also: ['wpt'] })).toMatchObject({
      owner: 'identity',
      message: 'requests to orders are bound by dpop, not by wpt',
    })
    const both = LAYERS.identity.replace('custody: headers', 'custody: headers\n    binding: [dpop, wpt]')
    const when = (text: string) =>
      LAYERS.application.replace('name: read', `name: read\n        when: ${text}`)
    const book = await bookOf({ ...LAYERS, identity: both, application: when("kind in ['dpop', 'wpt']") })
    expect(decide(book, question(book, { also: ['wpt'] })).allowed).toBe(true)
    const only = { ...LAYERS, identity: both, application: when("kind == 'dpop'") }
    expect(await denied(only, { also: ['wpt'] })).toMatchObject({ owner: 'application' })
  })

  it.each([
    ['hash', '', 'token_required'],
    ['none', '', 'token_required'],
    ['hash', '    tokenless: true\n', 'token_required'],
    ['none', '    hash_only: true\n', 'token_required'],
    ['hash', '    hash_only: true\n', undefined],
    ['none', '    tokenless: true\n', undefined],
  ] as const)('answers token form %s with settings %j by %s', async (token, over, reason) => {
    const book = await bookOf({ ...LAYERS, identity: identity(over) })
    const decision = decide(book, question(book, { token }))
    expect(decision.allowed ? undefined : decision.reason).toBe(reason)
  })

  it('asks every target of an origin and reports the one that came furthest', async () => {
    const other = (text: string) =>
      text.replaceAll('orders\n', 'aaa\n').replaceAll('name: orders,', 'name: aaa,')
    const files = {
      identity: LAYERS.identity,
      identity2: other(LAYERS.identity.replace(/entries:[\s\S]*?targets:/m, 'targets:')),
      platform: LAYERS.platform,
      platform2: other(LAYERS.platform),
      application: LAYERS.application,
      application2: other(LAYERS.application).replace('/orders/**, /health', '/other'),
    }
    const book = await bookOf(files)
    const ask = (path: string) => decide(book, question(book, { url: `https://orders.example.org${path}` }))
    expect(ask('/other')).toMatchObject({ allowed: true, target: { name: 'aaa' } })
    expect(ask('/orders/1')).toMatchObject({ allowed: true, target: { name: 'orders' } })
    const posted = decide(book, question(book, { method: 'POST' }))
    expect(posted).toMatchObject({ allowed: false, nearest: { file: 'application.yaml' } })
  })

  it('lets a loopback host stand for all its ports, and only where policy says so', async () => {
    const platform = LAYERS.platform.replace(
      '["https://orders.example.org"]',
      '["http://localhost:*", "https://localhost:8443"]',
    )
    const book = await bookOf({ ...LAYERS, platform })
    const ask = (url: string) => decide(book, question(book, { url })).allowed
    expect(ask('http://localhost/health')).toBe(true)
    expect(ask('http://localhost:4321/health')).toBe(true)
    expect(ask('https://localhost:8443/health')).toBe(true)
    expect(ask('https://localhost:8444/health')).toBe(false)
    expect(ask('http://127.0.0.1:4321/health')).toBe(false)
  })

  it.each([
    ['a workload', '{ spiffe_id: spiffe://example.org/web, reason: incident 7 }', false],
    ['a target', '{ target: orders, reason: incident 7 }', false],
    [
      'a workload at a target',
      '{ spiffe_id: spiffe://example.org/web, target: orders, reason: incident 7 }',
      false,
    ],
    [
      'a workload until later',
      '{ spiffe_id: spiffe://example.org/web, reason: x, until: 2030-01-01 }',
      false,
    ],
    ['another workload', '{ spiffe_id: spiffe://example.org/batch, reason: x }', true],
    ['another target', '{ spiffe_id: spiffe://example.org/web, target: stock, reason: x }', true],
    [
      'a workload until the past',
      '{ spiffe_id: spiffe://example.org/web, reason: x, until: 2020-01-01 }',
      true,
    ],
  ])('carries out a denial of %s above all other layers', async (_what, rule, allowed) => {
    const book = await bookOf({ ...LAYERS, security: `layer: security\ndeny:\n  - ${rule}\n` })
    const decision = decide(book, question(book))
    expect(decision.allowed).toBe(allowed)
    if (!decision.allowed)
      expect(decision).toMatchObject({ owner: 'security', nearest: { file: 'security.yaml', line: 3 } })
  })

  it('ends a denial when its date has come', async () => {
    let now = context.now()
    const security = 'layer: security\ndeny: [{ target: orders, reason: x, until: 2030-01-01T00:00:00Z }]\n'
    const book = await bookOf({ ...LAYERS, security }, { now: () => now })
    expect(decide(book, question(book)).allowed).toBe(false)
    now = Date.parse('2030-01-01T00:00:00Z') / 1000
    expect(decide(book, question(book)).allowed).toBe(true)
  })

  it('names a caller by prefix, segment by segment', async () => {
    const application = LAYERS.application.replace(
      '[spiffe://example.org/web]',
      '["spiffe://example.org/team/**"]',
    )
    const identity = LAYERS.identity
      .replace('example.org/web', 'example.org/team/web')
      .replace('example.org/batch', 'example.org/teamster')
    const book = await bookOf({ ...LAYERS, application, identity })
    const ask = (id: string) => decide(book, question(book, { spiffeId: parseWorkloadId(id) })).allowed
    expect(ask('spiffe://example.org/team/web')).toBe(true)
    expect(ask('spiffe://example.org/teamster')).toBe(false)
  })
})

describe('an empty list', () => {
  it.each([
    ['callers', LAYERS.application.replace('[spiffe://example.org/web]', '[]')],
    ['methods', LAYERS.application.replace('[GET, HEAD]', '[]')],
    ['paths', LAYERS.application.replace('[/orders/**, /health]', '[]')],
    ['grants', 'layer: application\ntargets: [{ name: orders, grants: [] }]\n'],
  ])('of %s denies everybody', async (_what, application) => {
    expect(await denied({ ...LAYERS, application })).toMatchObject({ owner: 'application' })
  })

  it('of origins places the target nowhere', async () => {
    const platform = 'layer: platform\ntargets: [{ name: orders, origins: [] }]\n'
    expect(await denied({ ...LAYERS, platform })).toMatchObject({ reason: 'target_unknown' })
  })

  it('of bindings signs no kind of proof', async () => {
    const files = { ...LAYERS, identity: identity('    binding: []\n') }
    expect(await denied(files)).toMatchObject({ owner: 'identity' })
  })
})
