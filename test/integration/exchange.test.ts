/** Token exchange against a real authorization server, directly and over two of them; and against hostile answers. */
import { afterEach, describe, expect, it } from 'vitest'
import { Secret } from '../../src/base/secret.ts'
import { exchangedFor } from '../../src/egress/subject-rule.ts'
import type { TokenAsk } from '../../src/egress/tokens.ts'
import type { ExchangeRule, Server } from '../../src/policy/grant.ts'
import { thumbprint } from '../../src/spiffe/jwk.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { ecPair } from '../support/certificates.ts'
import { type Answer, type HostileAnswers, json, startHostileIssuer } from '../support/hostile-issuer.ts'
import { type IssuerOptions, startIssuer, type TestIssuer } from '../support/issuer.ts'
import { makeTestCa } from '../support/tls.ts'
import {
  idOf,
  openTokenRig,
  privateKeyJwt,
  RESOURCE,
  type RigWorkload,
  refusal,
  serverAt,
  type TokenRig,
} from '../support/token-rig.ts'
import { signToken } from '../support/tokens.ts'
import { until } from '../support/until.ts'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

const ca = makeTestCa()
const CLIENT = privateKeyJwt('orders-client')
const HOME = 'https://login.example.org'
const home = ecPair()
const RULE: ExchangeRule = {
  subjects: [HOME],
  audiences: [],
  isRequired: true,
  subjectType: 'access_token',
  hasActor: false,
  via: undefined,
}
const now = () => Math.floor(Date.now() / 1000)

/** A token of a person, as another service was called with it; bound to that service's key. */
const tokenOf = (sub: string, over: Record<string, unknown> = {}) =>
  signToken(
    { alg: 'ES256', typ: 'at+jwt' },
    { iss: HOME, sub, aud: idOf('web'), exp: now() + 60, cnf: { jkt: 'A'.repeat(43) }, ...over },
    home,
  )

function open(): TokenRig {
  const rig = openTokenRig({ ca, timeout: 2_000 })
  closing.push(() => rig.close())
  return rig
}

/** An ask on behalf of whoever `token` is of. */
function askFor(
  rig: TokenRig,
  server: Server,
  one: RigWorkload,
  token: string,
  rule: Partial<ExchangeRule> = {},
) {
  const ask = rig.ask(server, one, { exchange: { ...RULE, ...rule } })
  const owner = { spiffeId: one.entry.spiffeId, instance: one.workload.instanceOf(one.entry) }
  const { subject } = rig.subjects.add(owner, new Secret(token))
  const { identity } = ask.target
  if (!identity) throw new Error('no identity')
  return {
    ...ask,
    subject: exchangedFor({ entry: one.entry, identity, target: ask.target, subject }, server),
  }
}

/** An issuer that knows the node's keys of `orders-client`, on a port that is known before. */
async function start(rig: TokenRig, over: Partial<IssuerOptions> = {}): Promise<TestIssuer> {
  const probe = await startIssuer({ ca, clients: [] })
  await probe.stop()
  const jwks = rig.clientKeys.jwks(CLIENT, serverAt(probe.issuer, CLIENT))
  const issuer = await startIssuer({
    ca,
    clients: [{ clientId: 'orders-client', jwks, scopes: ['read'] }],
    resources: { [RESOURCE]: { scopes: ['read', 'write'] } },
    exchange: { subjects: { [HOME]: home.publicKey }, actors: rig.jwtKeys },
    port: Number(new URL(probe.issuer).port),
    ...over,
  })
  closing.push(() => issuer.stop())
  return issuer
}

const claimsOf = async (rig: TokenRig, ask: TokenAsk) =>
  parseJws((await rig.get(ask)).token.reveal())?.payload

const tokenRequests = ({ requests }: TestIssuer) => requests.filter(({ path }) => path === '/token')

describe('a token in exchange', () => {
  it("is the subject's, bound to the key of this workload and not to the caller's", async () => {
    const rig = open()
    const issuer = await start(rig)
    const exp = now() + 60
    const ask = askFor(rig, serverAt(issuer.issuer, CLIENT), rig.workload(), tokenOf('ada', { exp }))
    const { token, jkt, expires } = await rig.get(ask)
    const claims = parseJws(token.reveal())?.payload
    expect(claims).toMatchObject({
      sub: 'ada',
      client_id: 'orders-client',
      aud: RESOURCE,
      scope: 'read',
      cnf: { jkt: ask.signer.jkt },
    })
    expect(jkt).toBe(ask.signer.jkt)
    expect(expires).toBeLessThanOrEqual(exp)
    expect(Number(claims?.['exp'])).toBeLessThanOrEqual(exp)
  })

  it('names this workload as actor before those who acted earlier, by a JWT-SVID for the server alone', async () => {
    const rig = open()
    const issuer = await start(rig)
    const server = serverAt(issuer.issuer, CLIENT)
    const token = tokenOf('ada', { act: { sub: 'gateway' } })
    const ask = askFor(rig, server, rig.workload(), token, { hasActor: true })
    expect(await claimsOf(rig, ask)).toMatchObject({
      sub: 'ada',
      act: { sub: idOf('web'), act: { sub: 'gateway' } },
    })
  })

  it('is another for each subject and each workload, and the same for the same', async () => {
    const rig = open()
    const issuer = await start(rig)
    const server = serverAt(issuer.issuer, CLIENT)
    const [one, other] = [rig.workload(), rig.workload()]
    const [ada, bob] = [tokenOf('ada'), tokenOf('bob')]
    const asks = [
      askFor(rig, server, one, ada),
      askFor(rig, server, one, bob),
      askFor(rig, server, other, ada),
      askFor(rig, server, one, ada),
    ]
    const tokens = await Promise.all(asks.map((ask) => rig.get(ask)))
    expect(new Set(tokens.map(({ token }) => token.reveal())).size).toBe(3)
    expect(tokens[3]?.token.reveal()).toBe(tokens[0]?.token.reveal())
    expect(tokenRequests(issuer)).toHaveLength(3)
    const own = rig.ask(server, one, { exchange: RULE })
    expect((await claimsOf(rig, own))?.['sub']).toBe('orders-client')
  })

  it('is had from a server that wants nonces', async () => {
    const rig = open()
    const issuer = await start(rig, { nonces: true })
    const ask = askFor(rig, serverAt(issuer.issuer, CLIENT), rig.workload(), tokenOf('ada'))
    expect((await claimsOf(rig, ask))?.['sub']).toBe('ada')
    expect(tokenRequests(issuer).map(({ status }) => status)).toEqual([400, 200])
  })

  it('is refused by a server that does not know who vouches for the subject, by its code', async () => {
    const rig = open()
    const issuer = await start(rig, { exchange: { subjects: {} } })
    const ask = askFor(rig, serverAt(issuer.issuer, CLIENT), rig.workload(), tokenOf('ada'))
    expect(await refusal(rig.get(ask))).toBe(
      'issuer_refused: the authorization server refuses the token: invalid_grant',
    )
  })

  it('ends with the handle, and is given back', async () => {
    const rig = open()
    const issuer = await start(rig, {
      resources: { [RESOURCE]: { scopes: ['read'], format: 'opaque' } },
    })
    const ask = askFor(rig, serverAt(issuer.issuer, CLIENT), rig.workload(), tokenOf('ada'))
    const token = (await rig.get(ask)).token.reveal()
    expect([rig.tokens.count, await issuer.isLive(token)]).toEqual([1, true])
    expect(rig.subjects.end({})).toBe(1)
    expect(rig.tokens.count).toBe(0)
    expect(await refusal(rig.get(ask))).toMatch(/^subject_unknown/)
    await until('the revocation', async () => !(await issuer.isLive(token)))
  })
})

describe('a token over two servers (identity chaining)', () => {
  async function chain() {
    const rig = open()
    const first = await start(rig)
    const grantKey = first.grantKey
    if (!grantKey) throw new Error('no key of grants')
    const second = await start(rig, { exchange: { subjects: { [first.issuer]: grantKey } } })
    return {
      rig,
      first,
      second,
      via: serverAt(first.issuer, CLIENT),
      server: serverAt(second.issuer, CLIENT),
    }
  }

  it("is the target's own server's, for a grant of the first, used once", async () => {
    const { rig, first, second, via, server } = await chain()
    const ask = askFor(rig, server, rig.workload(), tokenOf('ada'), { via, hasActor: true })
    expect(await claimsOf(rig, ask)).toMatchObject({
      iss: second.issuer,
      sub: 'ada',
      act: { sub: idOf('web') },
      aud: RESOURCE,
      cnf: { jkt: ask.signer.jkt },
    })
    const other = askFor(rig, server, rig.workload(), tokenOf('bob'), { via })
    expect((await claimsOf(rig, other))?.['sub']).toBe('bob')
    expect([tokenRequests(first).length, tokenRequests(second).length]).toEqual([2, 2])
  })

  it('is refused where the second server does not take grants of the first', async () => {
    const { rig, via, first } = await chain()
    const third = await start(rig, { exchange: { subjects: { [HOME]: home.publicKey } } })
    const ask = askFor(rig, serverAt(third.issuer, CLIENT), rig.workload(), tokenOf('ada'), { via })
    expect(await refusal(rig.get(ask))).toContain('invalid_grant')
    expect(tokenRequests(first)).toHaveLength(1)
  })
})

const JWT = 'urn:ietf:params:oauth:token-type:jwt'
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'
const END = now() + 100
const server = ecPair()

/** A good answer to an exchange, but for what is said. */
const exchanged =
  (claims: Record<string, unknown> | string = {}, over: Record<string, unknown> = {}): Answer =>
  (response, request, issuer) => {
    const { jwk } = parseJws(String(request.headers['dpop']))?.header ?? {}
    const standard = {
      iss: issuer,
      aud: RESOURCE,
      sub: 'ada',
      iat: now(),
      exp: END,
      scope: 'read',
      cnf: { jkt: thumbprint(jwk as Parameters<typeof thumbprint>[0]) },
    }
    const token =
      typeof claims === 'string' ? claims : signToken({ alg: 'ES256' }, { ...standard, ...claims }, server)
    const body = { access_token: token, token_type: 'DPoP', issued_token_type: ACCESS_TOKEN, ...over }
    json(body)(response, request, issuer)
  }

describe('a hostile server', () => {
  async function outcome(answers: HostileAnswers, rule: Partial<ExchangeRule> = {}) {
    const rig = open()
    const issuer = await startHostileIssuer(ca, answers)
    closing.push(() => issuer.stop())
    const token = tokenOf('ada', { exp: END })
    const ask = askFor(rig, serverAt(issuer.issuer, CLIENT), rig.workload(), token, rule)
    return { said: await refusal(rig.get(ask)), forms: issuer.asked().map(({ form }) => form), token }
  }

  it('gets the subject token once, with all that RFC 8693 wants said, and nothing else', async () => {
    const { said, forms, token } = await outcome({ token: exchanged() })
    expect(said).toBe('none')
    const [form] = forms
    form?.delete('client_assertion')
    expect(Object.fromEntries(form ?? [])).toEqual({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      client_id: 'orders-client',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      requested_token_type: ACCESS_TOKEN,
      subject_token: token,
      subject_token_type: ACCESS_TOKEN,
      resource: RESOURCE,
      scope: 'read',
    })
  })

  it('gets a JWT by that name, and a JWT-SVID for itself alone as actor', async () => {
    const { forms } = await outcome({ token: exchanged() }, { subjectType: 'jwt', hasActor: true })
    const [form] = forms
    expect([form?.get('subject_token_type'), form?.get('actor_token_type')]).toEqual([JWT, JWT])
    const actor = parseJws(form?.get('actor_token') ?? '')?.payload
    expect(actor).toMatchObject({ sub: idOf('web') })
    expect([actor?.['aud']].flat()).toEqual([expect.stringMatching(/^https:\/\/localhost:/)])
    expect(Number(actor?.['exp']) - now()).toBeLessThanOrEqual(60)
  })

  const wide = 'issued_too_wide: the issued token'
  const untyped =
    'issuer_unavailable: the authorization server does not say that it issued the type of token asked for'
  it.each<[string, Answer, string]>([
    ['for another person', exchanged({ sub: 'eve' }), `${wide} has another sub than the subject token`],
    ['for nobody', exchanged({ sub: undefined }), `${wide} has another sub than the subject token`],
    [
      'that outlives the subject',
      exchanged({ exp: END + 30 }),
      'issued_too_long: the issued token outlives the subject token by 30 s',
    ],
    [
      'that outlives it, and cannot be read',
      exchanged('opaque', { expires_in: 200 }),
      expect.stringMatching(
        /^issued_too_long: the issued token outlives the subject token by \d+ s$/,
      ) as never,
    ],
    [
      'bound to the key of the caller',
      exchanged({ cnf: { jkt: 'A'.repeat(43) } }),
      'issued_unbound: the issued token is bound to another key',
    ],
    [
      'that is a bearer token',
      exchanged({}, { token_type: 'Bearer' }),
      'issued_unbound: the issued token is a bearer token, wanted token_type DPoP',
    ],
    [
      'for another audience',
      exchanged({ aud: 'https://other.example.org' }),
      'issued_too_wide: the issued token is for another audience than the resource of the target',
    ],
    [
      'with a further scope',
      exchanged({ scope: 'read admin' }),
      'issued_too_wide: the issued token has 1 scopes that the target does not state',
    ],
    ['without its type', exchanged({}, { issued_token_type: undefined }), untyped],
    ['of another type', exchanged({}, { issued_token_type: JWT }), untyped],
    ['whose type is a list', exchanged({}, { issued_token_type: [ACCESS_TOKEN] }), untyped],
    [
      'that is no access token',
      exchanged({}, { token_type: 'N_A' }),
      'issued_unbound: the issued token has an unknown token_type',
    ],
  ])('issues a token %s, which is refused', async (_what, token, expected) => {
    const { said } = await outcome({ token })
    expect(said).toEqual(expected)
  })

  it.each([
    ['nobody', {}],
    ['somebody else', { act: { sub: 'spiffe://example.test/other' } }],
    ['this workload second', { act: { sub: 'x', act: { sub: idOf('web') } } }],
  ])('names %s as actor, which is refused', async (_what, claims) => {
    const { said } = await outcome({ token: exchanged(claims) }, { hasActor: true })
    expect(said).toBe(`${wide} does not name this workload as its actor: act.sub`)
  })

  const NA = { token_type: 'N_A', issued_token_type: JWT }
  const TARGET = 'https://second.example.org'
  it.each<[string, Answer, string]>([
    ['for another server', exchanged({}, NA), 'issued_too_wide: the grant is for another audience'],
    [
      'for two servers',
      exchanged({ aud: [TARGET, 'https://x.example'] }, NA),
      'issued_too_wide: the grant is for another audience',
    ],
    ['for another person', exchanged({ aud: TARGET, sub: 'eve' }, NA), `${wide} has another sub`],
    ['of another issuer', exchanged({ aud: TARGET, iss: HOME }, NA), 'issuer_unavailable: the auth'],
    [
      'that lives long',
      exchanged({ aud: TARGET, exp: now() + 3_600 }, NA),
      'issued_too_long: the grant between the servers lives longer than 300 s',
    ],
    ['without end', exchanged({ aud: TARGET, exp: undefined }, NA), 'issued_too_long: the grant'],
    [
      'that is opaque',
      exchanged('opaque', NA),
      'issuer_unavailable: the authorization server issues a grant that',
    ],
    ['that is an access token', exchanged({ aud: TARGET }), untyped],
  ])('issues a grant %s, which no other server is shown', async (_what, token, expected) => {
    const rig = open()
    const [first, second] = [
      await startHostileIssuer(ca, { token }),
      await startHostileIssuer(ca, { token: exchanged() }),
    ]
    closing.push(
      () => first.stop(),
      () => second.stop(),
    )
    const via = serverAt(first.issuer, CLIENT)
    // The target's server is reached where the second one listens, whatever it is called.
    const target = serverAt(TARGET, CLIENT, `${second.issuer}/token`)
    const ask = askFor(rig, target, rig.workload(), tokenOf('ada', { exp: END }), { via })
    expect(await refusal(rig.get(ask))).toContain(expected)
    expect(second.asked()).toEqual([])
  })
})
