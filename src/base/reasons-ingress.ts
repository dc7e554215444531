/**
 * The reasons of incoming requests, as the verifier and its audit see them. What an outside caller hears is the OAuth
 * class only: a fine reason is an oracle.
 */
import type { ReasonFacts } from './reasons.ts'

export const INGRESS_REASONS = {
  proof_missing: {
    owner: 'platform',
    cause: 'the request carries no proof of possession',
    cure: 'Find the hop that drops it: each gateway has to pass DPoP and Authorization unchanged, or to verify them itself.',
  },
  proof_repeated: {
    owner: 'caller',
    cause: 'the request carries more than one proof or credential of a kind',
    cure: 'Send exactly one: a second header line is how one check reads another value than the next.',
  },
  proof_malformed: {
    owner: 'caller',
    cause: 'the proof is not one (RFC 9449 s.4.2, RFC 9421 s.3.2)',
    cure: 'Build the proof as the standard has it: typ, alg, jwk, jti, htm, htu, iat of DPoP; Signature-Input and Signature.',
  },
  proof_coverage: {
    owner: 'caller',
    cause: 'the signature does not cover all that it must cover',
    cure: 'Sign the named component too.',
  },
  proof_forged: {
    owner: 'caller',
    cause: 'the signature of the proof is not that of its key',
    cure: 'Sign the proof with the key it names.',
  },
  proof_method: {
    owner: 'caller',
    cause: 'the proof is for another method',
    cure: 'Make a proof for each request; see that no hop changes the method.',
  },
  proof_url: {
    owner: 'platform',
    cause: 'the proof is for another URL',
    cure: 'State the public origin and path of the route as callers use them; a rewrite before the check has to be undone.',
  },
  proof_token: {
    owner: 'caller',
    cause: 'the proof is for another access token',
    cure: 'Set ath to the hash of the very token that is sent.',
  },
  proof_time: {
    owner: 'caller',
    cause: 'the proof was made too long ago, or in the future',
    cure: 'Make a fresh proof for each request, and compare the clocks.',
  },
  proof_nonce: {
    owner: 'caller',
    cause: 'the proof has no nonce of this server that is still good',
    cure: 'Repeat the request once with the DPoP-Nonce of this answer.',
  },
  proof_replayed: {
    owner: 'caller',
    cause: 'the proof was used before',
    cure: 'Make a fresh proof for each try; if the caller did, somebody copies its requests.',
  },
  replay_floor: {
    owner: 'caller',
    cause: 'the proof is older than what the replay store remembers',
    cure: 'Repeat the request once with the DPoP-Nonce of this answer.',
  },
  replay_unavailable: {
    owner: 'platform',
    cause: 'the replay store does not answer, and without it a replay cannot be told',
    cure: 'See that the store runs; policy may accept the memory of this node alone meanwhile.',
  },
  token_missing: {
    owner: 'caller',
    cause: 'the request carries no access token',
    cure: 'Send Authorization with a token of a server that the route lists.',
  },
  token_issuer: {
    owner: 'identity',
    cause: 'the token is of an authorization server that the route does not list',
    cure: 'Send a token of a listed server, or add the server to the route.',
  },
  token_audience: {
    owner: 'identity',
    cause: 'the token is meant for another audience',
    cure: 'Ask for a token with the audience of this route (RFC 8707 resource).',
  },
  token_forged: {
    owner: 'caller',
    cause: 'the signature of the token is not by a key of its issuer',
    cure: 'Send the token as it was issued; if keys were rotated, see that the JWKS of the issuer has the new one.',
  },
  token_unbound: {
    owner: 'identity',
    cause: 'the token is bound to no key, and the route wants one that is',
    cure: 'Let the authorization server bind tokens (cnf.jkt or cnf.x5t#S256); a bearer token is taken only under an exception of security.',
  },
  token_downgraded: {
    owner: 'platform',
    cause: 'the token is bound to a key, and came without the proof of it',
    cure: 'Send Authorization: DPoP with a proof; if the caller did, a hop in between turned it into a bearer token.',
  },
  token_stolen: {
    owner: 'security',
    cause: 'the token is bound to another key than the one that was proven',
    cure: 'Revoke the token and look for where it was copied: only its own key makes it useful.',
  },
  token_revoked: {
    owner: 'security',
    cause: 'the token, its key or its subject was revoked',
    cure: 'Ask the security team; the revocation says why.',
  },
  token_inactive: {
    owner: 'identity',
    cause: 'the authorization server says that the token is not active',
    cure: 'Get a fresh token.',
  },
  token_status: {
    owner: 'identity',
    cause: 'the status of the token cannot be told from what it says',
    cure: 'Let the authorization server name a status list in its tokens, and state its origin under status_lists of the server.',
  },
  status_unavailable: {
    owner: 'identity',
    cause: 'the status list of the token cannot be had, and the last known one is too old',
    cure: 'See that the status list is reached from here, and that its issuer signs it with a key of its JWKS.',
  },
  verifier_keys: {
    owner: 'identity',
    cause: 'the keys of the issuer cannot be had, and the last known ones are too old',
    cure: 'See that the JWKS of the issuer is reached from here.',
  },
  caller_unexpected: {
    owner: 'application',
    cause: 'the route does not expect this caller',
    cure: 'Add the caller to the route, or find out who else uses its credentials.',
  },
  hop_unexpected: {
    owner: 'platform',
    cause: 'the request did not come through the hops that the route states',
    cure: 'Send it through the gateway, or add the hop to the route.',
  },
  route_unknown: {
    owner: 'platform',
    cause: 'no route has this origin and path',
    cure: 'Add the public origin to a route in a platform policy file.',
  },
  verifier_foreign: {
    owner: 'platform',
    cause: 'this workload may not ask about requests of the route',
    cure: 'List it under verifiers of the route in a platform policy file, by a selector or its SPIFFE ID.',
  },
  scope_missing: {
    owner: 'identity',
    cause: 'the token lacks a scope that the route wants',
    cure: 'Ask for a token with that scope.',
  },
  event_refused: {
    owner: 'security',
    cause:
      'the security event is not taken: of another sender, for another receiver, or of a subject that is not given to it',
    cure: 'Compare the event with the transmitter as a security policy file states it: issuer, keys, audience, subjects, token.',
  },
} as const satisfies Readonly<Record<string, ReasonFacts>>
