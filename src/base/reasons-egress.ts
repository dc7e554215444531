/** The reasons of tokens from authorization servers and of requests that go out. */
import type { ReasonFacts } from './reasons.ts'

export const EGRESS_REASONS = {
  // Tokens from authorization servers
  issuer_unavailable: {
    owner: 'identity',
    cause: 'the authorization server does not answer, or not as an authorization server would',
    cure: 'Back off and try again; if it persists, see issuer, token_endpoint and, in the platform file, tls and addresses of the server.',
  },
  issuer_refused: {
    owner: 'identity',
    cause: 'the authorization server refuses the token',
    cure: 'Compare what the server has registered with `holdfast client register-info NAME`, and with scopes and resource of the target.',
  },
  issued_unbound: {
    owner: 'identity',
    cause: 'the issued token is not bound to the key that asked for it',
    cure: 'Let the authorization server bind tokens to the DPoP key (token_type DPoP, cnf.jkt); a bearer token is used only under an exception of security.',
  },
  issued_too_long: {
    owner: 'identity',
    cause: "the issued token lives longer than the target's max_ttl",
    cure: 'Shorten the life of tokens at the authorization server, or raise max_ttl.',
  },
  issued_too_wide: {
    owner: 'identity',
    cause: 'the issued token is good for more than the target states: another audience or further scopes',
    cure: 'Narrow what the authorization server grants this client, or state resource and scopes of the target as they are.',
  },
  subject_required: {
    owner: 'caller',
    cause: 'the target wants the token of whoever called this workload, and the request names none',
    cure: 'Hand the inbound token to the agent and send its handle as Holdfast-Subject.',
  },
  subject_unknown: {
    owner: 'caller',
    cause: 'the handle names no subject token of this workload that is still valid',
    cure: 'Hand the inbound token to the agent again: handles end with the token, the workload and the agent.',
  },
  subject_refused: {
    owner: 'identity',
    cause: 'the subject token is none that the target takes in exchange',
    cure: 'Add its issuer to exchange.subjects of the target, or send a token that is meant for this workload.',
  },
  discovery_failed: {
    owner: 'identity',
    cause: "the target's own metadata does not say what policy says of it",
    cure: 'Compare its oauth-protected-resource metadata with server and resource of the target, or leave out discover.',
  },
  client_key_not_shared: {
    owner: 'identity',
    cause: 'the client key is made on each node, and several nodes use the client',
    cure: 'Use auth: tls_client_auth with the X.509-SVID, which works on every node, or mount one key: `key: { file: PATH }`.',
  },
  // Requests through the egress door
  header_refused: {
    owner: 'caller',
    cause: 'a header cannot be passed on',
    cure: 'Leave out the named header: the agent sets credentials, routing and framing itself.',
  },
  via_sidecar: {
    owner: 'platform',
    cause: 'the target is reached from the network of the workload, by its sidecar',
    cure: 'Send the request to holdfast sidecar, or set via: agent at the target.',
  },
  redirect_refused: {
    owner: 'platform',
    cause: 'the target redirects to a place where this request may not go',
    cure: 'Grant the place it names as a target, or leave out redirects: the caller then gets the redirect itself.',
  },
  body_not_replayable: {
    owner: 'caller',
    cause: 'the target wants a nonce in the proof, and the body was too long to be kept for a second try',
    cure: 'Send the request again, now that the nonce is known; or raise egress.buffer_kib.',
  },
  digest_required: {
    owner: 'caller',
    cause: 'the signature has to cover the body, and nothing says what its digest is',
    cure: 'Send Content-Digest (RFC 9530, sha-256 or sha-512); for bodies over egress.buffer_kib only the sender knows it in time.',
  },
  digest_mismatch: {
    owner: 'caller',
    cause: 'the body is not the one that Content-Digest says',
    cure: 'Send the digest of the body as it is sent, after any content coding.',
  },
  target_busy: {
    owner: 'caller',
    cause: 'this workload has as many requests open at the target as it may',
    cure: 'Back off and try again, or raise egress.connections_per_target.',
  },
  upstream_unavailable: {
    owner: 'platform',
    cause: 'the target cannot be reached or does not answer in time',
    cure: 'See whether the target runs, and whether its origin resolves and answers from the network of the agent.',
  },
  upstream_address: {
    owner: 'platform',
    cause: 'the name resolves to an address that is loopback, link-local or of this node',
    cure: 'List the address under addresses of the target or server in a platform policy file, when it is meant.',
  },
  upstream_tls: {
    owner: 'platform',
    cause: 'the certificate does not verify, or TLS 1.2 or later cannot be agreed on',
    cure: 'Mend the certificate, or state trust, peer_id or server_name under tls in a platform policy file.',
  },
  upstream_malformed: {
    owner: 'platform',
    cause: 'the answer of the target is not HTTP that can be passed on',
    cure: 'Mend the target: its headers, framing or upgrade answer break RFC 9110 or RFC 9112.',
  },
} as const satisfies Readonly<Record<string, ReasonFacts>>
