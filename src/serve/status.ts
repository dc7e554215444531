/** What a Fault becomes on each wire: the one table of gRPC codes, HTTP statuses and OAuth errors (RFC 6749 s.5.2). */
import type { Reason } from '../base/fault.ts'

/** gRPC status codes by name (grpc/doc/statuscodes.md); numbers, so that no gRPC library is needed to know them. */
export const GRPC = {
  CANCELLED: 1,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const

export type GrpcCode = (typeof GRPC)[keyof typeof GRPC]

interface Status {
  readonly grpc: GrpcCode
  readonly http: number
  readonly oauth: string
}

const status = (grpc: GrpcCode, http: number, oauth: string): Status => ({ grpc, http, oauth })

// SPIFFE clients give up for good on INVALID_ARGUMENT and retry everything else: nothing transient may map to it.
const MALFORMED = status(GRPC.INVALID_ARGUMENT, 400, 'invalid_request')
const DENIED = status(GRPC.PERMISSION_DENIED, 403, 'access_denied')
const UNAVAILABLE = status(GRPC.UNAVAILABLE, 503, 'temporarily_unavailable')
const SLOW_DOWN = status(GRPC.RESOURCE_EXHAUSTED, 429, 'temporarily_unavailable')
const UPSTREAM = status(GRPC.FAILED_PRECONDITION, 502, 'server_error')
// What an outside caller may know of a refused credential: its OAuth class (RFC 9449 s.7.1, RFC 6750 s.3.1).
const BAD_PROOF = status(GRPC.UNAUTHENTICATED, 401, 'invalid_dpop_proof')
const WANTS_NONCE = status(GRPC.UNAUTHENTICATED, 401, 'use_dpop_nonce')
const BAD_TOKEN = status(GRPC.UNAUTHENTICATED, 401, 'invalid_token')
const LOCAL = status(GRPC.FAILED_PRECONDITION, 500, 'server_error')

export const STATUS: Readonly<Record<Reason, Status>> = {
  invalid_request: MALFORMED,
  usage: MALFORMED,
  header_missing: MALFORMED,
  browser_refused: DENIED,
  not_found: status(GRPC.UNIMPLEMENTED, 404, 'invalid_request'),
  method_not_allowed: status(GRPC.UNIMPLEMENTED, 405, 'invalid_request'),
  body_too_large: status(GRPC.RESOURCE_EXHAUSTED, 413, 'invalid_request'),
  media_type: status(GRPC.INVALID_ARGUMENT, 415, 'invalid_request'),
  unimplemented: status(GRPC.UNIMPLEMENTED, 501, 'unsupported_token_type'),
  no_identity: DENIED,
  attestation_failed: UNAVAILABLE,
  peer_gone: DENIED,
  peer_changed: DENIED,
  peer_foreign: DENIED,
  lease_ended: DENIED,
  revoked: DENIED,
  rate_limited: SLOW_DOWN,
  too_many_connections: SLOW_DOWN,
  too_many_calls: SLOW_DOWN,
  policy_denied: DENIED,
  target_unknown: DENIED,
  url_refused: MALFORMED,
  approval_refused: DENIED,
  hook_unavailable: UNAVAILABLE,
  custody_denied: DENIED,
  delivery_denied: DENIED,
  audience_reserved: DENIED,
  token_required: DENIED,
  token_foreign: DENIED,
  token_expired: DENIED,
  token_too_long: DENIED,
  token_malformed: DENIED,
  key_lost: DENIED,
  key_purpose: DENIED,
  keys_exhausted: SLOW_DOWN,
  spiffe_id_invalid: MALFORMED,
  svid_invalid: MALFORMED,
  svid_expired: MALFORMED,
  svid_audience: MALFORMED,
  secret_unknown: status(GRPC.NOT_FOUND, 404, 'invalid_request'),
  bundle_missing: MALFORMED,
  certificate_malformed: MALFORMED,
  issuer_unavailable: UNAVAILABLE,
  issuer_refused: UPSTREAM,
  issued_unbound: UPSTREAM,
  issued_too_long: UPSTREAM,
  issued_too_wide: UPSTREAM,
  subject_required: DENIED,
  subject_unknown: DENIED,
  subject_refused: DENIED,
  discovery_failed: UPSTREAM,
  client_key_not_shared: LOCAL,
  header_refused: MALFORMED,
  via_sidecar: DENIED,
  redirect_refused: UPSTREAM,
  body_not_replayable: UPSTREAM,
  digest_required: status(GRPC.INVALID_ARGUMENT, 411, 'invalid_request'),
  digest_mismatch: MALFORMED,
  target_busy: SLOW_DOWN,
  upstream_unavailable: status(GRPC.UNAVAILABLE, 502, 'temporarily_unavailable'),
  upstream_address: DENIED,
  upstream_tls: UPSTREAM,
  upstream_malformed: UPSTREAM,
  proof_missing: BAD_PROOF,
  proof_repeated: MALFORMED,
  proof_malformed: BAD_PROOF,
  proof_coverage: BAD_PROOF,
  proof_forged: BAD_PROOF,
  proof_method: BAD_PROOF,
  proof_url: BAD_PROOF,
  proof_token: BAD_PROOF,
  proof_time: BAD_PROOF,
  proof_nonce: WANTS_NONCE,
  proof_replayed: BAD_PROOF,
  replay_floor: WANTS_NONCE,
  replay_unavailable: UNAVAILABLE,
  token_missing: BAD_TOKEN,
  token_issuer: BAD_TOKEN,
  token_audience: BAD_TOKEN,
  token_forged: BAD_TOKEN,
  token_unbound: BAD_TOKEN,
  token_downgraded: BAD_TOKEN,
  token_stolen: BAD_TOKEN,
  token_revoked: BAD_TOKEN,
  token_inactive: BAD_TOKEN,
  verifier_keys: UNAVAILABLE,
  caller_unexpected: DENIED,
  hop_unexpected: DENIED,
  route_unknown: status(GRPC.PERMISSION_DENIED, 404, 'invalid_request'),
  verifier_foreign: DENIED,
  scope_missing: status(GRPC.PERMISSION_DENIED, 403, 'insufficient_scope'),
  event_refused: MALFORMED,
  secret_refused: DENIED,
  session_foreign: DENIED,
  session_narrowed: DENIED,
  cluster_unavailable: UNAVAILABLE,
  pod_facts_unavailable: UNAVAILABLE,
  pod_unknown: DENIED,
  container_refused: DENIED,
  not_ready: UNAVAILABLE,
  draining: UNAVAILABLE,
  overloaded: status(GRPC.UNAVAILABLE, 503, 'temporarily_unavailable'),
  authority_unavailable: UNAVAILABLE,
  authority_not_shared: status(GRPC.UNIMPLEMENTED, 501, 'unsupported_token_type'),
  audit_unavailable: UNAVAILABLE,
  hardening_missing: LOCAL,
  agent_running: LOCAL,
  socket_unusable: LOCAL,
  config_invalid: LOCAL,
  policy_invalid: LOCAL,
  policy_writable: LOCAL,
  entry_too_weak: LOCAL,
  agent_unreachable: UNAVAILABLE,
  admin_denied: DENIED,
  deadline: status(GRPC.DEADLINE_EXCEEDED, 408, 'temporarily_unavailable'),
  canceled: status(GRPC.CANCELLED, 499, 'temporarily_unavailable'),
  bug: status(GRPC.INTERNAL, 500, 'server_error'),
}
