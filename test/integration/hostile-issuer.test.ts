/** The token client against authorization servers that are wrong, slow, huge, truncated or hostile. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import { type PublicJwk, thumbprint } from '../../src/spiffe/jwk.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { ecPair } from '../support/certificates.ts'
import { ManualClock } from '../support/clock.ts'
import {
  type Answer,
  type HostileAnswers,
  type HostileIssuer,
  json,
  startHostileIssuer,
} from '../support/hostile-issuer.ts'
import { makeTestCa } from '../support/tls.ts'
import { idOf, RESOURCE, type RigOptions, refusal, serverAt, type TokenRig } from '../support/token-rig.ts'
import { atEnd, CLIENT, open as openPatiently, startHostile as start } from '../support/token-suite.ts'
import { signToken } from '../support/tokens.ts'
import { until } from '../support/until.ts'

const CANARY = 'canaryA1b2C3d4E5f6G7h8'
const THUMBPRINT = 'A'.repeat(43)
const key = ecPair()

const open = (options: Partial<RigOptions> = {}): TokenRig => openPatiently({ timeout: 400, ...options })

/** What the client makes of `answers`. */
async function outcome(answers: HostileAnswers, endpoint?: string, rig = open()): Promise<string> {
  const issuer = await start(answers)
  return refusal(rig.get(rig.ask(serverAt(issuer.issuer, CLIENT, endpoint), rig.workload())))
}

const GOOD = { access_token: CANARY, token_type: 'DPoP', expires_in: 120, scope: 'read' }
const good = (over: Record<string, unknown> = {}) => json({ ...GOOD, ...over })

/** A JWT of these claims, bound to the key that signed the proof unless they say otherwise. */
const jwt =
  (claims: Record<string, unknown>, over: Record<string, unknown> = {}): Answer =>
  (response, request, issuer) => {
    const proof = parseJws(String(request.headers['dpop']))
    const now = Math.floor(Date.now() / 1000)
    const standard = {
      iss: issuer,
      aud: RESOURCE,
      iat: now,
      exp: now + 120,
      scope: 'read',
      canary: CANARY,
      cnf: { jkt: thumbprintOf(proof?.header['jwk']) },
    }
    good({ access_token: signToken({ alg: 'ES256' }, { ...standard, ...claims }, key), ...over })(
      response,
      request,
      issuer,
    )
  }

describe('metadata', () => {
  it.each<[string, Answer, string]>([
    [
      'of another issuer',
      json({ issuer: 'https://other.example.org', token_endpoint: 'https://other.example.org/token' }),
      'names another issuer in its metadata than policy',
    ],
    [
      'of the issuer with a slash',
      (r, q, issuer) => json({ issuer: `${issuer}/`, token_endpoint: `${issuer}/token` })(r, q, issuer),
      'names another issuer in its metadata than policy',
    ],
    [
      'without an endpoint',
      (r, q, issuer) => json({ issuer })(r, q, issuer),
      'names no token endpoint in its metadata',
    ],
    [
      'that is a redirect',
      json({}, 302, { location: 'http://169.254.169.254/' }),
      'answers with a redirect, which is not followed',
    ],
    ['that is not JSON', json('<html>'), 'has metadata that is not one JSON object'],
    [
      'with its issuer twice',
      (r, q, issuer) => json(`{"issuer":"https://x.example","issuer":"${issuer}"}`)(r, q, issuer),
      'has metadata that is not one JSON object',
    ],
    ['over its size', json(`"${'x'.repeat(300_000)}"`), 'answers with over 262144 bytes'],
    ['behind an error', json({}, 500), 'answers with status 500'],
    ['that is nowhere', json({}, 404), 'has no metadata'],
    ['that never comes', () => {}, 'does not answer in time'],
    [
      'that is cut off',
      (response) =>
        void response.writeHead(200, { 'content-length': '500' }).write('{', () => response.destroy()),
      'cuts its answer off',
    ],
  ])('%s is refused', async (_what, metadata, expected) => {
    expect(await outcome({ metadata, token: good() })).toBe(
      `issuer_unavailable: the authorization server ${expected}`,
    )
  })

  it.each([
    ['another origin', 'https://evil.example.org/token'],
    ['plain HTTP', 'http://localhost/token'],
    ['another port', 'https://localhost:1/token'],
    ['no URL', '::'],
  ])('does not lead the client to %s', async (_what, endpoint) => {
    const metadata: Answer = (r, q, issuer) => json({ issuer, token_endpoint: endpoint })(r, q, issuer)
    expect(await outcome({ metadata })).toBe(
      'issuer_unavailable: the token endpoint is not at the origin of the issuer',
    )
  })

  it('is looked for where OpenID Connect has it, when OAuth has none', async () => {
    const other: Answer = (r, q, issuer) => json({ issuer, token_endpoint: `${issuer}/token` })(r, q, issuer)
    expect(await outcome({ metadata: json({}, 404), other, token: good() })).toBe('none')
  })

  it('is not asked for where policy states the endpoint', async () => {
    const rig = open()
    const issuer = await start({ metadata: json({}, 500), token: good() })
    const server = serverAt(issuer.issuer, CLIENT, `${issuer.issuer}/token`)
    expect(await refusal(rig.get(rig.ask(server, rig.workload())))).toBe('none')
    expect(issuer.seen).toHaveLength(1)
  })

  it('is asked for once by all who wait', async () => {
    const rig = open()
    const issuer = await start({ token: good() })
    const server = serverAt(issuer.issuer, CLIENT)
    await Promise.all([1, 2, 3].map(() => rig.get(rig.ask(server, rig.workload()))))
    expect(issuer.seen.filter(({ method }) => method === 'GET')).toHaveLength(1)
  })
})

describe('an answer of a token endpoint', () => {
  it.each<[string, Answer, string]>([
    [
      'a bearer token',
      good({ token_type: 'Bearer' }),
      'issued_unbound: the issued token is a bearer token, wanted token_type DPoP',
    ],
    [
      'a token of an unknown type',
      good({ token_type: 'MAC' }),
      'issued_unbound: the issued token has an unknown token_type',
    ],
    [
      'a token bound to another key',
      jwt({ cnf: { jkt: THUMBPRINT } }),
      'issued_unbound: the issued token is bound to another key',
    ],
    [
      'a readable token without a key',
      jwt({ cnf: undefined }),
      'issued_unbound: the issued token has no cnf.jkt',
    ],
    [
      'a token bound to a certificate',
      jwt({ cnf: { 'x5t#S256': THUMBPRINT } }),
      'issued_unbound: the issued token has no cnf.jkt',
    ],
    [
      'a token of another issuer',
      jwt({ iss: 'https://other.example.org' }),
      'issuer_unavailable: the authorization server issues a token that names another issuer',
    ],
    [
      'a token of a further scope',
      good({ scope: 'read admin' }),
      'issued_too_wide: the issued token has 1 scopes that the target does not state',
    ],
    [
      'a token that holds a further scope',
      jwt({ scope: 'read admin root' }),
      'issued_too_wide: the issued token has 2 scopes that the target does not state',
    ],
    [
      'a token for two audiences',
      jwt({ aud: [RESOURCE, 'https://all.example.org'] }),
      'issued_too_wide: the issued token is for another audience than the resource of the target',
    ],
    [
      'a token for no audience',
      jwt({ aud: undefined }),
      'issued_too_wide: the issued token is for another audience than the resource of the target',
    ],
    [
      'a token that lives too long',
      good({ expires_in: 301 }),
      'issued_too_long: the issued token lives 301 s, allowed are 300 s',
    ],
    ['a token whose exp is too far', jwt({ exp: 4_000_000_000 }), 'issued_too_long: the issued token lives '],
    [
      'a token without an end',
      good({ expires_in: undefined }),
      'issued_too_long: the issued token does not say when it ends: no expires_in, no exp',
    ],
    [
      'a token that has ended',
      jwt({ iat: 1_000, exp: 1_120 }),
      'issuer_unavailable: the authorization server issues a token that has ended by the clock of this node',
    ],
    [
      'a token that ends now',
      good({ expires_in: 0 }),
      'issuer_unavailable: the authorization server issues a token that has ended by the clock of this node',
    ],
    [
      'a token with a line break',
      good({ access_token: `${CANARY}\r\nX-Evil: 1` }),
      'issuer_unavailable: the authorization server issues a token that no header can carry',
    ],
    [
      'a token over its size',
      good({ access_token: CANARY.repeat(1_000) }),
      'issuer_unavailable: the authorization server issues a token that no header can carry',
    ],
    [
      'no token',
      good({ access_token: undefined }),
      'issuer_unavailable: the authorization server gives an answer that is no token response',
    ],
    [
      'a token twice',
      json(`{"access_token":"a","access_token":"${CANARY}","token_type":"DPoP","expires_in":120}`),
      'issuer_unavailable: the authorization server gives an answer that is no token response',
    ],
    [
      'no type',
      good({ token_type: undefined }),
      'issuer_unavailable: the authorization server gives an answer that is no token response',
    ],
    [
      'a list',
      json([GOOD]),
      'issuer_unavailable: the authorization server gives an answer that is no token response',
    ],
    [
      'no JSON',
      json(`${CANARY}{`),
      'issuer_unavailable: the authorization server gives an answer that is no token response',
    ],
    [
      'deep JSON',
      json(`{"a":${'['.repeat(500)}${']'.repeat(500)}}`),
      'issuer_unavailable: the authorization server gives an answer that is no token response',
    ],
    [
      'too much',
      json(' '.repeat(300_000)),
      'issuer_unavailable: the authorization server answers with over 262144 bytes',
    ],
    [
      'a redirect',
      json({}, 307, { location: 'https://evil.example.org/' }),
      'issuer_unavailable: the authorization server answers with a redirect, which is not followed',
    ],
    [
      'an error of its own',
      json({ error: 'server_error' }, 500),
      'issuer_unavailable: the authorization server answers with status 500',
    ],
    [
      'a refusal that is no OAuth',
      json(CANARY, 403),
      'issuer_unavailable: the authorization server answers with status 403',
    ],
    [
      'a refusal',
      json({ error: 'invalid_client', error_description: CANARY }, 401, {
        'www-authenticate': `Basic realm="${CANARY}"`,
      }),
      'issuer_refused: the authorization server refuses the token: invalid_client',
    ],
    [
      'a refusal by a code of its own',
      json({ error: CANARY }, 400),
      'issuer_refused: the authorization server refuses the token: status 400 and no registered error code',
    ],
    [
      'a refusal by a clock that is off',
      json({ error: 'invalid_dpop_proof' }, 400, { date: new Date(Date.now() + 3_600_000).toUTCString() }),
      'issuer_refused: the authorization server refuses the token: invalid_dpop_proof; its clock is ',
    ],
    ['nothing', () => {}, 'issuer_unavailable: the authorization server does not answer in time'],
    [
      'one byte and then nothing',
      (response) => void response.writeHead(200).write('{'),
      'issuer_unavailable: the authorization server does not answer in time',
    ],
    [
      'half of it',
      (response) =>
        void response.writeHead(200, { 'content-length': '500' }).write('{', () => response.destroy()),
      'issuer_unavailable: the authorization server cuts its answer off',
    ],
    [
      'a hang-up',
      (response) => response.destroy(),
      'issuer_unavailable: the authorization server cuts its answer off',
    ],
    [
      'a huge head',
      json(GOOD, 200, { 'x-fill': 'x'.repeat(20_000) }),
      'issuer_unavailable: the authorization server cuts its answer off',
    ],
  ])('with %s is refused, and nothing of it is repeated', async (_what, token, expected) => {
    const rig = open()
    const issuer = await start({ token })
    const caught = await rig
      .get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
      .catch((error: unknown) => error)
    if (!(caught instanceof Fault)) throw new Error('no Fault')
    const told = `${caught.reason}: ${caught.message}`
    expect(told.slice(0, expected.endsWith(' ') ? expected.length : undefined)).toBe(expected)
    expect(`${JSON.stringify(caught)}${caught.stack}${JSON.stringify(rig.events)}`).not.toContain(CANARY)
  })

  it.each<[string, Answer]>([
    ['an opaque token', good()],
    ['an opaque token without a scope', good({ scope: undefined })],
    ['a bound JWT', jwt({})],
    ['a JWT for a list of one audience', jwt({ aud: [RESOURCE] })],
    ['a type in other letters', good({ token_type: 'dpop' })],
    ['an ID token that nobody asked for', good({ id_token: 'not.a.token' })],
  ])('with %s is taken', async (_what, token) => {
    expect(await outcome({ token })).toBe('none')
  })

  it('ends at the earlier of what answer and token say', async () => {
    const rig = open()
    const now = Math.floor(Date.now() / 1000)
    const issuer = await start({ token: jwt({ exp: now + 60 }, { expires_in: 120 }) })
    const { expires } = await rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    expect(expires).toBe(now + 60)
  })

  it('is waited for no longer than a caller does', async () => {
    const rig = open()
    const issuer = await start({ token: () => {} })
    const controller = new AbortController()
    const pending = refusal(
      rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()), controller.signal),
    )
    controller.abort()
    expect(await pending).toContain('canceled')
  })
})

describe('a token that lives too long, where policy has it revoked', () => {
  const REVOKE = { tooLong: 'revoke' } as const
  const withRevocation: Answer = (r, q, issuer) =>
    json({ issuer, token_endpoint: `${issuer}/token`, revocation_endpoint: `${issuer}/revoke` })(r, q, issuer)
  const long = good({ expires_in: 3_600 })
  const revoked = ({ seen }: HostileIssuer) => seen.filter(({ path }) => path === '/revoke')

  async function held(answers: HostileAnswers, clock = new ManualClock(Date.now())) {
    const rig = open({ clock })
    const issuer = await start({ metadata: withRevocation, ...answers })
    const got = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload(), REVOKE))
    return { rig, issuer, clock, got }
  }

  it.each<[string, Answer | undefined]>([
    ['no revocation endpoint', undefined],
    [
      'one elsewhere',
      (r, q, issuer) =>
        json({ issuer, token_endpoint: `${issuer}/token`, revocation_endpoint: 'https://evil.test/r' })(
          r,
          q,
          issuer,
        ),
    ],
  ])('is refused of a server that has %s', async (_what, metadata) => {
    const rig = open()
    const issuer = await start(metadata ? { metadata, token: long } : { token: long })
    const got = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload(), REVOKE))
    expect(await refusal(got)).toBe(
      'issued_too_long: the issued token lives longer than 300 s, and its server has no revocation endpoint at the origin of the issuer',
    )
  })

  it.each<[string, Answer]>([
    ['of its answer', long],
    ['of its exp', jwt({ exp: 4_000_000_000 }, { expires_in: 120 })],
  ])('by the word %s is used no longer than the target allows', async (_what, token) => {
    const { clock, got, issuer, rig } = await held({ token, other: json({}) })
    const { expires } = await got
    expect(expires).toBeLessThanOrEqual(Math.floor(clock.now() / 1000) + 300)
    clock.advance(300_000)
    await until('the revocation', () => rig.events.includes('revoked'))
    expect(revoked(issuer)[0]?.form.get('token')).toBe((await got).token.reveal())
  })

  it('is still refused when it does not say when it ends', async () => {
    const { got } = await held({ token: good({ expires_in: undefined }) })
    expect(await refusal(got)).toContain('does not say when it ends')
  })

  it('is revoked later where the server fails, a bounded number of times', async () => {
    const { clock, got, issuer, rig } = await held({ token: long, other: json({}, 503) })
    await got
    clock.advance(300_000)
    for (let tries = 1; tries <= 5; tries += 1) {
      await until('a try', () => rig.events.filter((event) => event.startsWith('revoked:')).length === tries)
      clock.advance(30_000)
    }
    clock.advance(600_000)
    await new Promise((resolve) => setImmediate(resolve))
    expect(revoked(issuer)).toHaveLength(5)
  })
})

describe('a nonce', () => {
  const challenge = (nonce: string | string[]) =>
    json({ error: 'use_dpop_nonce' }, 400, { 'dpop-nonce': nonce })

  it('is answered once, with a new proof and a new assertion', async () => {
    const rig = open()
    const issuer = await start({
      token: (r, q, i) => (nonceOf(q) === 'n-1' ? good() : challenge('n-1'))(r, q, i),
    })
    await rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    const [first, second] = issuer.asked()
    const jtis = [first, second].flatMap((one) => [
      parseJws(String(one?.headers['dpop']))?.payload['jti'],
      parseJws(one?.form.get('client_assertion') ?? '')?.payload['jti'],
    ])
    expect(new Set(jtis).size).toBe(4)
    expect(first && nonceOf(first)).toBeUndefined()
  })

  it('that is never right ends the request after one more try', async () => {
    let count = 0
    const token: Answer = (r, q, i) => challenge(`n-${count++}`)(r, q, i)
    expect(await outcome({ token })).toBe(
      'issuer_refused: the authorization server refuses the token: use_dpop_nonce',
    )
    expect(count).toBe(2)
  })

  it.each<[string, string | string[]]>([
    ['over 256 characters', 'n'.repeat(257)],
    ['with a quote', 'a"b'],
    ['with a space', 'a b'],
    ['given twice', ['a', 'b']],
  ])('%s is not used', async (_what, nonce) => {
    expect(await outcome({ token: challenge(nonce) })).toBe(
      'issuer_unavailable: the authorization server wants a nonce and gives none that can be used',
    )
  })

  it('that comes with a token is used for the next one', async () => {
    const rig = open()
    const issuer = await start({ token: json(GOOD, 200, { 'dpop-nonce': 'next' }) })
    const server = serverAt(issuer.issuer, CLIENT)
    await rig.get(rig.ask(server, rig.workload()))
    await rig.get(rig.ask(server, rig.workload()))
    expect(issuer.asked().map(nonceOf)).toEqual([undefined, 'next'])
  })
})

describe('what is sent', () => {
  it('is a proof for the endpoint and an assertion for the issuer alone', async () => {
    const rig = open()
    const issuer = await start({ token: good() })
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())
    await rig.get(ask)
    const [one] = issuer.asked()
    expect(Object.fromEntries(one?.form ?? [])).toMatchObject({
      grant_type: 'client_credentials',
      scope: 'read',
      resource: RESOURCE,
      client_id: 'orders-client',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    })
    const proof = parseJws(String(one?.headers['dpop']))
    expect(proof?.header).toMatchObject({ typ: 'dpop+jwt', jwk: ask.signer.publicJwk })
    expect(proof?.payload).toMatchObject({ htm: 'POST', htu: `${issuer.issuer}/token` })
    expect(proof?.payload['ath']).toBeUndefined()
    const { header, payload } = parseJws(one?.form.get('client_assertion') ?? '') ?? {}
    const [jwk] = rig.clientKeys.jwks(CLIENT, serverAt(issuer.issuer, CLIENT))
    expect(header).toEqual({ alg: 'ES256', kid: jwk?.kid, typ: 'JWT' })
    expect(payload).toMatchObject({ iss: 'orders-client', sub: 'orders-client', aud: issuer.issuer })
    expect(Number(payload?.['exp']) - Number(payload?.['iat'])).toBe(60)
    expect(jwk?.kid).not.toBe(ask.signer.jkt)
  })

  it.each([
    ['jwt_spiffe', 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe'],
    ['jwt_bearer', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'],
  ] as const)('by %s is a JWT-SVID for the issuer alone, fresh each time', async (method, type) => {
    const rig = open()
    const issuer = await start({ token: good() })
    const server = serverAt(issuer.issuer, { method, clientId: undefined, assertion: 'fresh' })
    await rig.get(rig.ask(server, rig.workload()))
    const [form] = issuer.asked().map((one) => one.form)
    expect([form?.get('client_assertion_type'), form?.get('client_id')]).toEqual([type, idOf('web')])
    const { payload } = parseJws(form?.get('client_assertion') ?? '') ?? {}
    expect(payload).toMatchObject({ sub: idOf('web'), aud: [issuer.issuer] })
    expect(Number(payload?.['exp']) - Number(payload?.['iat'])).toBeLessThanOrEqual(60)
  })

  it.each([
    ['fresh', 3],
    ['reused', 2],
  ] as const)(
    'has an assertion that is %s: %i for two targets and a second instance',
    async (kind, count) => {
      const rig = open()
      const issuer = await start({ token: good() })
      const server = serverAt(issuer.issuer, { method: 'jwt_spiffe', clientId: undefined, assertion: kind })
      const one = rig.workload()
      await rig.get(rig.ask(server, one))
      await rig.get(rig.ask(server, one, {}, 'stock'))
      await rig.get(rig.ask(server, rig.workload()))
      const sent = issuer.asked().map(({ form }) => form.get('client_assertion') ?? '')
      expect([sent.length, new Set(sent).size]).toEqual([3, count])
      expect(sent.map((text) => parseJws(text)?.payload['aud'])).toEqual(sent.map(() => [issuer.issuer]))
    },
  )

  it('is no proof for a bearer token', async () => {
    const exception = {
      target: 'orders',
      approver: 'sec',
      until: 4_000_000_000,
      maxTtl: 60,
      place: { file: 'f', line: 1 },
    }
    const rig = open({ exception })
    const issuer = await start({ token: good({ token_type: 'Bearer', expires_in: 60 }) })
    await rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload(), { binding: ['bearer'] }))
    expect(issuer.asked()[0]?.headers['dpop']).toBeUndefined()
  })

  it('does not reach a server on this node that policy does not list', async () => {
    const rig = open({ addresses: [] })
    const issuer = await start({ token: good() })
    const caught = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    await expect(caught).rejects.toMatchObject({ reason: 'issuer_unavailable', owner: 'platform' })
    expect(issuer.seen).toEqual([])
  })

  it('does not reach a server whose certificate does not verify', async () => {
    const issuer = await startHostileIssuer(makeTestCa(), { token: good() })
    atEnd(() => issuer.stop())
    const rig = open()
    expect(await refusal(rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload())))).toMatch(
      /^issuer_unavailable: the authorization server: the connection is not verified \([A-Z_]+\)$/,
    )
    expect(issuer.seen).toEqual([])
  })
})

describe('a server that fails', () => {
  it('is left alone for as long as it asks, by everyone', async () => {
    const rig = open()
    const issuer = await start({ token: json({}, 503, { 'retry-after': '40' }) })
    const server = serverAt(issuer.issuer, CLIENT)
    for (const one of [rig.workload(), rig.workload()])
      await expect(rig.get(rig.ask(server, one))).rejects.toMatchObject({
        reason: 'issuer_unavailable',
        retryAfterSeconds: 40,
      })
    expect(issuer.asked()).toHaveLength(1)
  })

  it('is not asked for more than five minutes of patience', async () => {
    const rig = open()
    const issuer = await start({ token: json({}, 429, { 'retry-after': '999999' }) })
    const asked = rig.get(rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload()))
    await expect(asked).rejects.toMatchObject({ retryAfterSeconds: 300 })
  })
})

function nonceOf({ headers }: { readonly headers: Readonly<Record<string, unknown>> }): unknown {
  return parseJws(String(headers['dpop']))?.payload['nonce']
}

function thumbprintOf(jwk: unknown): string {
  return thumbprint(jwk as PublicJwk)
}
