/**
 * The audit log: one JSON line a decision, chained by hash, anchored by signed checkpoints. A decision leaves the
 * agent only after `commit` has put its record where it belongs.
 */
import type { Clock } from '../base/clock.ts'
import type { Owner, Reason } from '../base/fault.ts'
import type { AuditSigner } from './audit-chain.ts'
import { descriptorSink, fileSink, noSink, type Sink } from './audit-sink.ts'
import { AuditWriter } from './audit-writer.ts'
import type { Health } from './health.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'

export type { AuditSigner } from './audit-chain.ts'

export type AuditEvent =
  | 'agent.start'
  | 'agent.stop'
  | 'attest'
  | 'pods'
  | 'deliver.x509'
  | 'deliver.jwt'
  | 'deliver.wit'
  | 'deliver.bundle'
  | 'validate.jwt'
  | 'sign.dpop'
  | 'sign.wpt'
  | 'sign.headers'
  | 'token.release'
  | 'probe'
  | 'subject.take'
  | 'verify'
  | 'bearer.moved'
  | 'replay'
  | 'event'
  | 'egress'
  | 'egress.done'
  | 'key.list'
  | 'key.destroy'
  | 'revoke'
  | 'lift'
  | 'approve'
  | 'policy.load'
  | 'config.load'
  | 'admin'

/** What one record says; never a token, proof, nonce, query, body or key. */
export interface AuditFacts {
  readonly event: AuditEvent
  readonly allowed: boolean
  readonly reason?: Reason | undefined
  readonly owner?: Owner | undefined
  /** In `mode: observe`: the refusal that was not carried out. */
  readonly observed?: Reason | undefined
  readonly spiffe_id?: string | undefined
  readonly entry?: string | undefined
  readonly instance?: string | undefined
  readonly pid?: number | undefined
  readonly uid?: number | undefined
  readonly target?: string | undefined
  /** The route of a request that came in, the last proxy in between, and who calls, as grants name it. */
  readonly route?: string | undefined
  readonly hop?: string | undefined
  readonly caller?: string | undefined
  /** `file:line` of the statement that decided. */
  readonly rule?: string | undefined
  readonly method?: string | undefined
  readonly origin?: string | undefined
  /** The granted path as policy writes it, such as `/v1/**`: a request's own may hold a secret. */
  readonly path?: string | undefined
  readonly audience?: readonly string[] | undefined
  readonly jkt?: string | undefined
  readonly jti?: string | undefined
  /** The certificate that the connection shows (`x5t#S256`). */
  readonly x5t?: string | undefined
  /** The first 16 characters of the token's `ath`. */
  readonly token?: string | undefined
  /** The first 16 characters of the hash of the subject's handle: on whose behalf. */
  readonly subject?: string | undefined
  readonly policy?: string | undefined
  /** Of a refusal: so many more like it came within a second. */
  readonly count?: number | undefined
  readonly detail?: string | undefined
}

/** The sink of decisions. */
export interface Audit {
  /**
   * Adds a record to the chain and to the batch of this turn; cheap, never throws. Refusals that a caller repeats are
   * counted instead, and told within a second.
   */
  append(facts: AuditFacts): void
  /** Writes what was appended; throws audit_unavailable when it could not and policy says `refuse`. */
  commit(): void
  /** As commit, once for everything that is appended in this turn of the event loop; rejects with audit_unavailable. */
  settle(): Promise<void>
  /** Throws audit_unavailable when the last write failed and policy says `refuse`: nothing new may be signed. */
  check(): void
  /** Each record as it is written, without the chain's members, until the returned function is called. */
  watch(listener: (record: AuditRecord) => void): () => void
  /** Signs a last checkpoint and writes it; later records are lost. Never throws. */
  close(): void
}

/** A record as it was written, without the chain's members. */
export type AuditRecord = AuditFacts & { readonly ts: string; readonly seq: number }

/** Where records go. */
export type AuditSink =
  | {
      readonly kind: 'file'
      readonly path: string
      /** The size at which the file becomes `path.1`; 64 MiB when absent. */
      readonly rotateBytes?: number
      /** Rotated files that stay; 9 when absent. */
      readonly keep?: number
    }
  | { readonly kind: 'descriptor'; readonly fd: number }
  | { readonly kind: 'none' }

export interface AuditOptions {
  readonly sink: AuditSink
  /** What happens to a request whose record cannot be written. */
  readonly onFailure: 'refuse' | 'continue'
  /** Names this run of the agent; its epoch. */
  readonly boot: string
  /** Signs checkpoints, for this boot only. */
  readonly signer: AuditSigner
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  readonly health: Health
}

const ROTATE_BYTES = 64 * 1024 * 1024
const KEEP = 9

/**
 * Opens the sink and writes the record that ties this boot to what it found. Throws config_invalid or
 * policy_writable for a file that must not be used, audit_unavailable when nothing can be written and policy says
 * `refuse`.
 */
export function openAudit(options: AuditOptions): Audit {
  const writer = new AuditWriter(sinkOf(options.sink), options)
  writer.open()
  return writer
}

function sinkOf(sink: AuditSink): Sink {
  if (sink.kind === 'none') return noSink()
  if (sink.kind === 'descriptor') return descriptorSink(sink.fd)
  return fileSink(sink.path, { rotateBytes: sink.rotateBytes ?? ROTATE_BYTES, keep: sink.keep ?? KEEP })
}
