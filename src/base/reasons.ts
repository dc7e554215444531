/**
 * The closed list of reasons: who has to act, what causes it, what cures it. The reason reference is generated from
 * this table; `serve/status` maps each to its wire codes.
 */

import { CLUSTER_REASONS } from './reasons-cluster.ts'
import { EGRESS_REASONS } from './reasons-egress.ts'
import { INGRESS_REASONS } from './reasons-ingress.ts'
import { RELAY_REASONS } from './reasons-relay.ts'

/** The layer that has to act. `caller` is whoever sent the request, `agent` whoever runs Holdfast. */
export type Owner = 'identity' | 'platform' | 'application' | 'security' | 'caller' | 'agent'

export interface ReasonFacts {
  readonly owner: Owner
  /** Default message: what happened. */
  readonly cause: string
  readonly cure: string
}

const facts = <Name extends string>(table: Record<Name, ReasonFacts>) => table

export const REASONS = facts({
  // The request itself
  invalid_request: {
    owner: 'caller',
    cause: 'the request is malformed',
    cure: 'Correct the named member and send the request again.',
  },
  usage: {
    owner: 'caller',
    cause: 'the command line is not understood',
    cure: 'See `holdfast COMMAND --help`.',
  },
  header_missing: {
    owner: 'caller',
    cause: 'security header missing from request',
    cure: 'Send the header or gRPC metadata `workload.spiffe.io: true` exactly once.',
  },
  browser_refused: {
    owner: 'caller',
    cause: 'requests from a browser are refused: Origin or Referer is present',
    cure: 'Call from a service; a web page must never reach the agent.',
  },
  not_found: {
    owner: 'caller',
    cause: 'there is nothing at this path',
    cure: 'See the README for the HTTP paths of holdfast.v1.',
  },
  method_not_allowed: {
    owner: 'caller',
    cause: 'the path does not take this method',
    cure: 'Use the method named in the Allow header.',
  },
  body_too_large: {
    owner: 'caller',
    cause: 'the request body is over 64 KiB',
    cure: 'Send fewer requests in one batch.',
  },
  media_type: {
    owner: 'caller',
    cause: 'the request body is not application/json',
    cure: 'Send `Content-Type: application/json`.',
  },
  unimplemented: {
    owner: 'identity',
    cause: 'the operation is switched off or unknown here',
    cure: 'Enable the feature in the configuration, or call the door that serves it.',
  },
  // The caller
  no_identity: {
    owner: 'identity',
    cause: 'no identity issued',
    cure: 'Run `holdfast explain` as this user: it shows the selectors seen and the nearest entry.',
  },
  attestation_failed: {
    owner: 'platform',
    cause: 'the caller could not be attested',
    cure: 'Reconnect; if it persists, see `holdfast check` for what the agent cannot read.',
  },
  peer_gone: {
    owner: 'caller',
    cause: 'the process that opened this connection has ended',
    cure: 'Open a connection of your own: a handed-over descriptor carries no identity.',
  },
  peer_changed: {
    owner: 'caller',
    cause: 'the process runs another program than when it was attested',
    cure: 'Open a new connection after exec.',
  },
  peer_foreign: {
    owner: 'platform',
    cause: 'the caller is in another pid namespace and the kernel shows no pid for it',
    cure: 'Run the agent in the host pid namespace (hostPID: true).',
  },
  lease_ended: {
    owner: 'security',
    cause: 'the lease of this workload has ended',
    cure: 'See `holdfast explain` for the revocation or the change of entry.',
  },
  revoked: {
    owner: 'security',
    cause: 'an operator has revoked this',
    cure: 'Ask the security team; `holdfast revoke --lift` undoes it.',
  },
  rate_limited: {
    owner: 'caller',
    cause: 'too many requests from this workload',
    cure: 'Back off for the time in Retry-After, or ask for a higher rate.',
  },
  too_many_connections: {
    owner: 'caller',
    cause: 'too many connections from this uid or pod',
    cure: 'Keep one connection open instead of one a request, or raise limits.connections_per_uid.',
  },
  too_many_calls: {
    owner: 'caller',
    cause: 'too many calls of this uid or pod are open',
    cure: 'End streams that are not read, or raise limits.calls_per_uid.',
  },
  // Policy
  policy_denied: {
    owner: 'application',
    cause: 'no rule allows this request',
    cure: 'Run `holdfast explain METHOD URL`: it names the nearest rule and the smallest change.',
  },
  target_unknown: {
    owner: 'platform',
    cause: 'no target has this origin',
    cure: 'Add the origin to a target in a platform policy file.',
  },
  url_refused: {
    owner: 'caller',
    cause: 'the URL is not in the form that can be signed',
    cure: 'Send an absolute https URL without userinfo, fragment, dot segments, encoded slashes or an IP literal.',
  },
  approval_refused: {
    owner: 'application',
    cause: 'a person has to agree to this request, and nobody did',
    cure: 'Ask whoever answers for the target to run `holdfast approve`, then send the request again.',
  },
  hook_unavailable: {
    owner: 'application',
    cause: 'the decision hook does not answer, and without its answer the request is refused',
    cure: 'See that the service named by decision_hook in the configuration runs and answers in time.',
  },
  custody_denied: {
    owner: 'identity',
    cause: 'policy does not let this application hold request headers for the target',
    cure: 'Use the egress door, or ask identity to set custody: headers.',
  },
  delivery_denied: {
    owner: 'identity',
    cause: 'the entry does not deliver this kind of SVID',
    cure: 'Use the signing or egress door, or ask identity to set deliver on the entry.',
  },
  audience_reserved: {
    owner: 'identity',
    cause:
      'the audience belongs to a configured authorization server, where a JWT-SVID would be a bearer credential',
    cure: 'Let the agent fetch tokens, or list the audience under audiences of the entry.',
  },
  token_required: {
    owner: 'identity',
    cause: 'the target wants the access token, not only its hash or nothing',
    cure: 'Send access_token; hash_only or tokenless on the target permits less.',
  },
  token_foreign: {
    owner: 'caller',
    cause: 'the access token is not bound to a key of this workload',
    cure: 'Ask for a token with a proof from this agent; its cnf.jkt must be one of your keys.',
  },
  token_expired: {
    owner: 'caller',
    cause: 'the access token has expired or has no usable exp',
    cure: 'Get a fresh token.',
  },
  token_too_long: {
    owner: 'identity',
    cause: "the access token lives longer than the target's max_ttl",
    cure: 'Ask the authorization server for shorter tokens, or raise max_ttl.',
  },
  token_malformed: {
    owner: 'caller',
    cause: 'the access token is not a JWT the agent can read',
    cure: 'Send the token as issued; for opaque tokens the target must say hash_only and you send ath.',
  },
  // Keys
  key_lost: {
    owner: 'caller',
    cause: 'the key of this thumbprint is not held here',
    cure: 'Get a new token: keys do not survive a restart of the agent or the end of an instance.',
  },
  key_purpose: {
    owner: 'caller',
    cause: 'the key serves another purpose',
    cure: 'Leave out jkt, or name a key that GET /v1/identity lists for this target.',
  },
  keys_exhausted: {
    owner: 'agent',
    cause:
      'the protected memory for keys is nearly full, or one identity holds as many as are left for all others',
    cure: 'Raise --secure-heap, or shorten the life of instances.',
  },
  // SVIDs
  spiffe_id_invalid: {
    owner: 'caller',
    cause: 'not a SPIFFE ID',
    cure: 'Use spiffe://trust-domain/path with lower-case trust domain and no empty, dot or escaped segments.',
  },
  svid_invalid: {
    owner: 'caller',
    cause: 'the SVID does not verify',
    cure: 'Fetch a fresh SVID from the Workload API of its trust domain.',
  },
  svid_expired: { owner: 'caller', cause: 'the SVID has expired', cure: 'Fetch a fresh SVID.' },
  svid_audience: {
    owner: 'caller',
    cause: 'the JWT-SVID is for another audience',
    cure: 'Fetch a JWT-SVID for exactly the audience that is checked.',
  },
  secret_unknown: {
    owner: 'caller',
    cause: 'no secret has this name',
    cure: 'Ask for `default`, a SPIFFE ID of yours, `spiffe://TRUST-DOMAIN`, ROOTCA or ALL.',
  },
  bundle_missing: {
    owner: 'identity',
    cause: 'there is no bundle for the trust domain',
    cure: 'Federate with the trust domain, or check the SPIFFE ID.',
  },
  certificate_malformed: {
    owner: 'caller',
    cause: 'the certificate is not well-formed DER within bounds',
    cure: 'Send one X.509 certificate in DER, at most 64 KiB.',
  },
  ...EGRESS_REASONS,
  ...INGRESS_REASONS,
  ...RELAY_REASONS,
  ...CLUSTER_REASONS,
  // The agent
  not_ready: { owner: 'agent', cause: 'the agent is starting', cure: 'Try again shortly.' },
  draining: {
    owner: 'agent',
    cause: 'the agent is shutting down',
    cure: 'Reconnect: a successor takes the socket over.',
  },
  overloaded: { owner: 'agent', cause: 'the agent is at its limit', cure: 'Back off and try again.' },
  authority_unavailable: {
    owner: 'identity',
    cause: 'the authority cannot sign now',
    cure: 'See `holdfast check`; SVIDs issued before stay valid until they expire.',
  },
  authority_not_shared: {
    owner: 'identity',
    cause: 'JWT-SVIDs and WIT-SVIDs are off: several nodes do not share a signing key',
    cure: 'Run SPIRE server as authority, or mount a shared key set.',
  },
  audit_unavailable: {
    owner: 'security',
    cause: 'the audit log cannot be written, and nothing is signed unaudited',
    cure: 'Free the disk or mend the audit sink; audit.on_failure: continue accepts the gap.',
  },
  hardening_missing: {
    owner: 'agent',
    cause: 'a protection of the process is missing',
    cure: 'Start with the flags of the start script; hardening.on_degraded: continue accepts it.',
  },
  agent_running: {
    owner: 'agent',
    cause: 'another agent answers on this socket',
    cure: 'Stop it, choose another --dir, or start with --takeover.',
  },
  socket_unusable: {
    owner: 'agent',
    cause: 'the socket directory cannot be used',
    cure: 'Use a directory that this user owns, with a path short enough for a socket (107 bytes).',
  },
  config_invalid: {
    owner: 'agent',
    cause: 'the configuration is not valid',
    cure: 'Correct the named line; `holdfast check --config FILE` checks it without starting.',
  },
  policy_invalid: {
    owner: 'security',
    cause: 'a policy file is not valid',
    cure: 'Correct the named line; `holdfast policy check` checks it without loading.',
  },
  policy_writable: {
    owner: 'platform',
    cause: 'others may write a file that the agent trusts',
    cure: 'chmod go-w the file and its directory, and let root or the agent own it.',
  },
  entry_too_weak: {
    owner: 'identity',
    cause: 'the entry rests on path or sha256 alone, which any process of any user can satisfy',
    cure: 'Add unix:uid, unix:gid, systemd:id or a container selector.',
  },
  agent_unreachable: {
    owner: 'agent',
    cause: 'no agent answers on the socket',
    cure: 'Start one with `holdfast run --dev`, or name its socket with --socket.',
  },
  admin_denied: {
    owner: 'agent',
    cause: 'this user may not use the admin door',
    cure: 'Run the command as root or as the user that runs the agent.',
  },
  deadline: {
    owner: 'caller',
    cause: 'the request took too long',
    cure: 'Send the request whole, and try again.',
  },
  canceled: { owner: 'caller', cause: 'the caller went away', cure: 'Nothing to do.' },
  bug: {
    owner: 'agent',
    cause: 'internal error',
    cure: 'Report it with the audit record of this time; no details are shown to callers.',
  },
})

/** Why something was refused or failed; stable, documented, one word from wire to dashboard. */
export type Reason = keyof typeof REASONS
