/** One table of requests that must not pass, or only just do, for every way in: no check may hold on one path only. */

import { x5tOf } from '../../src/ingress/confirmation.ts'
import { generateKey } from '../../src/keys/signer.ts'
import { ecPair } from './certificates.ts'
import { signToken } from './tokens.ts'
import { type Over, type Received, TRADE, type VerifyRig } from './verify-rig.ts'

export interface VerifyCase {
  readonly name: string
  /** `ok`, or why it is refused. */
  readonly reason: string
  /** What goes outside. */
  readonly status: number
  /** The error of the challenge; absent where there is none. */
  readonly error?: string
  /** Whether the way in has to tell of the TLS peer. */
  readonly needsPeer?: boolean
  /** The last of these is judged; those before it pass. */
  requests(rig: VerifyRig): readonly Received[]
}

const thief = generateKey('ES256')
const stranger = ecPair()
const BAD_PROOF = { status: 401, error: 'invalid_dpop_proof' } as const
const BAD_TOKEN = { status: 401, error: 'invalid_token' } as const
const DENIED = { status: 403 } as const

const one =
  (over: (rig: VerifyRig) => Over) =>
  (rig: VerifyRig): readonly Received[] => [rig.request(over(rig))]

const proof = (name: string, reason: string, over: (rig: VerifyRig) => Over): VerifyCase => ({
  name,
  reason,
  ...BAD_PROOF,
  requests: one(over),
})
const token = (name: string, reason: string, over: (rig: VerifyRig) => Over): VerifyCase => ({
  name,
  reason,
  ...BAD_TOKEN,
  requests: one(over),
})
const denied = (name: string, reason: string, over: (rig: VerifyRig) => Over): VerifyCase => ({
  name,
  reason,
  ...DENIED,
  requests: one(over),
})

/** The certificate of some client, which its token is bound to. */
const certificateOf = (rig: VerifyRig) =>
  rig.ca.certify(stranger.publicKey.export({ format: 'der', type: 'spki' }), { dns: 'client.example.org' })

export const VERIFY_CASES: readonly VerifyCase[] = [
  { name: 'a right request', reason: 'ok', status: 200, requests: one(() => ({})) },
  {
    name: 'the same proof again',
    reason: 'proof_replayed',
    ...BAD_PROOF,
    requests: (rig) => {
      const request = rig.request()
      return [request, request]
    },
  },
  {
    name: 'a token that its status list lets hold',
    reason: 'ok',
    status: 200,
    requests: one(({ statusUri: uri }) => ({ claims: { status: { status_list: { idx: 0, uri } } } })),
  },
  token('a token that its status list revokes', 'token_revoked', ({ statusUri: uri }) => ({
    claims: { status: { status_list: { idx: 1, uri } } },
  })),
  token('a token beyond the end of its status list', 'token_status', ({ statusUri: uri }) => ({
    claims: { status: { status_list: { idx: 8, uri } } },
  })),
  token('a token that names a status list elsewhere', 'token_status', () => ({
    claims: { status: { status_list: { idx: 0, uri: 'https://status.example.org/1' } } },
  })),
  proof('a bound token without a proof', 'proof_missing', () => ({ without: ['DPoP'] })),
  proof('a proof for another method', 'proof_method', () => ({ proof: { htm: 'POST' } })),
  proof('a proof for another path', 'proof_url', () => ({
    proof: { htu: 'https://api.example.org/orders/v1/other' },
  })),
  proof('a proof for the host that Host and X-Forwarded-Host name', 'proof_url', () => ({
    proof: { htu: 'https://internal.example.org/orders/v1/items' },
    headers: [
      ['X-Forwarded-Host', 'internal.example.org'],
      ['X-Forwarded-Proto', 'https'],
      ['Forwarded', 'host=internal.example.org;proto=https'],
    ],
  })),
  proof('a proof for the path as it arrives', 'proof_url', () => ({
    proof: { htu: 'https://api.example.org/v1/items' },
  })),
  proof('a proof for another token', 'proof_token', () => ({ proof: { ath: 'x'.repeat(43) } })),
  proof('a proof for no token', 'proof_token', () => ({ proof: { ath: undefined } })),
  proof('an old proof', 'proof_time', (rig) => ({ proof: { iat: rig.now() - 120 } })),
  proof('a proof from the future', 'proof_time', (rig) => ({ proof: { iat: rig.now() + 60 } })),
  proof('a proof with alg none', 'proof_malformed', () => ({ proofHeader: { alg: 'none' } })),
  proof('a proof that shows its private key', 'proof_malformed', () => ({
    proofHeader: { jwk: stranger.privateKey.export({ format: 'jwk' }) },
  })),
  proof('a proof signed with another key than it names', 'proof_forged', (rig) => ({
    key: thief,
    proofHeader: { jwk: rig.key.publicJwk },
  })),
  {
    name: 'a proof with a nonce of nobody',
    reason: 'proof_nonce',
    status: 401,
    error: 'use_dpop_nonce',
    requests: one(() => ({ proof: { nonce: 'A'.repeat(22) } })),
  },
  {
    name: 'a proof without a nonce where one is wanted',
    reason: 'proof_nonce',
    status: 401,
    error: 'use_dpop_nonce',
    requests: one(() => ({ route: 'strict' })),
  },
  {
    name: 'two proofs',
    reason: 'proof_repeated',
    status: 400,
    requests: one(() => ({ headers: [['DPoP', 'a.b.c']] })),
  },
  {
    name: 'two tokens',
    reason: 'proof_repeated',
    status: 400,
    requests: one(() => ({ headers: [['Authorization', 'Bearer abc']] })),
  },
  {
    name: 'no token',
    reason: 'token_missing',
    status: 401,
    requests: one(() => ({ without: ['Authorization', 'DPoP'] })),
  },
  token('a bound token as Bearer', 'token_downgraded', () => ({ scheme: 'Bearer', without: ['DPoP'] })),
  token('a bound token as Bearer with its proof', 'token_downgraded', () => ({ scheme: 'Bearer' })),
  token('a stolen token with the proof of another key', 'token_stolen', () => ({ key: thief })),
  token('a token bound to nothing', 'token_unbound', () => ({ claims: { cnf: undefined } })),
  token('a bearer token', 'token_unbound', () => ({
    claims: { cnf: undefined },
    scheme: 'Bearer',
    without: ['DPoP'],
  })),
  token('a token for another audience', 'token_audience', () => ({
    claims: { aud: 'https://other.example.org' },
  })),
  token('a token of another server', 'token_issuer', () => ({ claims: { iss: 'https://evil.example.org' } })),
  token('a token that another key signed', 'token_forged', () => ({ issuer: stranger })),
  token('a token of a key that is not there', 'token_forged', () => ({ header: { kid: 'k2' } })),
  token('an expired token', 'token_expired', (rig) => ({
    claims: { exp: rig.now() - 60, iat: rig.now() - 120 },
  })),
  token('a token without an end', 'token_malformed', () => ({ claims: { exp: undefined } })),
  token('a token of another kind', 'token_malformed', () => ({ header: { typ: 'logout+jwt' } })),
  token('a token that lives too long', 'token_too_long', (rig) => ({ claims: { exp: rig.now() + 86_400 } })),
  {
    name: 'a token without the scope',
    reason: 'scope_missing',
    status: 403,
    error: 'insufficient_scope',
    requests: one(() => ({ claims: { scope: 'list' } })),
  },
  denied('a caller that nobody expects', 'caller_unexpected', () => ({ claims: { client_id: 'other' } })),
  denied('a method that nobody granted', 'policy_denied', () => ({ method: 'DELETE' })),
  {
    name: 'a path of no route',
    reason: 'route_unknown',
    status: 404,
    requests: one(() => ({ path: '/v2/items' })),
  },
  {
    name: 'a dot segment',
    reason: 'url_refused',
    status: 400,
    requests: one(() => ({ path: '/v1/x/%2e%2e/items' })),
  },
  denied('a request past the gateway', 'hop_unexpected', () => ({ route: 'gated' })),
  denied('a request past the gateway that says it came through', 'hop_unexpected', (rig) => ({
    route: 'gated',
    headers: [
      ['Client-Cert', `:${rig.gateway.toString('base64')}:`],
      ['X-Forwarded-For', '192.0.2.1'],
      ['X-Original-Address', '192.0.2.1'],
    ],
  })),
  {
    ...denied('a gateway with a certificate of the same name by another CA', 'hop_unexpected', (rig) => ({
      route: 'gated',
      certificate: rig.ca.certify(stranger.publicKey.export({ format: 'der', type: 'spki' }), {
        uri: 'spiffe://dev.holdfast.test/gateway',
      }),
    })),
    needsPeer: true,
  },
  {
    name: 'a request through the gateway',
    reason: 'ok',
    status: 200,
    needsPeer: true,
    requests: one((rig) => ({ route: 'gated', certificate: rig.gateway })),
  },
  {
    name: 'a request through the edge, known by its address',
    reason: 'ok',
    status: 200,
    needsPeer: true,
    requests: one(() => ({ route: 'gated', address: '192.0.2.7' })),
  },
  token('a token that is bound to a certificate, without one', 'token_downgraded', (rig) => ({
    claims: { cnf: { 'x5t#S256': x5tOf(certificateOf(rig)) } },
    scheme: 'Bearer',
    without: ['DPoP'],
  })),
  token('the certificate of a token in headers that nobody vouches for', 'token_downgraded', (rig) => {
    const certificate = certificateOf(rig)
    const pem = encodeURIComponent(
      `-----BEGIN CERTIFICATE-----\n${certificate.toString('base64')}\n-----END CERTIFICATE-----`,
    )
    return {
      claims: { cnf: { 'x5t#S256': x5tOf(certificate) } },
      scheme: 'Bearer',
      without: ['DPoP'],
      headers: [
        ['Client-Cert', `:${certificate.toString('base64')}:`],
        ['X-Forwarded-Client-Cert', `Cert="${pem}"`],
        ['X-Original-Certificate', pem],
      ],
    }
  }),
  {
    ...token('a token that is bound to another certificate', 'token_stolen', (rig) => ({
      claims: { cnf: { 'x5t#S256': x5tOf(certificateOf(rig)) } },
      scheme: 'Bearer',
      without: ['DPoP'],
      certificate: rig.gateway,
    })),
    needsPeer: true,
  },
  {
    name: 'a token that is bound to the certificate of the channel',
    reason: 'ok',
    status: 200,
    needsPeer: true,
    requests: one((rig) => {
      const certificate = certificateOf(rig)
      const claims = { cnf: { 'x5t#S256': x5tOf(certificate) } }
      return { claims, scheme: 'Bearer', without: ['DPoP'], certificate }
    }),
  },
  traded('a Txn-Token beside it', 'ok', 200, (rig) => [txnToken(rig)]),
  traded('no Txn-Token where one is wanted', 'token_missing', 401, () => []),
  traded('two Txn-Tokens', 'proof_repeated', 400, (rig) => [txnToken(rig), txnToken(rig)]),
  traded('a Txn-Token by another key', 'token_forged', 401, (rig) => [txnToken(rig, {}, stranger)]),
  traded('a Txn-Token of another trust domain', 'token_audience', 401, (rig) => [
    txnToken(rig, { aud: 'example.org' }),
  ]),
  traded('an access token as Txn-Token', 'token_malformed', 401, (rig) => [rig.token()]),
  {
    name: 'a Txn-Token that nothing covers',
    reason: 'proof_coverage',
    ...BAD_PROOF,
    requests: (rig) => [rig.request({ route: 'traded', headers: [['Txn-Token', txnToken(rig)]] })],
  },
]

export function txnToken(rig: VerifyRig, claims: object = {}, signer = rig.issuer): string {
  const now = rig.now()
  const standard = { aud: TRADE, iat: now, exp: now + 60, txn: 't', sub: 'ann', scope: 'x', req_wl: 'web' }
  return signToken({ alg: 'ES256', kid: 'k1', typ: 'txntoken+jwt' }, { ...standard, ...claims }, signer)
}

/** A certificate, and a token that is bound to it. */
export function boundToken(rig: VerifyRig) {
  const certificate = certificateOf(rig)
  return { certificate, token: rig.token({ claims: { cnf: { 'x5t#S256': x5tOf(certificate) } } }) }
}

/** A request of the route that wants Txn-Tokens, on the channel that its token is bound to. */
export function tradedRequest(rig: VerifyRig, txnTokens: readonly string[], bound = boundToken(rig)) {
  const headers = txnTokens.map((text) => ['Txn-Token', text] as const)
  return rig.request({ route: 'traded', scheme: 'Bearer', without: ['DPoP'], headers, ...bound })
}

function traded(
  name: string,
  reason: string,
  status: number,
  tokens: (rig: VerifyRig) => readonly string[],
): VerifyCase {
  const error = status === 401 && reason !== 'token_missing' ? { error: 'invalid_token' } : {}
  const requests = (rig: VerifyRig) => [tradedRequest(rig, tokens(rig))]
  return { name, reason, status, ...error, needsPeer: true, requests }
}
