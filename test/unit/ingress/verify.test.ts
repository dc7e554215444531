/** What the verifier takes and what it refuses, each refusal by a request that is right but for one thing. */
import { beforeEach, describe, expect, it } from 'vitest'
import { nowSeconds } from '../../../src/base/clock.ts'
import type { AccessToken } from '../../../src/ingress/access-token.ts'
import type { DenialFacts } from '../../../src/ingress/checking.ts'
import { x5tOf } from '../../../src/ingress/confirmation.ts'
import type { ChannelPeer, Inbound } from '../../../src/ingress/inbound.ts'
import { verifyRequest } from '../../../src/ingress/verify.ts'
import { holdKey } from '../../../src/keys/signer.ts'
import { hashOf } from '../../../src/proof/jwt.ts'
import { makeWimseSignature } from '../../../src/proof/wimse-signature.ts'
import { makeWpt } from '../../../src/proof/wpt.ts'
import type { SpiffeId } from '../../../src/spiffe/id.ts'
import { makeJwtSvid } from '../../../src/spiffe/jwtsvid.ts'
import { ecPair } from '../../support/certificates.ts'
import { otherSignature } from '../../support/ecdsa.ts'
import { DPOP_CASES, other, TOKEN_HEADER_CASES, withTokenHeader } from '../../support/request-cases.ts'
import { makeTestCa } from '../../support/tls.ts'
import {
  openVerifier,
  outcomeOf,
  type RequestOf,
  ROUTES,
  type TestVerifier,
  witOf,
} from '../../support/verifier.ts'

const WEB = 'spiffe://example.org/web' as SpiffeId
let v: TestVerifier

beforeEach(async () => {
  v = await openVerifier()
})

const outcome = (request: Inbound) => outcomeOf(v, request)

const ca = makeTestCa()
const certified = ecPair()
const certificate = ca.certify(certified.publicKey.export({ format: 'der', type: 'spki' }), { uri: WEB })
const peer = (over: Partial<ChannelPeer>): ChannelPeer => ({
  certificate: undefined,
  spiffeId: undefined,
  address: undefined,
  ...over,
})

describe('a DPoP request', () => {
  it('is taken, and says who called, by what, and which rule expects it', async () => {
    expect(await v.verify(v.request())).toMatchObject({
      route: 'api',
      caller: { names: ['client:login/web'], subject: 'web', scopes: ['read'] },
      binding: { kind: 'dpop', jkt: v.key.jkt },
      rule: expect.stringMatching(/^application\.yaml:\d+$/),
    })
  })

  it('is taken once', async () => {
    const request = v.request()
    expect([await outcome(request), await outcome(request)]).toEqual(['ok', 'proof_replayed'])
  })

  it('of which 100 arrive at once is taken once', async () => {
    const request = v.request()
    const outcomes = await Promise.all(Array.from({ length: 100 }, () => outcome(request)))
    expect(outcomes.filter((one) => one === 'ok')).toHaveLength(1)
    expect(new Set(outcomes)).toEqual(new Set(['ok', 'proof_replayed']))
  })

  it.each(DPOP_CASES)('%s: %3$s', async (_what, over, reason) => {
    expect(await outcome(v.request(over))).toBe(reason)
  })

  it.each(TOKEN_HEADER_CASES)('of a token %s is refused', async (_what, header, reason) => {
    expect(await outcome(withTokenHeader(v, header))).toBe(reason)
  })

  it('of a revoked key is refused, and does not use its proof up', async () => {
    const request = v.request()
    v.denies = ({ jkt, tokenId, subject }) => jkt === v.key.jkt && tokenId === 't-1' && subject === 'web'
    expect(await outcome(request)).toBe('token_revoked')
    v.denies = () => false
    expect(await outcome(request)).toBe('ok')
  })

  it.each([
    [7_000, 1],
    [9_000, 0],
  ])('of a token with %i bytes of claims more is kept %i times', async (size, count) => {
    const { known } = v.options.tokens
    const kept: string[] = []
    const set = (ath: string, token: AccessToken) => {
      kept.push(ath)
      known.set(ath, token)
    }
    const tokens = { ...v.options.tokens, known: { get: (ath: string) => known.get(ath), set } }
    const claims = { more: 'x'.repeat((size * 3) / 4) }
    expect((await verifyRequest({ ...v.options, tokens }, v.request({ claims }))).route).toBe('api')
    expect(kept).toHaveLength(count)
  })

  it('names all that a revocation may name', async () => {
    const [id, actor] = ['spiffe://example.org/batch', 'spiffe://example.org/web']
    const facts: DenialFacts[] = []
    v.denies = (seen) => facts.push(seen) > 0
    const claims = { client_id: id, sub: 'ann', act: { sub: actor, act: undefined } }
    expect(await outcome(v.request({ claims }))).toBe('token_revoked')
    expect(facts).toEqual([
      {
        spiffeId: undefined,
        issuer: 'https://login.example.org',
        subject: 'ann',
        clientId: id,
        actor,
        tokenId: 't-1',
        jkt: v.key.jkt,
        issuedAt: nowSeconds(v.clock),
      },
    ])
  })

  it('whose proof has the other signature that ECDSA takes is the same request', async () => {
    const request = v.request()
    expect(await outcome(request)).toBe('ok')
    const again = request.headers.map((text) => (text.startsWith('ey') ? otherSignature(text) : text))
    expect(again).not.toEqual(request.headers)
    expect(await outcome({ ...request, headers: again })).toBe('proof_replayed')
  })

  it('of a thief does not use up the proof of the owner', async () => {
    const request = v.request()
    const stolen = {
      ...request,
      headers: request.headers.map((text) =>
        text.replace(/^DPoP .*/, `DPoP ${v.token({ cnf: { jkt: other.jkt } })}`),
      ),
    }
    expect(await outcome(stolen)).toBe('proof_token')
    expect(await outcome(request)).toBe('ok')
  })

  it('that was too old for the store is taken with the nonce of the answer', async () => {
    const nonce = v.nonces.current()
    expect(await outcome(v.request({ proof: { iat: 1_700_000_000, nonce } }))).toBe('ok')
  })
})

describe('a route that wants nonces, behind hops', () => {
  const gateway = peer({ spiffeId: 'spiffe://example.org/gateway' as SpiffeId })
  const strict = (over: Partial<RequestOf> = {}) =>
    v.request({ route: 'strict', url: 'https://api.example.org/v1/items', peer: gateway, ...over })

  it('refuses a proof without one', async () => {
    expect(await outcome(strict())).toBe('proof_nonce')
  })

  it('takes one with it, once', async () => {
    const request = strict({ proof: { nonce: v.nonces.current() } })
    expect([await outcome(request), await outcome(request)]).toEqual(['ok', 'proof_replayed'])
  })

  it.each<[string, ChannelPeer]>([
    ['nobody', peer({})],
    ['another workload', peer({ spiffeId: WEB })],
    ['another address', peer({ address: '198.51.100.1' })],
  ])('refuses what came from %s', async (_who, from) => {
    const request = strict({ peer: from, proof: { nonce: v.nonces.current() } })
    expect(await outcome(request)).toBe('hop_unexpected')
  })

  it('knows a hop by its address in either form', async () => {
    for (const address of ['192.0.2.7', '::ffff:192.0.2.7']) {
      const request = strict({ peer: peer({ address }), proof: { nonce: v.nonces.current() } })
      expect(await outcome(request)).toBe('ok')
    }
  })
})

describe('a token bound to a certificate', () => {
  const cnf = { 'x5t#S256': x5tOf(certificate) }
  const mtls = (over: Partial<RequestOf> = {}) =>
    v.request({ scheme: 'Bearer', without: ['DPoP'], claims: { cnf }, peer: peer({ certificate }), ...over })

  it('is taken with it', async () => {
    expect((await v.verify(mtls())).binding).toMatchObject({ kind: 'mtls', x5t: cnf['x5t#S256'] })
  })

  it('is refused without, and with another', async () => {
    expect(await outcome(mtls({ peer: peer({}) }))).toBe('token_downgraded')
    const spki = ecPair().publicKey.export({ format: 'der', type: 'spki' })
    expect(await outcome(mtls({ peer: peer({ certificate: ca.certify(spki, { uri: WEB }) }) }))).toBe(
      'token_stolen',
    )
  })

  it('is refused with the scheme DPoP, whatever the proof is: nothing says by which key it has to be', async () => {
    const shown = { scheme: 'DPoP', claims: { cnf }, peer: peer({ certificate }) }
    expect(await outcome(v.request(shown))).toBe('token_unbound')
    expect(await outcome(mtls({ scheme: 'DPoP', headers: ['DPoP', 'x'] }))).toBe('token_unbound')
  })

  it('is refused when only a header of the caller shows it', async () => {
    const headers = ['Client-Cert', `:${certificate.toString('base64')}:`]
    expect(await outcome(mtls({ peer: peer({}), headers }))).toBe('token_downgraded')
  })
})

describe('a certificate that a hop hands on', () => {
  const cnf = { 'x5t#S256': x5tOf(certificate), jkt: '' }
  const gateway = peer({ spiffeId: 'spiffe://example.org/gateway' as SpiffeId })
  const mesh = peer({ spiffeId: 'spiffe://example.org/mesh' as SpiffeId })
  const edge = peer({ address: '192.0.2.1' })
  const pem = encodeURIComponent(
    `-----BEGIN CERTIFICATE-----\n${certificate.toString('base64')}\n-----END CERTIFICATE-----\n`,
  )
  const spki = ecPair().publicKey.export({ format: 'der', type: 'spki' })
  const forged = encodeURIComponent(
    `-----BEGIN CERTIFICATE-----\n${ca.certify(spki, { uri: WEB }).toString('base64')}\n-----END CERTIFICATE-----\n`,
  )
  const through = (from: ChannelPeer, headers: readonly string[]) =>
    v.request({
      route: 'strict',
      url: 'https://api.example.org/v1/items',
      peer: from,
      headers,
      claims: { cnf: { ...cnf, jkt: v.key.jkt } },
      proof: { nonce: v.nonces.current() },
    })

  it.each<[string, ChannelPeer, readonly string[], string]>([
    ['Client-Cert', gateway, ['Client-Cert', `:${certificate.toString('base64')}:`], 'ok'],
    ['Client-Cert twice', gateway, ['Client-Cert', ':AA==:', 'client-cert', ':AA==:'], 'proof_repeated'],
    ['Client-Cert of no form', gateway, ['Client-Cert', certificate.toString('base64')], 'hop_unexpected'],
    ['Client-Cert that is no certificate', gateway, ['Client-Cert', ':AAAA:'], 'hop_unexpected'],
    ['nothing', gateway, [], 'token_downgraded'],
    ['XFCC', mesh, ['X-Forwarded-Client-Cert', `By=x;Hash=y;Cert="${pem}";URI=${WEB}`], 'ok'],
    [
      'XFCC whose last element is another',
      mesh,
      ['X-Forwarded-Client-Cert', `Cert="${pem}",Cert="${forged}"`],
      'token_stolen',
    ],
    [
      'XFCC with a comma in quotes',
      mesh,
      ['X-Forwarded-Client-Cert', `Subject="CN=a,O=b";Cert="${pem}"`],
      'ok',
    ],
    [
      'XFCC with two Certs',
      mesh,
      ['X-Forwarded-Client-Cert', `Cert="${forged}";Cert="${pem}"`],
      'hop_unexpected',
    ],
    [
      'XFCC with a quote that never ends',
      mesh,
      ['X-Forwarded-Client-Cert', `Cert="${pem}`],
      'hop_unexpected',
    ],
    [
      'XFCC of the hop that says Client-Cert',
      gateway,
      ['X-Forwarded-Client-Cert', `Cert="${pem}"`],
      'token_downgraded',
    ],
    [
      'either of a hop that is known by its address alone',
      edge,
      ['X-Forwarded-Client-Cert', `Cert="${pem}"`, 'Client-Cert', `:${certificate.toString('base64')}:`],
      'token_downgraded',
    ],
  ])('as %s: %4$s', async (_what, from, headers, reason) => {
    expect(await outcome(through(from, headers))).toBe(reason)
  })
})

describe('a bearer token', () => {
  const bearer = (over: Partial<RequestOf> = {}) =>
    v.request({ route: 'open', scheme: 'Bearer', without: ['DPoP'], claims: { cnf: undefined }, ...over })

  it('is taken only where security makes an exception', async () => {
    expect(await outcome(bearer({ claims: { cnf: undefined, exp: nowSeconds(v.clock) + 60 } }))).toBe('ok')
    expect(await outcome(bearer({ route: 'api' }))).toBe('token_unbound')
  })

  it('of another client than the exception names is refused', async () => {
    expect(
      await outcome(
        bearer({ claims: { cnf: undefined, client_id: 'batch', exp: nowSeconds(v.clock) + 60 } }),
      ),
    ).toBe('token_unbound')
  })

  it('that lives longer than the exception allows is refused', async () => {
    expect(await outcome(bearer())).toBe('token_too_long')
  })

  it('that comes from a second address is told of, and taken', async () => {
    const request = bearer({ claims: { cnf: undefined, exp: nowSeconds(v.clock) + 60 } })
    for (const address of ['192.0.2.1', '192.0.2.1', '192.0.2.2'])
      expect(await outcome({ ...request, peer: peer({ address }) })).toBe('ok')
    expect(v.moved).toEqual(['web'])
  })

  it('that comes from a second address with the other signature that ECDSA takes is told of', async () => {
    const token = v.token({ cnf: undefined, exp: nowSeconds(v.clock) + 60 })
    for (const [shown, address] of [
      [token, '192.0.2.1'],
      [otherSignature(token), '192.0.2.2'],
    ] as const)
      expect(await outcome(bearer({ token: shown, peer: peer({ address }) }))).toBe('ok')
    expect(v.moved).toEqual(['web'])
  })

  it('is taken as often as the exception says', async () => {
    const request = bearer({ claims: { cnf: undefined, exp: nowSeconds(v.clock) + 60 } })
    const outcomes = []
    for (let at = 0; at < 4; at++) outcomes.push(await outcome(request))
    expect(outcomes).toEqual(['ok', 'ok', 'ok', 'rate_limited'])
    v.clock.advance(1_000)
    expect(await outcome(request)).toBe('ok')
  })

  it('is refused once the exception has ended', async () => {
    v.clock.advance(10 * 365 * 86_400_000)
    const now = nowSeconds(v.clock)
    expect(await outcome(bearer({ claims: { cnf: undefined, iat: now, exp: now + 60 } }))).toBe(
      'token_unbound',
    )
  })
})

describe('a WIT with its proof', () => {
  const pair = ecPair()
  const held = holdKey(pair.privateKey, 'ES256')
  const wit = (over: object = {}) => witOf(v, held, over)
  const request = (over: { wit?: string; aud?: string; key?: typeof held; ath?: string } = {}) => {
    const shown = over.wit ?? wit()
    const aud = over.aud ?? 'https://mesh.example.org/x'
    const { proof } = makeWpt(over.key ?? held, { aud, wit: shown, ath: over.ath }, v.clock)
    const headers = ['Workload-Identity-Token', shown, 'Workload-Proof-Token', proof]
    return { ...v.request({ route: 'mesh', path: '/x' }), headers }
  }

  it('is taken once, as its SPIFFE ID', async () => {
    const one = request()
    expect((await v.verify(one)).caller.names).toEqual([WEB])
    expect(await outcome(one)).toBe('proof_replayed')
  })

  it('is refused without the proof, for another URL, by another key, and of another workload', async () => {
    const [name, text] = request().headers
    expect(await outcome({ ...request(), headers: [name ?? '', text ?? ''] })).toBe('proof_missing')
    expect(await outcome(request({ aud: 'https://mesh.example.org/y' }))).toBe('proof_url')
    expect(await outcome(request({ key: other }))).toBe('proof_forged')
    expect(await outcome(request({ ath: hashOf('a token that did not come') }))).toBe('proof_token')
    expect(await outcome(request({ wit: wit({ spiffeId: 'spiffe://example.org/batch' }) }))).toBe(
      'caller_unexpected',
    )
  })

  it('may bring an unbound token that is its own, and none that is not', async () => {
    const with_ = (client: string) => {
      const token = v.token({ cnf: undefined, client_id: client })
      const one = request({ ath: hashOf(token) })
      return { ...one, headers: [...one.headers, 'Authorization', `Bearer ${token}`] }
    }
    expect(await outcome(with_(WEB))).toBe('ok')
    expect(await outcome(with_('web'))).toBe('token_unbound')
  })

  describe('and signed', () => {
    const signed = (over: { aud?: string; key?: typeof held; query?: string; method?: string } = {}) => {
      const headers = ['Content-Type', 'text/plain', 'Workload-Identity-Token', wit()]
      const sent = {
        method: 'GET',
        scheme: 'https',
        authority: 'mesh.example.org',
        path: '/x',
        query: '?a=1',
        headers,
      }
      const aud = over.aud ?? 'https://mesh.example.org/x'
      const { input, signature } = makeWimseSignature(over.key ?? held, sent, { aud, extra: [] }, v.clock)
      const shown = [...headers, 'Signature-Input', input, 'Signature', signature]
      const { method = 'GET', query = '?a=1' } = over
      return { ...v.request({ route: 'mesh', path: '/x' }), method, query, headers: shown }
    }

    it('is taken once', async () => {
      const one = signed()
      expect((await v.verify(one)).binding.kind).toBe('http-signature')
      expect(await outcome(one)).toBe('proof_replayed')
    })

    it('is refused for another recipient, method, query or header, and by another key', async () => {
      expect(await outcome(signed({ aud: 'https://mesh.example.org/y' }))).toBe('proof_url')
      expect(await outcome(signed({ method: 'POST' }))).toBe('proof_forged')
      expect(await outcome(signed({ query: '?a=2' }))).toBe('proof_forged')
      expect(await outcome(signed({ key: other }))).toBe('proof_forged')
      const one = signed()
      const changed = one.headers.map((text) => (text === 'text/plain' ? 'text/html' : text))
      expect(await outcome({ ...one, headers: changed })).toBe('proof_forged')
      expect(await outcome({ ...one, headers: [...one.headers, 'Txn-Token', 'x'] })).toBe('proof_coverage')
    })
  })
})

describe('a JWT-SVID', () => {
  const svid = (peerId?: SpiffeId, audience = ['api'], age = 0) => {
    const now = nowSeconds(v.clock)
    const claims = { spiffeId: WEB, audience, now: now - age, expires: now + 60, kid: 'j1' }
    const token = makeJwtSvid(claims, holdKey(v.issuer.privateKey, 'ES256'))
    const from = peer({ spiffeId: peerId })
    return { ...v.request({ route: 'svid', peer: from }), headers: ['Authorization', `Bearer ${token}`] }
  }

  it('is taken over mutual TLS of the same workload only', async () => {
    expect(await outcome(svid(WEB))).toBe('ok')
    expect(await outcome(svid())).toBe('token_unbound')
    expect(await outcome(svid('spiffe://example.org/batch' as SpiffeId))).toBe('token_stolen')
    expect(await outcome(svid(WEB, ['other']))).toBe('svid_audience')
  })

  it('may be for any audience of the route', async () => {
    const identity = `${ROUTES['identity']}`.replace('audience: [api]', 'audience: [gate, api]')
    v = await openVerifier({ ...ROUTES, identity })
    expect(await outcome(svid(WEB))).toBe('ok')
    expect(await outcome(svid(WEB, ['other', 'gate']))).toBe('ok')
    expect(await outcome(svid(WEB, ['other']))).toBe('svid_audience')
  })

  it('that lives longer than tokens of the route may is refused, however little of that is left', async () => {
    const limit = v.route('svid').identity?.maxTtl ?? 0
    expect(await outcome(svid(WEB, ['api'], limit - 60))).toBe('ok')
    expect(await outcome(svid(WEB, ['api'], limit - 59))).toBe('token_too_long')
  })

  it('counts as a bearer token of its whole life under an exception', async () => {
    const security = `${ROUTES['security']}  - { route: svid, binding: bearer, approver: ann, until: 2030-01-01, clients: ['${WEB}'], max_ttl: 2m }\n`
    v = await openVerifier({ ...ROUTES, security })
    expect(await outcome(svid(undefined, ['api'], 60))).toBe('ok')
    expect(await outcome(svid(undefined, ['api'], 61))).toBe('token_too_long')
  })
})
