/** Txn-Tokens: verified in full, of one server, and only beside what binds the request and covers them. */
import { beforeEach, describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import { answerOf } from '../../../src/ingress/answer.ts'
import type { DenialFacts } from '../../../src/ingress/checking.ts'
import { x5tOf } from '../../../src/ingress/confirmation.ts'
import type { Inbound } from '../../../src/ingress/inbound.ts'
import type { Verifier } from '../../../src/ingress/verifier.ts'
import { verifyHandlers } from '../../../src/ingress/verify-api.ts'
import { holdKey } from '../../../src/keys/signer.ts'
import { hashOf } from '../../../src/proof/jwt.ts'
import { makeWpt } from '../../../src/proof/wpt.ts'
import type { SpiffeId } from '../../../src/spiffe/id.ts'
import { ecPair, type Pair } from '../../support/certificates.ts'
import { bookOf } from '../../support/policy.ts'
import { makeTestCa } from '../../support/tls.ts'
import { signToken } from '../../support/tokens.ts'
import { openVerifier, outcomeOf, ROUTES, type TestVerifier, witOf } from '../../support/verifier.ts'

const WEB = 'spiffe://example.org/web' as SpiffeId
const RULE = 'txn_token: { server: partner, audience: example.org, presence: required }'
const withRule = (rule: string) => ({
  ...ROUTES,
  identity: `${ROUTES['identity']}`
    .replace('binding: [wpt, http-signature, mtls]', `binding: [wpt, mtls, dpop], ${rule}`)
    .replace('name: open, servers: [login],', `name: open, ${rule}, servers: [login],`)
    .replace('binding: [dpop, bearer]', 'binding: [dpop, mtls, bearer]'),
  application: `${ROUTES['application']}`.replace(
    'callers: ["spiffe://example.org/web"], methods: ["*"], paths: [/**]',
    'callers: ["spiffe://example.org/web"], methods: ["*"], paths: [/**], when: "txn != \'t-bad\'"',
  ),
})

let v: TestVerifier
beforeEach(async () => {
  v = await openVerifier(withRule(RULE))
})

function txnToken(claims: object = {}, header: object = {}, signer: Pair = v.issuer): string {
  const now = nowSeconds(v.clock)
  const standard = {
    iss: 'https://partner.example.org',
    aud: 'example.org',
    iat: now,
    exp: now + 300,
    txn: 't-7',
    sub: 'ann',
    scope: 'trade list',
    req_wl: 'spiffe://example.org/gateway',
    tctx: { order: 7 },
    jti: 'tt-1',
  }
  return signToken(
    { alg: 'ES256', kid: 'k1', typ: 'txntoken+jwt', ...header },
    { ...standard, ...claims },
    signer,
  )
}

const held = holdKey(ecPair().privateKey, 'ES256')

/** By a WIT and its proof, which covers the Txn-Token unless `covered` says another. */
function request(token: string | undefined, covered = token): Inbound {
  const wit = witOf(v, held)
  const tth = covered === undefined ? undefined : hashOf(covered)
  const { proof } = makeWpt(held, { aud: 'https://mesh.example.org/x', wit, tth }, v.clock)
  const headers = ['Workload-Identity-Token', wit, 'Workload-Proof-Token', proof]
  const shown = token === undefined ? headers : [...headers, 'Txn-Token', token]
  return { ...v.request({ route: 'mesh', path: '/x' }), headers: shown }
}

const outcome = (token: string | undefined, covered?: string) =>
  outcomeOf(v, request(token, covered ?? token))

describe('a Txn-Token', () => {
  it('says what the request is part of, not who calls', async () => {
    const verified = await v.verify(request(txnToken()))
    expect(verified.caller).toMatchObject({ names: [WEB], subject: WEB, scopes: [] })
    expect(answerOf(verified).transaction).toEqual({
      txn: 't-7',
      subject: 'ann',
      scopes: ['trade', 'list'],
      req_wl: 'spiffe://example.org/gateway',
      expires: nowSeconds(v.clock) + 300,
      tctx: { order: 7 },
    })
  })

  it.each<[string, () => string | undefined, string]>([
    ['that is missing', () => undefined, 'token_missing'],
    ['that is no JWS', () => 'abc', 'token_malformed'],
    ['of another typ', () => txnToken({}, { typ: 'at+jwt' }), 'token_malformed'],
    ['without a typ', () => txnToken({}, { typ: undefined }), 'token_malformed'],
    ['with crit', () => txnToken({}, { crit: ['x'] }), 'token_malformed'],
    ['by none', () => txnToken({}, { alg: 'none' }), 'token_malformed'],
    ['of no key', () => txnToken({}, { kid: undefined }), 'token_malformed'],
    ['of an unknown key', () => txnToken({}, { kid: 'k2' }), 'token_forged'],
    ['by another key', () => txnToken({}, {}, ecPair()), 'token_forged'],
    ['of another server', () => txnToken({ iss: 'https://login.example.org' }), 'token_issuer'],
    ['for another trust domain', () => txnToken({ aud: 'other.example.org' }), 'token_audience'],
    ['without aud', () => txnToken({ aud: undefined }), 'token_audience'],
    ['without exp', () => txnToken({ exp: undefined }), 'token_malformed'],
    ['without iat', () => txnToken({ iat: undefined }), 'token_malformed'],
    ['that has expired', () => txnToken({ iat: 1_699_999_000, exp: 1_699_999_900 }), 'token_expired'],
    ['of the future', () => txnToken({ iat: 1_700_000_200 }), 'token_malformed'],
    ['that lives long', () => txnToken({ exp: 1_700_008_000 }), 'token_too_long'],
    ['without txn', () => txnToken({ txn: undefined }), 'token_malformed'],
    ['with a txn that is no text', () => txnToken({ txn: 7 }), 'token_malformed'],
    ['without sub', () => txnToken({ sub: undefined }), 'token_malformed'],
    ['without scope', () => txnToken({ scope: undefined }), 'token_malformed'],
    ['without req_wl', () => txnToken({ req_wl: undefined }), 'token_malformed'],
    ['with a tctx that is none', () => txnToken({ tctx: [] }), 'token_malformed'],
    ['of a transaction that the grant refuses', () => txnToken({ txn: 't-bad' }), 'policy_denied'],
    ['that names no issuer', () => txnToken({ iss: undefined }), 'ok'],
    ['of the long name of its type', () => txnToken({}, { typ: 'application/txntoken+jwt' }), 'ok'],
  ])('%s: %3$s', async (_what, make, reason) => {
    expect(await outcome(make())).toBe(reason)
  })

  it('that is refused uses no proof up', async () => {
    const token = txnToken()
    const one = request(token)
    v.denies = ({ subject }) => subject === 'ann'
    expect(await outcomeOf(v, one)).toBe('token_revoked')
    v.denies = () => false
    expect(await outcomeOf(v, one)).toBe('ok')
  })

  it('may be revoked itself, or by whose it is', async () => {
    const facts: DenialFacts[] = []
    v.denies = (seen) => facts.push(seen) > 1
    expect(await outcome(txnToken())).toBe('token_revoked')
    expect(facts[1]).toMatchObject({
      issuer: 'https://partner.example.org',
      subject: 'ann',
      tokenId: 'tt-1',
      issuedAt: nowSeconds(v.clock),
    })
  })

  it('that its proof does not cover is refused, and so is one that came twice', async () => {
    expect(await outcome(txnToken(), txnToken({ txn: 't-8' }))).toBe('proof_token')
    const one = request(txnToken())
    expect(await outcomeOf(v, { ...one, headers: [...one.headers, 'txn-token', 'x'] })).toBe('proof_repeated')
  })

  it('is no access token, and an access token is none', async () => {
    expect(await outcomeOf(v, v.request({ token: txnToken({ iss: 'https://login.example.org' }) }))).toBe(
      'token_malformed',
    )
    expect(await outcome(v.token())).toBe('token_malformed')
  })
})

describe('beside a token that is bound', () => {
  const ca = makeTestCa()
  const certificate = ca.certify(ecPair().publicKey.export({ format: 'der', type: 'spki' }), { uri: WEB })
  const open = { route: 'open', path: '/x', url: 'https://api.example.org/x' }
  const shown = () => ['Txn-Token', txnToken()]

  it('by DPoP alone it is not covered', async () => {
    expect(await outcomeOf(v, v.request({ ...open, headers: shown() }))).toBe('proof_coverage')
  })

  it('to the certificate of the channel, or over mutual TLS, it is', async () => {
    const peer = { certificate, spiffeId: undefined, address: undefined }
    const claims = { cnf: { 'x5t#S256': x5tOf(certificate) } }
    const bound = { ...open, headers: shown(), scheme: 'Bearer', without: ['DPoP'], claims, peer }
    expect(await outcomeOf(v, v.request(bound))).toBe('ok')
    const over = { certificate, spiffeId: WEB, address: undefined }
    expect(await outcomeOf(v, v.request({ ...open, headers: shown(), peer: over }))).toBe('ok')
  })

  it('is looked at only where the route says so, and may be left out where it says that', async () => {
    v = await openVerifier(withRule('txn_token: { server: partner, audience: example.org }'))
    expect(await outcome(undefined)).toBe('ok')
    expect(await outcome('abc')).toBe('token_malformed')
    v = await openVerifier()
    expect(await outcome('abc')).toBe('ok')
  })
})

it('a route takes Txn-Tokens of a server that is there, beside a binding that covers them', async () => {
  const stated = (rule: string) => bookOf(withRule(rule))
  await expect(stated('txn_token: { server: partned, audience: x }')).rejects.toThrow(
    /no identity file has the server/,
  )
  const dpop = { ...ROUTES, identity: `${ROUTES['identity']}`.replace('nonce: required', RULE) }
  await expect(bookOf(dpop)).rejects.toThrow(/wants a binding that covers it/)
})

it('gRPC tells the transaction as JSON does, with its context as text', async () => {
  const answer = answerOf(await v.verify(request(txnToken())))
  const verifier = { ask: () => Promise.resolve({ answer }) } as unknown as Verifier
  const peer = { pid: 1, uid: 1 }
  const caller = { pid: 1, uid: 1, workload: () => ({ peer, selectors: [], entries: () => [] }) }
  const { unary } = verifyHandlers(verifier)['VerifyRequest'] as {
    unary: (c: unknown, m: object) => Promise<object>
  }
  expect(await unary(caller, { method: 'GET', path: '/x' })).toMatchObject({
    verified: { transaction: { txn: 't-7', req_wl: 'spiffe://example.org/gateway', tctx: '{"order":7}' } },
  })
})
