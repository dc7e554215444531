/** What a target says of itself before its first token (RFC 9728): believed where it agrees with policy, refused elsewhere. */
import { describe, expect, it } from 'vitest'
import type { TargetIdentity } from '../../src/policy/grant.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { ManualClock } from '../support/clock.ts'
import { type Answer, type HostileIssuer, json, startHostileIssuer } from '../support/hostile-issuer.ts'
import { makeTestCa } from '../support/tls.ts'
import { RESOURCE, type RigOptions, refusal, serverAt } from '../support/token-rig.ts'
import { atEnd, CLIENT, open, startHostile, startWithKey } from '../support/token-suite.ts'

const GOOD = json({ access_token: 'opaque', token_type: 'DPoP', expires_in: 300, scope: 'read' })
const DISCOVERED = { isDiscovered: true, resource: undefined } as const
const WELL_KNOWN = '/.well-known/oauth-protected-resource'

type Members = Readonly<Record<string, unknown>>

/** A target whose metadata says `members` beside what is right. */
function says(as: () => string, members: Members = {}): Answer {
  return (r, q, origin) => json({ resource: origin, authorization_servers: [as()], ...members })(r, q, origin)
}

/** A server of the tests, a target, and a client that is to get a token for it. */
async function rigOf(metadata: (as: HostileIssuer) => Answer, options: Partial<RigOptions> = {}) {
  const as = await startHostile({ token: GOOD })
  const target = await startHostile({ metadata: metadata(as) })
  const rig = open({ timeout: 400, origins: [target.issuer, 'https://second.example.org'], ...options })
  const one = rig.workload()
  const get = (over: Partial<TargetIdentity> = DISCOVERED, who = one) =>
    rig.get(rig.ask(serverAt(as.issuer, CLIENT), who, over))
  return { as, target, rig, get }
}

const agreeing =
  (members: Members = {}) =>
  (as: HostileIssuer) =>
    says(() => as.issuer, members)

describe('metadata of a target', () => {
  it('is asked for at its first origin, before the server is, and gives the resource where policy states none', async () => {
    const { as, target, get } = await rigOf(agreeing())
    await get()
    expect(target.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([`GET ${WELL_KNOWN}`])
    expect(Object.keys(target.seen[0]?.headers ?? {})).not.toContain('authorization')
    expect(as.asked()[0]?.form.get('resource')).toBe(target.issuer)
  })

  it('is asked for below the path of a resource that is there, and compared as a string', async () => {
    const at = agreeing()
    const { target, get, as } = await rigOf(
      (server) => (r, q, origin) =>
        q.path === `${WELL_KNOWN}/v1`
          ? says(() => server.issuer, { resource: `${origin}/v1` })(r, q, origin)
          : at(server)(r, q, origin),
    )
    await get({ isDiscovered: true, resource: `${target.issuer}/v1` })
    expect(as.asked()[0]?.form.get('resource')).toBe(`${target.issuer}/v1`)
    expect(await refusal(get({ isDiscovered: true, resource: `${target.issuer}/` }))).toBe(
      `discovery_failed: the metadata of the target has resource: "${target.issuer}"; wanted ${target.issuer}/`,
    )
  })

  it('may confirm a resource that is no place', async () => {
    const { get, as } = await rigOf(agreeing({ resource: RESOURCE }))
    await get({ isDiscovered: true, resource: RESOURCE })
    expect(as.asked()[0]?.form.get('resource')).toBe(RESOURCE)
  })

  it('is had before a token of a real server', async () => {
    let issuer = ''
    const target = await startHostile({ metadata: (r, q, o) => says(() => issuer)(r, q, o) })
    const rig = open({ origins: [target.issuer] })
    const real = await startWithKey(rig, { resources: { [target.issuer]: { scopes: ['read'] } } })
    issuer = real.issuer
    const { token } = await rig.get(rig.ask(serverAt(issuer, CLIENT), rig.workload(), DISCOVERED))
    expect(parseJws(token.reveal())?.payload['aud']).toBe(target.issuer)
  })

  it('is not asked for where policy does not say so', async () => {
    const { target, get } = await rigOf(() => json({}, 500))
    await get({})
    expect(target.seen).toEqual([])
  })
})

const THAT = 'the metadata of the target'

describe('metadata that disagrees', () => {
  it.each<[string, Members, Partial<TargetIdentity>, string]>([
    [
      'another resource than policy',
      { resource: 'https://evil.example.org' },
      { resource: RESOURCE },
      `has resource: "https://evil.example.org"; wanted ${RESOURCE}`,
    ],
    ['no resource', { resource: undefined }, {}, 'has resource: none; wanted one at https://localhost:'],
    [
      'a resource elsewhere',
      { resource: 'https://evil.example.org/a' },
      {},
      'has resource: "https://evil.example.org/a"; wanted one at https://localhost:',
    ],
    ['a resource that is a list', { resource: ['x'] }, {}, 'has resource: ["x"]; wanted one at '],
    [
      'a resource with another port',
      { resource: 'https://localhost:1' },
      {},
      'has resource: "https://localhost:1"; wanted one at ',
    ],
    [
      'another server',
      { authorization_servers: ['https://evil.example.org'] },
      {},
      'has authorization_servers: 1 others, first "https://evil.example.org"; wanted https://localhost:',
    ],
    ['no server', { authorization_servers: undefined }, {}, 'has authorization_servers: none; wanted '],
    ['no servers', { authorization_servers: [] }, {}, 'has authorization_servers: 0 others, first none'],
    [
      'a server as text',
      { authorization_servers: 'https://evil.example.org' },
      {},
      'has authorization_servers: "https://evil.example.org"; wanted ',
    ],
    [
      'DPoP where policy has none',
      { dpop_bound_access_tokens_required: true },
      { binding: ['bearer'] },
      'has dpop_bound_access_tokens_required: true; wanted false, as the binding is bearer',
    ],
    [
      'DPoP by a word',
      { dpop_bound_access_tokens_required: 'yes' },
      {},
      'has dpop_bound_access_tokens_required: "yes"; wanted true or false',
    ],
    [
      'other algorithms',
      { dpop_signing_alg_values_supported: ['RS256'] },
      {},
      'has dpop_signing_alg_values_supported: ["RS256"]; wanted a list with ES256',
    ],
    [
      'an algorithm as text',
      { dpop_signing_alg_values_supported: 'ES256' },
      {},
      'has dpop_signing_alg_values_supported: "ES256"; wanted a list with ES256',
    ],
  ])('by %s is refused, and no server is asked', async (_what, members, over, expected) => {
    const { as, get } = await rigOf(agreeing(members))
    const told = await refusal(get({ ...DISCOVERED, ...over }))
    expect(told.slice(0, `discovery_failed: ${THAT} ${expected}`.length)).toBe(
      `discovery_failed: ${THAT} ${expected}`,
    )
    expect(as.seen).toEqual([])
  })

  it.each<[string, Members]>([
    ['the server among others', { authorization_servers: [] }],
    [
      'DPoP',
      { dpop_bound_access_tokens_required: true, dpop_signing_alg_values_supported: ['RS256', 'ES256'] },
    ],
    ['no DPoP', { dpop_bound_access_tokens_required: false }],
    ['what nobody asked', { jwks_uri: 'https://evil.example.org/keys', signed_metadata: 'x.y.z' }],
  ])('by saying %s is no disagreement', async (what, members) => {
    const { get } = await rigOf((as) => {
      const more = what.startsWith('the server')
        ? { authorization_servers: ['https://a.test', as.issuer] }
        : {}
      return says(() => as.issuer, { ...members, ...more })
    })
    expect(await refusal(get())).toBe('none')
  })
})

describe('a target', () => {
  it.each<[string, Answer, string]>([
    ['has none', json({}, 404), 'the target answers with status 404, wanted its metadata'],
    ['fails', json({}, 500), 'the target answers with status 500, wanted its metadata'],
    [
      'redirects to an address of a cloud',
      json({}, 302, { location: 'http://169.254.169.254/' }),
      'the target answers with a redirect, which is not followed',
    ],
    [
      'answers a challenge',
      json({}, 401, { 'www-authenticate': 'Bearer resource_metadata="https://evil.test/"' }),
      'the target answers with status 401, wanted its metadata',
    ],
    [
      'sends a page',
      (r) => void r.writeHead(200, { 'content-type': 'text/html' }).end('{}'),
      `${THAT} is not application/json`,
    ],
    ['sends no JSON', json('{'), `${THAT} is not one JSON object`],
    ['sends a list', json([]), `${THAT} is not one JSON object`],
    ['says one thing twice', json('{"resource":"a","resource":"b"}'), `${THAT} is not one JSON object`],
    [
      'nests without end',
      json(`{"a":${'['.repeat(500)}${']'.repeat(500)}}`),
      `${THAT} is not one JSON object`,
    ],
    ['sends too much', json(`"${'x'.repeat(300_000)}"`), 'the target answers with over 262144 bytes'],
    ['never answers', () => {}, 'the target does not answer in time'],
    [
      'is cut off',
      (r) => void r.writeHead(200, { 'content-length': '500' }).write('{', () => r.destroy()),
      'the target cuts its answer off',
    ],
  ])('that %s is given no token', async (_what, metadata, expected) => {
    const { as, get } = await rigOf(() => metadata)
    expect(await refusal(get())).toBe(`discovery_failed: ${expected}`)
    expect(as.seen).toEqual([])
  })

  it('whose certificate does not verify is asked nothing', async () => {
    const target = await startHostileIssuer(makeTestCa(), {})
    atEnd(() => target.stop())
    const { get } = await rigOf(agreeing(), { origins: [target.issuer] })
    expect(await refusal(get())).toMatch(
      /^discovery_failed: the target: the connection is not verified \([A-Z_]+\)$/,
    )
    expect(target.seen).toEqual([])
  })

  it('on this node that platform does not list is asked nothing', async () => {
    const { target, get } = await rigOf(agreeing(), { addresses: [] })
    await expect(get()).rejects.toMatchObject({ reason: 'discovery_failed', owner: 'platform' })
    expect(target.seen).toEqual([])
  })

  it('of which platform says nothing has no token', async () => {
    const as = await startHostile({ token: GOOD })
    const rig = open()
    const got = rig.get(rig.ask(serverAt(as.issuer, CLIENT), rig.workload(), DISCOVERED))
    await expect(got).rejects.toMatchObject({ reason: 'policy_denied', owner: 'platform' })
  })

  it('over plain HTTP has no token', async () => {
    const { get } = await rigOf(agreeing(), { origins: ['http://localhost:1'] })
    expect(await refusal(get())).toBe('discovery_failed: the target is not an https server')
  })
})

describe('what is kept', () => {
  it('is asked for once by all who wait, and again after ten minutes', async () => {
    const clock = new ManualClock(Date.now())
    const { target, rig, get } = await rigOf(agreeing(), { clock })
    await Promise.all([1, 2, 3].map(() => get(DISCOVERED, rig.workload())))
    expect(target.seen).toHaveLength(1)
    clock.advance(599_000)
    await get(DISCOVERED, rig.workload())
    expect(target.seen).toHaveLength(1)
    clock.advance(2_000)
    await get(DISCOVERED, rig.workload())
    expect(target.seen).toHaveLength(2)
  })

  it('is not used against what the target says by now', async () => {
    const clock = new ManualClock(Date.now())
    let answer: Answer | undefined
    const { rig, get } = await rigOf((as) => (r, q, o) => (answer ?? says(() => as.issuer))(r, q, o), {
      clock,
    })
    await get(DISCOVERED, rig.workload())
    answer = json({ resource: 'https://evil.example.org' })
    clock.advance(601_000)
    expect(await refusal(get(DISCOVERED, rig.workload()))).toContain('authorization_servers: none')
  })

  it('is used on while the target fails, for an hour', async () => {
    const clock = new ManualClock(Date.now())
    let answer: Answer | undefined
    const { rig, get } = await rigOf((as) => (r, q, o) => (answer ?? says(() => as.issuer))(r, q, o), {
      clock,
    })
    await get(DISCOVERED, rig.workload())
    answer = json({}, 503)
    clock.advance(3_500_000)
    expect(await refusal(get(DISCOVERED, rig.workload()))).toBe('none')
    clock.advance(101_000)
    expect(await refusal(get(DISCOVERED, rig.workload()))).toContain('answers with status 503')
  })
})
