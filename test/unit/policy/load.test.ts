import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { problemsOf } from '../../../src/base/problem.ts'
import { loadPolicy, policyFiles } from '../../../src/policy/load.ts'
import { policyJsonSchema } from '../../../src/policy/schema.ts'
import { bookOf, context, LAYERS, problemsIn } from '../../support/policy.ts'

const entry = (over: string) => `layer: identity
entries:
  - spiffe_id: spiffe://example.org/a
    selectors: [unix:uid:1]
    deliver: { x509: true, jwt: true, wit: true }
${over}`

describe('a policy file', () => {
  it('gives an entry its defaults and its place', async () => {
    const book = await bookOf({ identity: entry('') })
    expect(book.entries).toEqual([
      {
        name: 'a',
        spiffeId: 'spiffe://example.org/a',
        selectors: ['unix:uid:1'],
        x509Ttl: 3600,
        jwtTtl: 300,
        hint: '',
        deliver: { x509: true, jwt: true, wit: true },
        audiences: [],
        acceptedAt: [],
        dnsNames: [],
        federatesWith: [],
        sds: {},
        isProbe: false,
        instance: 'process',
        place: { file: 'identity.yaml', line: 3 },
      },
    ])
  })

  it.each([
    [
      'no layer',
      'entries: []',
      ['x.yaml:1: layer is missing: wanted identity, platform, application or security'],
    ],
    [
      'an unknown layer',
      'layer: network',
      ['x.yaml:1: layer is "network": wanted identity, platform, application or security'],
    ],
    ['an empty file', '', ['x.yaml:1: layer is missing: wanted identity, platform, application or security']],
    ["another layer's statement", 'layer: platform\nentries: []', ['x.yaml:2: unknown key "entries"']],
    [
      'deliver left out',
      'layer: identity\nentries:\n  - { spiffe_id: spiffe://example.org/a, selectors: [unix:uid:1] }',
      ['x.yaml:3: entries[0].deliver: is missing'],
    ],
    [
      'one kind of delivery left out',
      'layer: identity\nentries:\n  - spiffe_id: spiffe://example.org/a\n    selectors: [unix:uid:1]\n    deliver: { x509: true, jwt: true }',
      ['x.yaml:5: entries[0].deliver.wit: is missing'],
    ],
    [
      'a slip in a key',
      entry('    x509_tll: 1h'),
      ['x.yaml:6: unknown key "x509_tll" in entries[0], did you mean "x509_ttl"?'],
    ],
    [
      'a slip in a selector',
      entry('').replace('unix:uid:1', 'unix:udi:1'),
      ['x.yaml:4: entries[0].selectors[0]: no attestor makes "unix:udi", did you mean "unix:uid"?'],
    ],
    [
      'a uid that is a name',
      entry('').replace('unix:uid:1', 'unix:uid:web'),
      ['x.yaml:4: entries[0].selectors[0]: "unix:uid:web" can never hold'],
    ],
    [
      'no selectors',
      entry('').replace('[unix:uid:1]', '[]'),
      ['x.yaml:4: entries[0].selectors: is too small, wanted at least 1 items'],
    ],
    [
      'another trust domain',
      entry('').replace('example.org', 'other.org'),
      ['x.yaml:3: spiffe://other.org/a is outside the trust domain: wanted spiffe://example.org/…'],
    ],
    [
      'a trust domain that begins alike',
      entry('').replace('example.org', 'example.org.evil'),
      ['x.yaml:3: spiffe://example.org.evil/a is outside the trust domain: wanted spiffe://example.org/…'],
    ],
    [
      'a SPIFFE ID with dots',
      entry('').replace('org/a', 'org/a/../b'),
      ['x.yaml:3: entries[0].spiffe_id: not a SPIFFE ID: "spiffe://example.org/a/../b"'],
    ],
    [
      'a trust domain for an entry',
      entry('').replace('org/a', 'org'),
      [
        'x.yaml:3: entries[0].spiffe_id: not a SPIFFE ID of a workload (it needs a path): "spiffe://example.org"',
      ],
    ],
    [
      'path alone',
      entry('').replace('[unix:uid:1]', '[unix:path:/usr/bin/a]'),
      ['x.yaml:3: the entry a rests on path or sha256 alone: add unix:uid, unix:gid or systemd:id'],
    ],
    [
      'path and sha256 alone',
      entry('').replace('[unix:uid:1]', `[unix:path:/a, "unix:sha256:${'0'.repeat(64)}"]`),
      ['x.yaml:3: the entry a rests on path or sha256 alone: add unix:uid, unix:gid or systemd:id'],
    ],
    [
      'a wildcard DNS name',
      entry('    dns_names: ["*.a.test"]'),
      ['x.yaml:6: entries[0].dns_names[0]: "*.a.test" is not a DNS name in lower case'],
    ],
    [
      'the same entry twice',
      `${entry('')}  - name: b\n    spiffe_id: spiffe://example.org/a\n    selectors: [unix:uid:1]\n    deliver: { x509: true, jwt: true, wit: true }`,
      ['x.yaml:6: spiffe://example.org/a has the same selectors twice; first at x.yaml:3'],
    ],
    [
      'two entries of one name',
      `${entry('')}  - spiffe_id: spiffe://example.org/a\n    selectors: [unix:uid:2]\n    deliver: { x509: true, jwt: true, wit: true }`,
      ['x.yaml:6: the entry a is there twice: give one of them a name; first at x.yaml:3'],
    ],
    [
      'a target without custody',
      'layer: identity\ntargets:\n  - { name: a, server: none }',
      ['x.yaml:3: targets[0].custody: is missing, wanted nothing or headers or token'],
    ],
    [
      'an authorization server over plain HTTP',
      'layer: identity\ntargets:\n  - { name: a, custody: token, server: { issuer: "http://as.test" } }',
      ['x.yaml:3: targets[0].server.issuer: "http://as.test": an authorization server speaks https'],
    ],
    [
      'an origin with a path',
      'layer: platform\ntargets:\n  - { name: a, origins: ["https://a.test/"] }',
      ['x.yaml:3: targets[0].origins[0]: "https://a.test/" is not an origin: wanted https://a.test'],
    ],
    [
      'an origin in upper case',
      'layer: platform\ntargets:\n  - { name: a, origins: ["https://A.test"] }',
      ['x.yaml:3: targets[0].origins[0]: "https://A.test" is not an origin: wanted https://a.test'],
    ],
    [
      'an origin with a default port',
      'layer: platform\ntargets:\n  - { name: a, origins: ["https://a.test:443"] }',
      ['x.yaml:3: targets[0].origins[0]: "https://a.test:443" is not an origin: wanted https://a.test'],
    ],
    [
      'every port of another host',
      'layer: platform\ntargets:\n  - { name: a, origins: ["https://a.test:*"] }',
      [
        'x.yaml:3: targets[0].origins[0]: "https://a.test:*": only a loopback host may stand for all its ports',
      ],
    ],
    [
      'plain HTTP',
      'layer: platform\ntargets:\n  - { name: a, origins: ["http://a.test"] }',
      ['x.yaml:3: http://a.test is plain HTTP: use https, or say insecure_http: true'],
    ],
    [
      'a method in lower case',
      LAYERS.application.replace('GET', 'get'),
      ['x.yaml:7: targets[0].grants[0].methods[0]: is "get", wanted an upper-case method or "*"'],
    ],
    [
      'a star within a path',
      LAYERS.application.replace('/orders/**', '/*/orders'),
      ['x.yaml:8: targets[0].grants[0].paths[0]: "/*/orders": a star stands only at the end, as /**'],
    ],
    [
      'a path with dots',
      LAYERS.application.replace('/orders/**', '/a/../b'),
      ['x.yaml:8: targets[0].grants[0].paths[0]: the URL cannot be signed: it has a dot segment'],
    ],
    [
      'a path with a query',
      LAYERS.application.replace('/orders/**', '"/a?b=c"'),
      ['x.yaml:8: targets[0].grants[0].paths[0]: "/a?b=c": a path has no query and no fragment'],
    ],
    [
      'a path in another spelling',
      LAYERS.application.replace('/orders/**', '/%c3%a4'),
      ['x.yaml:8: targets[0].grants[0].paths[0]: "/%c3%a4" is not canonical: wanted /%C3%A4'],
    ],
    [
      'a path without a slash',
      LAYERS.application.replace('/orders/**', 'orders'),
      ['x.yaml:8: targets[0].grants[0].paths[0]: "orders" is not a path: it begins with /'],
    ],
    [
      'a caller of another trust domain',
      LAYERS.application.replace('example.org', 'other.org'),
      [
        'x.yaml:5: the caller spiffe://other.org/web is outside the trust domain: wanted spiffe://example.org/…',
      ],
    ],
    [
      'a whole trust domain as caller',
      LAYERS.application.replace('example.org/web', 'example.org'),
      [
        'x.yaml:6: targets[0].grants[0].callers[0]: "spiffe://example.org" is a trust domain: wanted a path or /**',
      ],
    ],
    [
      'observation without an end',
      'layer: security\nobserve: { approver: ann }',
      ['x.yaml:2: observe.until: is missing'],
    ],
    [
      'observation until a day that does not exist',
      'layer: security\nobserve: { approver: ann, until: 2030-02-30 }',
      ['x.yaml:2: observe.until: "2030-02-30" is not a date: wanted 2030-12-31 or 2030-12-31T18:00:00Z'],
    ],
    [
      'a denial of nothing',
      'layer: security\ndeny: [{ reason: x }]',
      ['x.yaml:2: deny[0]: names neither spiffe_id nor target'],
    ],
  ])('with %s is refused with its line', async (_what, text, expected) => {
    expect(await problemsIn({ x: text })).toEqual(expected)
  })

  it('reports all problems of all files at once, at most twenty', async () => {
    const found = await problemsIn({
      a: 'layer: platfrom',
      b: entry('    hnt: x'),
      c: 'layer: platform\ntargets: 1',
    })
    expect(found).toHaveLength(3)
    const many = Array.from({ length: 40 }, () => '  - {}').join('\n')
    expect(await problemsIn({ a: `layer: platform\ntargets:\n${many}` })).toHaveLength(20)
  })

  it.each(['identity', 'platform', 'application'] as const)(
    'of layer %s cannot name a target that another file of the layer has; both places are named',
    async (layer) => {
      const text =
        layer === 'identity' ? LAYERS.identity.replace(/entries:[\s\S]*?targets:/, 'targets:') : LAYERS[layer]
      const [found] = await problemsIn({ ...LAYERS, other: text })
      expect(found).toMatch(
        new RegExp(
          `^other\\.yaml:3: layer ${layer} has the target orders twice; first at ${layer}\\.yaml:[0-9]+$`,
        ),
      )
    },
  )

  it('may hold a thousand entries, which are found by their selectors', async () => {
    const entries = Array.from(
      { length: 1000 },
      (_, at) =>
        `  - { spiffe_id: spiffe://example.org/s/${at}, selectors: [unix:uid:${at}, unix:gid:7], deliver: { x509: true, jwt: false, wit: false } }`,
    )
    const book = await bookOf({ identity: `layer: identity\nentries:\n${entries.join('\n')}` })
    const found = book.entriesFor(new Set(['unix:uid:567', 'unix:gid:7', 'unix:user:x']) as never)
    expect(found.map(({ name, place }) => [name, place.line])).toEqual([['s/567', 570]])
  })
})

it.each(['[unix:uid:1, unix:path:/usr/bin/a]', '[unix:path:/usr/bin/a, systemd:id:a.service]'])(
  'takes an entry of %s, which has more than a path',
  async (selectors) => {
    const book = await bookOf({ identity: entry('').replace('[unix:uid:1]', selectors) })
    expect(book.entries).toHaveLength(1)
  },
)

it('takes the same selectors in another order, or twice, for the same', async () => {
  const other = `  - name: b
    spiffe_id: spiffe://example.org/a
    selectors: [unix:uid:1, unix:gid:2, unix:uid:1]
    deliver: { x509: true, jwt: true, wit: true }
`
  const text = entry(other).replace('[unix:uid:1]', '[unix:gid:2, unix:uid:1]')
  expect(await problemsIn({ x: text })).toEqual([
    'x.yaml:6: spiffe://example.org/a has the same selectors twice; first at x.yaml:3',
  ])
})

describe('a rule book', () => {
  it('finds the entries whose selectors all hold, in policy order', async () => {
    const text = `layer: identity
entries:
  - { name: c, spiffe_id: spiffe://example.org/c, selectors: [unix:uid:1, unix:gid:2], deliver: &d { x509: true, jwt: true, wit: true } }
`.replace('&d ', '')
    const more = ['b: unix:gid:2', 'a: unix:uid:1', 'd: unix:uid:9'].map((line) => {
      const [name, selector] = line.split(': ')
      return `  - { name: ${name}, spiffe_id: spiffe://example.org/${name}, selectors: [${selector}], deliver: { x509: true, jwt: true, wit: true } }\n`
    })
    const book = await bookOf({ identity: text + more.join('') })
    const names = (...selectors: string[]) =>
      book.entriesFor(new Set(selectors) as never).map(({ name }) => name)
    expect(names('unix:uid:1', 'unix:gid:2', 'unix:user:x')).toEqual(['c', 'b', 'a'])
    expect(names('unix:uid:1')).toEqual(['a'])
    expect(names('unix:gid:2')).toEqual(['b'])
    expect(names('unix:uid:3')).toEqual([])
    expect(names()).toEqual([])
  })

  it('knows whether a hash may give a caller an entry: when nothing else is missing', async () => {
    const hashed = entry('').replace('[unix:uid:1]', `[unix:uid:1, unix:sha256:${'0'.repeat(64)}]`)
    const book = await bookOf({ identity: hashed })
    const wants = (...selectors: string[]) => book.wantsSelector('unix:sha256', new Set(selectors) as never)
    expect(wants('unix:uid:1', 'unix:gid:1')).toBe(true)
    expect([wants('unix:uid:2'), wants('unix:gid:1'), wants()]).toEqual([false, false, false])
  })

  it.each([
    ['https://as.example.org', true],
    ['https://as.example.org/token', true],
    ['https://as.example.org/anything?x', true],
    ['HTTPS://AS.Example.ORG:443/', true],
    ['http://as.example.org', true],
    ['https://as.example.org./token', true],
    [' https://as.example.org', true],
    ['as.example.org', true],
    ['AS.example.org', true],
    ['https://as.example.org:8443', false],
    ['https://as.example.org.evil.test', false],
    ['https://orders.example.org', false],
    ['orders', false],
    ['spiffe://example.org/as', false],
    ['', false],
  ])('says of the audience %j that being reserved is %s', async (audience, expected) => {
    expect((await bookOf()).isReserved(audience)).toBe(expected)
  })

  it('observes until its end date and then refuses again, by the clock alone', async () => {
    let now = context.now()
    const security = 'layer: security\nobserve: { approver: ann, until: 2030-12-31 }\n'
    const book = await bookOf({ ...LAYERS, security }, { now: () => now })
    expect(book.observe).toBe(true)
    now = Date.parse('2030-12-31T23:59:59Z') / 1000
    expect(book.observe).toBe(true)
    now += 1
    expect(book.observe).toBe(false)
  })

  it('grades what is weak', async () => {
    const identity = `layer: identity
entries:
  - { name: a, spiffe_id: spiffe://example.org/a, selectors: [unix:uid:1], deliver: { x509: false, jwt: true, wit: false }, audiences: ["https://as.test/token"] }
  - { name: b, spiffe_id: spiffe://example.org/b, selectors: [systemd:id:b.service], deliver: { x509: false, jwt: false, wit: false }, audiences: ["https://as.test/token"] }
targets:
  - { name: t, server: { issuer: "https://as.test" }, custody: token, hash_only: true, tokenless: true }
`
    const platform =
      'layer: platform\ntargets: [{ name: t, origins: ["http://t.test", "http://localhost:*"], insecure_http: true }]\n'
    const security = 'layer: security\nobserve: { approver: ann, until: 2030-12-31 }\n'
    const book = await bookOf({ identity, platform, security })
    expect(book.weaknesses.map(({ code, grade, subject }) => `${code} ${grade} ${subject}`)).toEqual([
      'entry_uid_only weak a',
      'deliver weak a',
      'deliver_and_sign insecure a',
      'hash_only weak t',
      'tokenless weak t',
      'http insecure t',
      'observe weak policy',
    ])
  })

  it('has another hash when any file differs', async () => {
    const hashes = [
      await bookOf(),
      await bookOf({ ...LAYERS, security: 'layer: security\n' }),
      await bookOf({ ...LAYERS, platform: `${LAYERS.platform}# note\n` }),
      await bookOf(),
    ].map((book) => book.hash)
    expect(new Set(hashes).size).toBe(3)
    expect(hashes[0]).toMatch(/^[0-9a-f]{16}$/)
  })
})

describe('loadPolicy', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  const put = (name: string, text: string) => writeFileSync(join(dir, name), text, { mode: 0o644 })

  it('reads a directory, a pattern and a file, in order and once each', () => {
    for (const name of ['b.yaml', 'a.yml', '.hidden.yaml', 'note.txt', 'a.yaml~']) put(name, '')
    mkdirSync(join(dir, '..data'))
    const at = (name: string) => join(dir, name)
    expect(policyFiles([dir])).toEqual([at('a.yml'), at('b.yaml')])
    expect(policyFiles([at('*.yaml'), at('b.yaml'), at('c.yaml')])).toEqual([at('b.yaml'), at('c.yaml')])
    expect(policyFiles([at('[ab].*')])).toEqual([])
  })

  it('makes a rule book of files', async () => {
    for (const [name, text] of Object.entries(LAYERS)) put(`${name}.yaml`, text)
    const book = await loadPolicy([dir], context)
    expect(book.entries[0]?.place).toEqual({ file: join(dir, 'identity.yaml'), line: 3 })
  })

  it.each([
    ['policy_writable', 'others may write it, mode 0646', () => chmodSync(join(dir, 'a.yaml'), 0o646)],
    ['policy_writable', 'others may write the directory', () => chmodSync(dir, 0o777)],
    ['policy_invalid', 'does not exist', () => rmSync(join(dir, 'a.yaml'))],
    [
      'entry_too_weak',
      'a.yaml:3: the entry a rests on path',
      () => put('a.yaml', entry('').replace('uid:1', 'path:/a')),
    ],
  ])('throws %s where %s', async (reason, message, spoil) => {
    put('a.yaml', entry(''))
    spoil()
    const fault = await loadPolicy([join(dir, 'a.yaml')], context).then(
      () => undefined,
      (error: unknown) => error as Fault,
    )
    expect(fault).toBeInstanceOf(Fault)
    expect(fault?.reason).toBe(reason)
    expect(fault?.message).toContain(message)
    if (fault) expect(problemsOf(fault)).toHaveLength(1)
  })

  it('has no empty policy by accident: a directory that is not there is an error', async () => {
    await expect(loadPolicy([join(dir, 'none', '*.yaml')], context)).rejects.toThrowError(/cannot be read/)
  })
})

it('has a JSON Schema that knows the four layers', () => {
  const schema = policyJsonSchema() as { oneOf?: unknown[]; anyOf?: unknown[] }
  expect((schema.oneOf ?? schema.anyOf)?.length).toBe(4)
})
