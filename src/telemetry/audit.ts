/**
 * The audit log: one JSON line a decision, chained by hash, anchored by signed checkpoints. A decision leaves the
 * agent only after `commit` has put its record where it belongs.
 */
import type { Owner, Reason } from '../base/fault.ts'

export type AuditEvent =
  | 'agent.start'
  | 'agent.stop'
  | 'attest'
  | 'deliver.x509'
  | 'deliver.jwt'
  | 'deliver.wit'
  | 'deliver.bundle'
  | 'validate.jwt'
  | 'sign.dpop'
  | 'sign.wpt'
  | 'key.list'
  | 'key.destroy'
  | 'revoke'
  | 'lift'
  | 'policy.load'
  | 'config.load'
  | 'admin'

/** What one record says; never a token, proof, nonce, query, body or key. */
export interface AuditFacts {
  readonly event: AuditEvent
  readonly allowed: boolean
  readonly reason?: Reason
  readonly owner?: Owner
  /** In `mode: observe`: the refusal that was not carried out. */
  readonly observed?: Reason
  readonly spiffe_id?: string | undefined
  readonly entry?: string | undefined
  readonly instance?: string | undefined
  readonly pid?: number | undefined
  readonly uid?: number | undefined
  readonly target?: string | undefined
  /** `file:line` of the statement that decided. */
  readonly rule?: string | undefined
  readonly method?: string | undefined
  readonly origin?: string | undefined
  readonly path?: string | undefined
  readonly audience?: readonly string[] | undefined
  readonly jkt?: string | undefined
  readonly jti?: string | undefined
  /** The first 16 characters of the token's `ath`. */
  readonly token?: string | undefined
  readonly policy?: string | undefined
  readonly count?: number | undefined
  readonly detail?: string | undefined
}

/** The sink of decisions. */
export interface Audit {
  /** Adds a record to the chain and to the batch of this turn; cheap, never throws. */
  append(facts: AuditFacts): void
  /** Writes what was appended; throws audit_unavailable when it could not and policy says `refuse`. */
  commit(): void
  /** Throws audit_unavailable when the last write failed and policy says `refuse`: nothing new may be signed. */
  check(): void
  /** Each record as it is written, without the chain's members, until the returned function is called. */
  watch(listener: (record: AuditFacts & { readonly ts: string; readonly seq: number }) => void): () => void
}
