/** Tokens that are to be bound to a certificate (RFC 8705), from servers that bind them otherwise or not at all. */
import { afterEach, describe, expect, it } from 'vitest'
import { parseJws } from '../../src/spiffe/jws.ts'
import { ecPair } from '../support/certificates.ts'
import { type Answer, type HostileAnswers, json, startHostileIssuer } from '../support/hostile-issuer.ts'
import { startIssuer } from '../support/issuer.ts'
import { makeTestCa } from '../support/tls.ts'
import { idOf, openTokenRig, RESOURCE, refusal, serverAt, type TokenRig } from '../support/token-rig.ts'
import { signToken } from '../support/tokens.ts'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

const ca = makeTestCa()
const CLIENT = { method: 'tls_client_auth', clientId: undefined } as const
const MTLS = { binding: ['mtls'] } as const
const OTHER = 'A'.repeat(43)
const key = ecPair()

function open(): TokenRig {
  const rig = openTokenRig({ ca })
  closing.push(() => rig.close())
  return rig
}

/** The ask of one workload, and what the client makes of `answersFor` its certificate. */
async function outcome(answersFor: (x5t: string) => HostileAnswers, endpoint?: string) {
  const rig = open()
  const one = rig.workload()
  const x5t = rig.ask(serverAt('https://as.test', CLIENT), one, MTLS).certificate?.x5t ?? ''
  const issuer = await startHostileIssuer(ca, answersFor(x5t))
  closing.push(() => issuer.stop())
  const ask = rig.ask(serverAt(issuer.issuer, CLIENT, endpoint), one, MTLS)
  return { issuer, text: await refusal(rig.get(ask)) }
}

const GOOD = { token_type: 'Bearer', expires_in: 120, scope: 'read' }

const jwt =
  (cnf: unknown, over: Record<string, unknown> = {}): Answer =>
  (response, request, issuer) => {
    const now = Math.floor(Date.now() / 1000)
    const claims = { iss: issuer, aud: RESOURCE, iat: now, exp: now + 120, scope: 'read', cnf }
    json({ ...GOOD, access_token: signToken({ alg: 'ES256' }, claims, key), ...over })(
      response,
      request,
      issuer,
    )
  }

const metadata =
  (over: (issuer: string) => Record<string, unknown>): Answer =>
  (response, request, issuer) =>
    json({ issuer, token_endpoint: `${issuer}/token`, ...over(issuer) })(response, request, issuer)

describe('a token for a certificate', () => {
  it.each<[string, (x5t: string) => Answer, string]>([
    ['is bound to another', () => jwt({ 'x5t#S256': OTHER }), 'is bound to another certificate'],
    ['is bound to none', () => jwt(undefined), 'has no cnf.x5t#S256'],
    ['has a cnf that is no object', (x5t) => jwt(x5t), 'has no cnf.x5t#S256'],
    [
      'is bound to a key too',
      (x5t) => jwt({ 'x5t#S256': x5t, jkt: OTHER }),
      'is bound to something else than the certificate too',
    ],
    ['is bound to a key only', () => jwt({ jkt: OTHER }), 'has no cnf.x5t#S256'],
    ['is of the type DPoP', (x5t) => jwt({ 'x5t#S256': x5t }, { token_type: 'DPoP' }), 'is bound by DPoP'],
    ['has the thumbprint in hex', () => jwt({ 'x5t#S256': '0'.repeat(64) }), 'another certificate'],
    ['is a list of thumbprints', (x5t) => jwt({ 'x5t#S256': [x5t] }), 'another certificate'],
  ])('is refused when it %s', async (_what, answer, message) => {
    const { text } = await outcome((x5t) => ({ token: answer(x5t) }))
    expect(text).toMatch(/^issued_unbound: /)
    expect(text).toContain(message)
  })

  it('is taken when it names the certificate and nothing else', async () => {
    const { text, issuer } = await outcome((x5t) => ({ token: jwt({ 'x5t#S256': x5t }) }))
    expect(text).toBe('none')
    expect(issuer.asked()[0]?.headers).not.toHaveProperty('dpop')
  })

  it.each<[string, Record<string, unknown>, string]>([
    ['says nothing', {}, 'issued_unbound'],
    ['says no', { tls_client_certificate_bound_access_tokens: false }, 'issued_unbound'],
    ['says yes in words', { tls_client_certificate_bound_access_tokens: 'true' }, 'issued_unbound'],
    ['says yes', { tls_client_certificate_bound_access_tokens: true }, 'none'],
  ])('is opaque: what counts is the metadata of its server, which %s', async (_what, stated, reason) => {
    const token = json({ ...GOOD, access_token: 'opaque-0123456789' })
    const { text } = await outcome(() => ({ token, metadata: metadata(() => stated) }))
    expect(text.split(':')[0]).toBe(reason)
  })

  it('is opaque and its server has no metadata: refused', async () => {
    const rig = open()
    const issuer = await startHostileIssuer(ca, {
      token: json({ ...GOOD, access_token: 'opaque-0123456789' }),
      metadata: json({}, 500),
    })
    closing.push(() => issuer.stop())
    const server = serverAt(issuer.issuer, CLIENT, `${issuer.issuer}/token`)
    expect(await refusal(rig.get(rig.ask(server, rig.workload(), MTLS)))).toMatch(/^issued_unbound/)
  })
})

describe('the alias of the token endpoint (RFC 8705 s.5)', () => {
  it('is where a certificate is shown', async () => {
    const { issuer } = await outcome(() => ({
      metadata: metadata((at) => ({ mtls_endpoint_aliases: { token_endpoint: `${at}/mtls-token` } })),
    }))
    expect(issuer.seen.map(({ path }) => path)).toContain('/mtls-token')
    expect(issuer.asked()).toEqual([])
  })

  it('is not followed to another origin', async () => {
    const { issuer, text } = await outcome(() => ({
      metadata: metadata(() => ({
        mtls_endpoint_aliases: { token_endpoint: 'https://mtls.other.example.org/token' },
      })),
    }))
    expect(text).toMatch(/^issuer_unavailable: the token endpoint is not at the origin of the issuer/)
    expect(issuer.asked()).toEqual([])
  })
})

describe('an opaque token of a real server', () => {
  it('is taken on the word of its metadata, and given back when the lease ends', async () => {
    const rig = open()
    const issuer = await startIssuer({
      ca,
      clients: [{ clientId: idOf('web'), sanUri: idOf('web'), scopes: ['read'], certificateBound: true }],
      resources: { [RESOURCE]: { scopes: ['read'], format: 'opaque' } },
      clientRoots: [rig.clientRoot],
    })
    closing.push(() => issuer.stop())
    const one = rig.workload()
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), one, MTLS)
    const { token } = await rig.get(ask)
    expect(parseJws(token.reveal())).toBeUndefined()
    expect(await issuer.isLive(token.reveal())).toBe(true)
    one.end()
    await expect.poll(() => issuer.isLive(token.reveal())).toBe(false)
    expect(rig.events).toEqual(['issued', 'revoked'])
    expect(ask.certificate?.isCurrent).toBe(false)
  })

  it('is refused where the server binds to nothing', async () => {
    const rig = open()
    const issuer = await startIssuer({
      ca,
      clients: [{ clientId: idOf('web'), sanUri: idOf('web'), scopes: ['read'], bearer: true }],
      resources: { [RESOURCE]: { scopes: ['read'] } },
      clientRoots: [rig.clientRoot],
    })
    closing.push(() => issuer.stop())
    const ask = rig.ask(serverAt(issuer.issuer, CLIENT), rig.workload(), MTLS)
    expect(await refusal(rig.get(ask))).toBe('issued_unbound: the issued token has no cnf.x5t#S256')
  })
})
