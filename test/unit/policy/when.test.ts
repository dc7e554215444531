import { describe, expect, it } from 'vitest'
import { decide } from '../../../src/policy/decide.ts'
import { compileWhen } from '../../../src/policy/when.ts'
import { bookOf, LAYERS, problemsIn, question } from '../../support/policy.ts'

const facts = {
  method: 'GET',
  path: '/orders/1',
  host: 'orders.example.org',
  spiffe_id: 'spiffe://example.org/web',
  kind: 'dpop',
  token: 'full',
  selectors: ['unix:uid:1000', 'systemd:id:web.service'],
}

const withWhen = (when: string) => ({
  ...LAYERS,
  application: `${LAYERS.application}        when: ${JSON.stringify(when)}\n`,
})

describe('compileWhen', () => {
  it.each([
    ["method == 'GET'", true],
    ["method != 'GET'", false],
    ["path.startsWith('/orders/') && !path.endsWith('/admin')", true],
    ["'unix:uid:1000' in selectors", true],
    ["'unix:uid:0' in selectors || kind == 'wpt'", false],
    ["method in ['GET', 'HEAD']", true],
    ["path.matches('^/orders/[0-9]+$')", true],
    ["matches(path, '^/orders/[a-z]+$')", false],
    ['size(selectors) >= 2 && path.size() < 100', true],
    ["token == 'full' ? host.contains('orders') : false", true],
    ['true', true],
    ['false', false],
  ])('evaluates %s to %s', (source, expected) => {
    expect(compileWhen(source).evaluate(facts)).toBe(expected)
  })

  it.each([
    ['a broken expression', 'method ==', /not CEL/],
    ['an empty one', ' ', /not CEL/],
    ['a text for a condition', 'path', /of type string, wanted bool/],
    [
      'a comparison of two types, which would always be unequal',
      'method != 1',
      /_!=_ does not take string, int/,
    ],
    ['a fact that does not exist', "pth == '/x'", /no fact "pth", did you mean "path"\?/],
    ['a fact of every object', 'constructor == path', /no fact "constructor"/],
    ['a field', "path.size == '1'", /\.size is refused/],
    [
      'a function that does not exist',
      "path.startWith('/a')",
      /startWith is refused, did you mean "startsWith"\?/,
    ],
    ['a conversion around the type check', 'dyn(1) == dyn(path)', /dyn is refused/],
    ['exists', "selectors.exists(s, s == 'x')", /all, exists, exists_one, map and filter are refused/],
    ['all', "selectors.all(s, s == 'x')", /are refused/],
    ['exists_one', "selectors.exists_one(s, s == 'x')", /are refused/],
    ['map', 'selectors.map(s, s) == selectors', /are refused/],
    ['filter', "size(selectors.filter(s, s == 'x')) > 0", /are refused/],
    ['has', 'has(path.x)', /is refused/],
    ['concatenation, which makes inputs grow', "path + path == ''", /_\+_ is refused/],
    ['an index, which may be out of range', "selectors[0] == 'x'", /_\[_\] is refused/],
    ['a map', "{'a': 'b'} == {'a': 'b'}", /maps and messages are refused/],
    ['a pattern from the request', 'path.matches(host)', /wants its pattern as a text/],
    ['a broken pattern', "path.matches('(a')", /not a pattern/],
    ['a long pattern', `path.matches('${'a'.repeat(201)}')`, /over 200 characters/],
    ['a long source', `method == '${'a'.repeat(1000)}'`, /over 1000 characters/],
    ['a deep source', `${'true ? ('.repeat(30)}true${') : false'.repeat(30)}`, /nested over 24 deep/],
  ])('refuses %s', (_what, source, message) => {
    expect(() => compileWhen(source)).toThrowError(message)
  })

  it('denies when a fact is missing: an error is not true', () => {
    const { path: _, ...rest } = facts
    expect(compileWhen('true || path == "x"').evaluate(rest)).toBe(false)
    expect(compileWhen("method != 'POST'").evaluate({})).toBe(false)
  })

  it.each([
    ['a long fact', { ...facts, path: `/${'a'.repeat(2048)}` }],
    ['many selectors', { ...facts, selectors: Array.from({ length: 129 }, (_, at) => `unix:gid:${at}`) }],
    ['a fact of another type', { ...facts, selectors: 'unix:uid:1000' }],
  ])('denies at %s instead of paying for it', (_what, given) => {
    expect(compileWhen('true').evaluate(given)).toBe(false)
  })

  it('takes linear time for patterns that make other engines explode', () => {
    const when = compileWhen("path.matches('(a+)+$')")
    const begin = process.cpuUsage().user
    expect(when.evaluate({ ...facts, path: `/${'a'.repeat(2000)}!` })).toBe(false)
    expect(process.cpuUsage().user - begin).toBeLessThan(2_000_000)
  })
})

describe('a grant with a condition', () => {
  it('allows where the condition holds and denies where it does not, naming it', async () => {
    const book = await bookOf(withWhen("path != '/orders/2'"))
    expect(decide(book, question(book)).allowed).toBe(true)
    const denied = decide(book, question(book, { url: 'https://orders.example.org/orders/2' }))
    expect(denied).toMatchObject({
      allowed: false,
      message: 'the condition at application.yaml:5 does not hold',
      action: "Meet or change the condition: path != '/orders/2'",
    })
  })

  it('is refused with its line when policy is loaded', async () => {
    expect(await problemsIn(withWhen('method != 1'))).toEqual([
      'application.yaml:9: when: _!=_ does not take string, int',
    ])
  })

  it('does not widen what the rest of the grant says', async () => {
    const book = await bookOf(withWhen('true'))
    expect(decide(book, question(book, { method: 'POST' })).allowed).toBe(false)
    expect(decide(book, question(book, { url: 'https://orders.example.org/x' })).allowed).toBe(false)
  })
})
