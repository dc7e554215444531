/** Requests that are right but for one thing, and what becomes of each: the same over every way in. */
import type { Inbound } from '../../src/ingress/inbound.ts'
import { generateKey } from '../../src/keys/signer.ts'
import { hashOf } from '../../src/proof/jwt.ts'
import type { RequestOf, TestVerifier } from './verifier.ts'

/** The key of a thief. */
export const other = generateKey('ES256')

/** What it is, how it differs, and the reason of its refusal or `ok`. */
export type VerifyCase = readonly [what: string, over: Partial<RequestOf>, reason: string]

/** A DPoP request of the route `api`. */
export const DPOP_CASES: readonly VerifyCase[] = [
  ['without a proof', { without: ['DPoP'] }, 'proof_missing'],
  ['without a token', { without: ['Authorization'] }, 'token_missing'],
  ['whose bound token comes as Bearer', { scheme: 'Bearer' }, 'token_downgraded'],
  [
    'whose bound token comes as Bearer without proof',
    { scheme: 'Bearer', without: ['DPoP'] },
    'token_downgraded',
  ],
  ['of an unknown scheme', { scheme: 'Basic' }, 'token_malformed'],
  ['with two proofs', { headers: ['dpop', 'x'] }, 'proof_repeated'],
  ['with two tokens', { headers: ['authorization', 'DPoP x'] }, 'proof_repeated'],
  ['with the key of a thief', { key: other }, 'token_stolen'],
  ['for another method', { proof: { htm: 'POST' } }, 'proof_method'],
  ['for the URL as it arrived', { url: 'https://api.example.org/v1/items' }, 'proof_url'],
  ['for the URL that Host names', { url: 'https://internal.example.org/orders/v1/items' }, 'proof_url'],
  [
    'for the URL that a forged forwarded header names',
    { url: 'https://evil.example.org/orders/v1/items', headers: ['X-Forwarded-Host', 'evil.example.org'] },
    'proof_url',
  ],
  ['for another token', { proof: { ath: hashOf('x') } }, 'proof_token'],
  ['without ath', { proof: { ath: undefined } }, 'proof_token'],
  ['from long ago', { proof: { iat: 1_699_999_000 } }, 'proof_time'],
  ['from the future', { proof: { iat: 1_700_001_000 } }, 'proof_time'],
  ['with a nonce that nobody gave', { proof: { nonce: 'A'.repeat(22) } }, 'proof_nonce'],
  ['with a proof from before the store began', { proof: { iat: 1_700_000_000 } }, 'replay_floor'],
  ['of a server that is not listed', { claims: { iss: 'https://partner.example.org' } }, 'token_issuer'],
  ['for another audience', { claims: { aud: 'https://other.example.org' } }, 'token_audience'],
  ['without audience', { claims: { aud: undefined } }, 'token_audience'],
  ['without exp', { claims: { exp: undefined } }, 'token_malformed'],
  ['with an exp in text', { claims: { exp: '1800000000' } }, 'token_malformed'],
  ['with an exp of no date', { claims: { exp: 1e300 } }, 'token_malformed'],
  ['of a token that has expired', { claims: { iat: 1_699_999_000, exp: 1_699_999_300 } }, 'token_expired'],
  ['of a token that lives too long', { claims: { exp: 1_700_001_000 } }, 'token_too_long'],
  ['of a token not good yet', { claims: { nbf: 1_700_000_100 } }, 'token_malformed'],
  ['of a token issued in the future', { claims: { iat: 1_700_000_100 } }, 'token_malformed'],
  ['of an unbound token', { claims: { cnf: undefined } }, 'token_unbound'],
  ['of a token bound to what is unknown', { claims: { cnf: { kid: 'x' } } }, 'token_malformed'],
  ['of a token bound to nothing', { claims: { cnf: {} } }, 'token_malformed'],
  ['of a caller that no grant names', { claims: { client_id: 'batch' } }, 'caller_unexpected'],
  [
    'for a path that no grant names',
    { path: '/v1x', url: 'https://api.example.org/orders/v1x' },
    'route_unknown',
  ],
  ['with dots in its path', { path: '/v1/../admin' }, 'url_refused'],
  ['without the scope', { claims: { scope: 'list' } }, 'scope_missing'],
  ['of a method that needs another scope', { method: 'DELETE', proof: { htm: 'DELETE' } }, 'scope_missing'],
  ['of a method that no grant names', { method: 'PUT', proof: { htm: 'PUT' } }, 'policy_denied'],
  ['by too many actors', { claims: { act: { sub: 'a', act: { sub: 'b' } } } }, 'caller_unexpected'],
  ['by one actor', { claims: { act: { sub: 'a' } } }, 'ok'],
  ['with a query', { path: '/v1/items' }, 'ok'],
]

/** A DPoP request of the route `api` whose token has another header. */
export const TOKEN_HEADER_CASES: readonly (readonly [what: string, header: object, reason: string])[] = [
  ['of no key', { kid: undefined }, 'token_malformed'],
  ['of an unknown key', { kid: 'k2' }, 'token_forged'],
  ['by none', { alg: 'none' }, 'token_malformed'],
  ['by HMAC', { alg: 'HS256' }, 'token_malformed'],
  ['of another typ', { typ: 'dpop+jwt' }, 'token_malformed'],
  ['with crit', { crit: ['b64'] }, 'token_malformed'],
]

export function withTokenHeader(verifier: TestVerifier, header: object): Inbound {
  const token = verifier.token({}, header)
  const url = 'https://api.example.org/orders/v1/items'
  const proof = verifier.proof({ htm: 'GET', htu: url, ath: hashOf(token) })
  const headers = ['Host', 'internal.example.org', 'Authorization', `DPoP ${token}`, 'DPoP', proof]
  return { ...verifier.request(), headers }
}
