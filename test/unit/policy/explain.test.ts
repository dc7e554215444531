import { describe, expect, it } from 'vitest'
import { notesOn } from '../../../src/policy/check.ts'
import { devPolicy, devSpiffeId } from '../../../src/policy/dev.ts'
import { type ExplainAsk, explain, explainRequest } from '../../../src/policy/explain.ts'
import { parsePolicy } from '../../../src/policy/load.ts'
import { runPolicyTests } from '../../../src/policy/tests.ts'
import { canonicalUrl } from '../../../src/proof/target.ts'
import { parseTrustDomain } from '../../../src/spiffe/id.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { bookOf, context, LAYERS } from '../../support/policy.ts'

const ask = (
  over: Partial<Omit<ExplainAsk, 'url' | 'selectors'>> & { url?: string; selectors?: string[] } = {},
) =>
  ({
    method: 'GET',
    kind: 'dpop',
    token: 'full',
    ...over,
    selectors: (over.selectors ?? ['unix:uid:1000', 'systemd:id:web.service']) as Selector[],
    url: canonicalUrl(over.url ?? 'https://orders.example.org/orders/1'),
  }) as ExplainAsk

describe('explain', () => {
  it('goes from facts to entry to rule', async () => {
    const book = await bookOf()
    expect(explain(book, ask())).toEqual({
      allowed: true,
      selectors: ['unix:uid:1000', 'systemd:id:web.service'],
      method: 'GET',
      origin: 'https://orders.example.org',
      path: '/orders/1',
      entry: { name: 'web', spiffe_id: 'spiffe://example.org/web', place: 'identity.yaml:3' },
      target: 'orders',
      rule: 'application.yaml:5',
      policy: book.hash,
    })
  })

  it('answers for the egress door where the URL names a target', async () => {
    const inline = 'server: { issuer: https://as.example.org, token_endpoint: https://as.example.org/token }'
    const servers =
      'servers:\n  - { name: login, issuer: https://as.example.org, client: { id: shop, auth: private_key_jwt } }\n'
    const identity = LAYERS.identity
      .replace(inline, 'server: login')
      .replace('targets:\n', `${servers}targets:\n`)
    const book = await bookOf({ ...LAYERS, identity })
    const asked = (method: string, url: string) => explainRequest(book, ask().selectors, { method, url }, {})
    expect(asked('GET', 'http://orders/orders/1?q=1')).toMatchObject({
      allowed: true,
      door: 'egress',
      target: 'orders',
      origin: 'https://orders.example.org',
      path: '/orders/1',
    })
    const without = await bookOf()
    const url = 'http://orders/orders/1'
    expect(explainRequest(without, ask().selectors, { url }, {})).toMatchObject({
      allowed: false,
      message: expect.stringContaining('token'),
    })
    expect(asked('PUT', 'http://orders/orders/1')).toMatchObject({ allowed: false, reason: 'policy_denied' })
    expect(asked('GET', 'https://orders.example.org/orders/1')).not.toHaveProperty('door')
    expect(asked('GET', 'http://nobody/orders/1')).toMatchObject({ reason: 'target_unknown' })
    expect(() => asked('GET', 'http://orders/orders/../x')).toThrow('dot segment')
  })

  it('names the nearest rule and the smallest change', async () => {
    expect(explain(await bookOf(), ask({ method: 'PUT' }))).toMatchObject({
      allowed: false,
      reason: 'policy_denied',
      owner: 'application',
      target: 'orders',
      nearest: 'application.yaml:5',
      action: 'Add PUT to methods at application.yaml:5.',
    })
  })

  it('names the nearest entry and what the caller lacks for it', async () => {
    const explanation = explain(await bookOf(), ask({ selectors: ['unix:uid:1000', 'unix:user:web'] }))
    expect(explanation).toMatchObject({
      allowed: false,
      reason: 'no_identity',
      message: 'no identity issued',
      nearest_entry: { name: 'web', place: 'identity.yaml:3', missing: ['systemd:id:web.service'] },
      action: 'The nearest entry, web at identity.yaml:3, also wants systemd:id:web.service.',
    })
  })

  it('shows a caller no entry that it shares nothing with', async () => {
    const explanation = explain(await bookOf(), ask({ selectors: ['unix:uid:7'] }))
    expect(explanation.nearest_entry).toBeUndefined()
    expect(JSON.stringify(explanation)).not.toContain('web')
    expect(explanation.action).toBe('Add an entry with selectors that this caller has: unix:uid:7')
  })

  it('says which other identity of the caller would be allowed', async () => {
    const identity = LAYERS.identity.replace(
      'entries:\n',
      'entries:\n  - { spiffe_id: spiffe://example.org/a, selectors: [unix:uid:1000], deliver: { x509: true, jwt: true, wit: true } }\n',
    )
    expect(explain(await bookOf({ ...LAYERS, identity }), ask())).toMatchObject({
      allowed: false,
      entry: { name: 'a' },
      allowed_as: ['spiffe://example.org/web'],
    })
  })

  it('says what weakens the entry, and nothing where nothing does', async () => {
    const identity = LAYERS.identity.replace('[unix:uid:1000, systemd:id:web.service]', '["k8s:sa:web"]')
    const selectors = ['k8s:sa:web', 'k8s:ns:shop'] as never
    const { entry } = explain(await bookOf({ ...LAYERS, identity }), { ...ask(), selectors })
    expect(entry?.weaknesses).toEqual([{ grade: 'weak', message: expect.stringContaining('no namespace') }])
    expect(explain(await bookOf(), ask()).entry).not.toHaveProperty('weaknesses')
  })

  it('says that a refusal is only observed', async () => {
    const security = 'layer: security\nobserve: { approver: ann, until: 2030-12-31 }\n'
    const book = await bookOf({ ...LAYERS, security })
    expect(explain(book, ask({ method: 'PUT' }))).toMatchObject({ allowed: false, observed: true })
    expect(explain(book, ask()).observed).toBeUndefined()
  })
})

describe('runPolicyTests', () => {
  const withTest = (test: string) => ({
    ...LAYERS,
    application: `${LAYERS.application}tests:\n  - { name: t, spiffe_id: spiffe://example.org/web, url: "https://orders.example.org/orders", ${test} }\n`,
  })

  it.each([
    ['method: GET, expect: allow', true, 'allowed by read, application.yaml:5'],
    ['method: GET, expect: allow, rule: read', true, 'allowed by read, application.yaml:5'],
    [
      'method: GET, expect: allow, rule: write',
      false,
      'wanted the rule write; allowed by read, application.yaml:5',
    ],
    ['method: GET, expect: deny', false, 'wanted deny; allowed by read, application.yaml:5'],
    ['method: PUT, expect: deny', true, 'policy_denied: no grant of orders allows PUT here'],
    [
      'method: PUT, expect: deny, reason: policy_denied',
      true,
      'policy_denied: no grant of orders allows PUT here',
    ],
    [
      'method: PUT, expect: deny, reason: token_required',
      false,
      'wanted the reason token_required; policy_denied: no grant of orders allows PUT here',
    ],
    ['method: PUT, expect: allow', false, 'wanted allow; policy_denied: no grant of orders allows PUT here'],
    [
      'method: GET, token: hash, expect: deny, reason: token_required',
      true,
      'token_required: orders wants the access token, not only its hash',
    ],
  ])('judges a test that says %s', async (test, passed, message) => {
    const results = runPolicyTests(await bookOf(withTest(test)))
    expect(results).toEqual([{ name: 't', place: { file: 'application.yaml', line: 10 }, passed, message }])
  })

  it('fails a test of an identity that nobody has, and refuses a URL as the agent would', async () => {
    const files = withTest('method: GET, expect: allow')
    const lost = {
      ...files,
      application: files.application.replace(
        't, spiffe_id: spiffe://example.org/web',
        't, spiffe_id: spiffe://example.org/x',
      ),
    }
    expect(runPolicyTests(await bookOf(lost))[0]).toMatchObject({
      passed: false,
      message: 'wanted allow; no_identity: no entry gives spiffe://example.org/x',
    })
    const dotted = { ...files, application: files.application.replace('org/orders"', 'org/a/../orders"') }
    expect(runPolicyTests(await bookOf(dotted))[0]).toMatchObject({
      passed: false,
      message: expect.stringContaining('url_refused'),
    })
  })
})

it('notes the layers that are silent and the callers that no entry makes', async () => {
  const identity = LAYERS.identity.replaceAll('example.org/web', 'example.org/wep')
  const platform = LAYERS.platform.replace('name: orders', 'name: order')
  expect(notesOn(await bookOf({ identity, platform, application: LAYERS.application }))).toEqual([
    'orders: layer platform is silent, so nothing is allowed',
    'order: layer identity is silent, so nothing is allowed',
    'order: layer application is silent, so nothing is allowed',
    'no entry gives the caller spiffe://example.org/web',
  ])
})

describe('devPolicy', () => {
  const trustDomain = parseTrustDomain('dev.holdfast.test')

  it('loads as it stands, passes its own tests and leaves no layer silent', async () => {
    const texts = devPolicy({ trustDomain, uids: [1000, 0], nameOf: (uid) => (uid === 0 ? 'root' : 'ann') })
    expect(texts.map(({ file }) => file)).toEqual([
      'identity.yaml',
      'platform.yaml',
      'application.yaml',
      'security.yaml',
    ])
    const result = await parsePolicy(texts, { ...context, trustDomain })
    if ('problems' in result) throw new Error(JSON.stringify(result.problems))
    const { book } = result
    expect(book.entries.map(({ spiffeId, selectors }) => [spiffeId, selectors])).toEqual([
      ['spiffe://dev.holdfast.test/user/ann', ['unix:uid:1000']],
      ['spiffe://dev.holdfast.test/user/root', ['unix:uid:0']],
    ])
    expect(runPolicyTests(book).map(({ passed }) => passed)).toEqual([true, true])
    expect(notesOn(book)).toEqual([])
  })

  it.each([
    ['GET', 'https://api.example.test/orders', 'none', true],
    ['POST', 'http://localhost:3000/x', 'hash', true],
    ['POST', 'http://127.0.0.1:8080/', 'full', true],
    ['GET', 'https://[::1]:8443/', 'none', true],
    ['GET', 'https://api.example.test:8443/', 'none', false],
    ['GET', 'https://example.com/', 'none', false],
    ['TRACE', 'http://localhost:3000/', 'none', false],
  ] as const)('answers %s %s with token %s by %s', async (method, url, token, allowed) => {
    const result = await parsePolicy(devPolicy({ trustDomain, uids: [1000] }), { ...context, trustDomain })
    if ('problems' in result) throw new Error(JSON.stringify(result.problems))
    expect(explain(result.book, ask({ method, url, token, selectors: ['unix:uid:1000'] })).allowed).toBe(
      allowed,
    )
  })

  it.each([
    ['ann', 'spiffe://dev.holdfast.test/user/ann'],
    ['ann b', 'spiffe://dev.holdfast.test/user/uid-7'],
    ['..', 'spiffe://dev.holdfast.test/user/uid-7'],
    ['DOMAIN\\ann', 'spiffe://dev.holdfast.test/user/uid-7'],
    [undefined, 'spiffe://dev.holdfast.test/user/uid-7'],
  ])('names the user %s %s', (name, id) => {
    expect(devSpiffeId(trustDomain, 7, name)).toBe(id)
  })
})
