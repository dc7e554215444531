/** Properties of the four layers: statements of one never undo the silence or the limit of another. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Denial, RuleBook } from '../../../src/policy/book.ts'
import { buildBook } from '../../../src/policy/build.ts'
import { decide, type Question } from '../../../src/policy/decide.ts'
import type { Door, Grant, ProofKind, Server, TargetIdentity } from '../../../src/policy/grant.ts'
import { isMatch } from '../../../src/policy/pattern.ts'
import { type Named, NO_STATEMENTS, type Statements, SYSTEM_TLS } from '../../../src/policy/statements.ts'
import { canonicalUrl } from '../../../src/proof/target.ts'
import { parseWorkloadId } from '../../../src/spiffe/id.ts'

const place = { file: 'f.yaml', line: 1 }
const NAMES = ['a', 'b'] as const
const IDS = ['spiffe://t.test/x', 'spiffe://t.test/x/y', 'spiffe://t.test/z'].map(parseWorkloadId)
const ORIGINS = ['https://a.test', 'https://b.test']

const SERVER: Server = {
  issuer: 'https://as.test',
  tokenEndpoint: undefined,
  client: { method: 'jwt_spiffe', clientId: undefined, assertion: 'fresh' },
}

const name = fc.constantFrom(...NAMES)
/** Seldom empty, so that enough is allowed to learn from. */
const mostly = <T>(of: T[]) =>
  fc.oneof(
    { weight: 5, arbitrary: fc.subarray(of, { minLength: 1 }) },
    { weight: 1, arbitrary: fc.constant<T[]>([]) },
  )
const identity: fc.Arbitrary<Named<TargetIdentity>> = fc.record({
  name,
  server: fc.constantFrom(undefined, { ...SERVER, client: undefined }, SERVER),
  custody: fc.constantFrom('nothing', 'headers', 'headers', 'token'),
  maxTtl: fc.constant(60),
  hashOnly: fc.boolean(),
  tokenless: fc.boolean(),
  binding: mostly<ProofKind>(['dpop', 'wpt']),
  resource: fc.constant(undefined),
  scopes: fc.constant([]),
  tooLong: fc.constant('refuse'),
  isDiscovered: fc.constant(false),
  exchange: fc.constant(undefined),
  passesTransaction: fc.constant(false),
  place: fc.constant(place),
})
const platform = fc.record({
  name,
  origins: mostly(ORIGINS),
  insecureHttp: fc.constant(false),
  tls: fc.constant(SYSTEM_TLS),
  addresses: fc.constant([]),
  via: fc.constant('agent' as const),
  followsRedirects: fc.constant(false),
  rate: fc.constant(undefined),
  concurrency: fc.constant(undefined),
  place: fc.constant(place),
})
const grant: fc.Arbitrary<Grant> = fc.record({
  name: fc.constant(''),
  callers: mostly<string>([...IDS, 'spiffe://t.test/x/**', 'spiffe://t.test/**']),
  methods: mostly(['GET', 'PUT', '*']),
  paths: mostly(['/p', '/p/**', '/**', '/q']),
  when: fc.constant(undefined),
  approval: fc.constant(undefined),
  isProbe: fc.constant(false),
  asksHook: fc.constant(false),
  signedHeaders: fc.constant([]),
  place: fc.constant(place),
})
const application = fc.record({
  name,
  grants: fc.array(grant, { maxLength: 4, size: 'medium' }),
  place: fc.constant(place),
})
const denial: fc.Arbitrary<Denial> = fc
  .record({
    spiffeId: fc.option(fc.constantFrom(...IDS), { nil: undefined }),
    target: fc.option(name, { nil: undefined }),
  })
  .filter(({ spiffeId, target }) => spiffeId !== undefined || target !== undefined)
  .map((names) => ({ ...names, why: 'x', until: undefined, place }))

const uniquely = <T extends { readonly name: string }>(statement: fc.Arbitrary<T>) =>
  fc.uniqueArray(statement, { selector: (each) => each.name, minLength: 1, maxLength: 2, size: 'max' })
const statements: fc.Arbitrary<Statements> = fc
  .record({
    identity: uniquely(identity),
    platform: uniquely(platform),
    application: uniquely(application),
    denials: fc.array(denial, { maxLength: 1 }),
  })
  .map((layers) => ({ ...NO_STATEMENTS, ...layers }))
const question: fc.Arbitrary<Question> = fc
  .record({
    kind: fc.constantFrom<ProofKind>('dpop', 'wpt'),
    door: fc.constantFrom<Door>('headers', 'headers', 'egress', 'token'),
    spiffeId: fc.constantFrom(...IDS),
    method: fc.constantFrom('GET', 'PUT', 'TRACE', undefined),
    origin: fc.constantFrom(...ORIGINS),
    path: fc.constantFrom('/p', '/p/1', '/px', '/q', '/'),
    token: fc.constantFrom('full', 'hash', 'none'),
  })
  .map(({ origin, path, ...rest }) => ({
    ...rest,
    url: canonicalUrl(origin + path),
    entry: { isProbe: false } as Question['entry'],
    selectors: [],
  }))

const book = (from: Statements): RuleBook => buildBook(from, { hash: '', now: () => 0 })

/** The rules once more, as plainly as the design says them and without an index. */
function isAllowed(from: Statements, asked: Question): boolean {
  const { spiffeId, method, door, kind, token, url } = asked
  return NAMES.some((target) => {
    const who = from.identity.find((each) => each.name === target)
    const where = from.platform.find((each) => each.name === target)
    const what = from.application.find((each) => each.name === target)
    if (!who || !where || !what || !where.origins.includes(url.origin)) return false
    const isDenied = from.denials.some(
      (each) => (each.spiffeId ?? spiffeId) === spiffeId && (each.target ?? target) === target,
    )
    const isGranted = what.grants.some(
      (each) =>
        each.callers.some((caller) => isMatch(caller, spiffeId)) &&
        each.paths.some((path) => isMatch(path, url.path)) &&
        method !== 'TRACE' &&
        (each.methods.includes('*') || (method !== undefined && each.methods.includes(method))),
    )
    const isOpen =
      door === 'egress' || who.custody === 'token' || (door === 'headers' && who.custody === 'headers')
    const isShown = token === 'full' || (token === 'hash' ? who.hashOnly : who.tokenless)
    const isHeld = door === 'headers' || who.server?.client ? isShown : door === 'egress' && who.tokenless
    return isGranted && isOpen && who.binding.includes(kind) && isHeld && !isDenied
  })
}

describe('the layers', () => {
  it('allow exactly what a plain reading of the rules allows', () => {
    let allowed = 0
    fc.assert(
      fc.property(statements, question, (from, asked) => {
        const decision = decide(book(from), asked)
        if (decision.allowed) allowed += 1
        return decision.allowed === isAllowed(from, asked)
      }),
      { numRuns: 2_000 },
    )
    expect(allowed).toBeGreaterThan(20)
  })

  it.each(['identity', 'platform', 'application'] as const)('allow nothing where %s is silent', (layer) => {
    fc.assert(
      fc.property(
        statements,
        question,
        (from, asked) => !decide(book({ ...from, [layer]: [] }), asked).allowed,
      ),
    )
  })

  it('allow nothing by a target that one of them is silent about, whatever the others say of it', () => {
    const layer = fc.constantFrom('identity', 'platform', 'application')
    fc.assert(
      fc.property(statements, question, layer, name, (from, asked, silent, target) => {
        const said = from[silent as 'identity'].filter((each) => each.name !== target)
        const decision = decide(book({ ...from, [silent]: said }), asked)
        return !decision.allowed || decision.target.name !== target
      }),
      { numRuns: 2_000 },
    )
  })

  it('allow nothing more when security speaks', () => {
    fc.assert(
      fc.property(statements, question, denial, (from, asked, more) => {
        const decision = decide(book({ ...from, denials: [...from.denials, more] }), asked)
        return !decision.allowed || decide(book(from), asked).allowed
      }),
      { numRuns: 2_000 },
    )
  })

  it('always name a layer that has to act, and a change, when they deny', () => {
    fc.assert(
      fc.property(statements, question, (from, asked) => {
        const decision = decide(book(from), asked)
        if (decision.allowed) return
        expect(decision.owner).toMatch(/^(?:identity|platform|application|security)$/)
        expect(decision.action).toMatch(/\.$/)
        expect(decision.message).not.toBe('')
      }),
    )
  })
})

describe('isMatch', () => {
  it.each([
    ['/a/**', '/a', true],
    ['/a/**', '/a/', true],
    ['/a/**', '/a/b/c', true],
    ['/a/**', '/ab', false],
    ['/a/**', '/', false],
    ['/a/**', '', false],
    ['/a', '/a', true],
    ['/a', '/a/', false],
    ['/**', '/', true],
    ['/**', '/a', true],
    ['', '/a', false],
  ])('of %j and %j is %s', (pattern, text, expected) => {
    expect(isMatch(pattern, text)).toBe(expected)
  })
})
