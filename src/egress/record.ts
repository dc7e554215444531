/** What the audit log and the metrics hear of a request: once before it leaves, once when it is over. */
import type { Workload } from '../attest/workload.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import { methodName } from '../sign/method.ts'
import type { Audit, AuditFacts } from '../telemetry/audit.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Bound } from './bound.ts'
import type { Draft } from './permit.ts'

export interface RecordOptions {
  readonly audit: Audit
  readonly metrics: Metrics
  readonly book: Live<RuleBook>
  readonly clock: Clock
}

/** How a request ended: with the target's status, or a Fault, or both when the answer was cut off. */
export interface Ending {
  readonly status?: number
  readonly fault?: Fault
}

/** The records of one request. */
export class Record {
  readonly #options: RecordOptions
  readonly #draft: Draft
  readonly #began: Millis
  #hasLeft = false

  constructor(options: RecordOptions, draft: Draft) {
    this.#options = options
    this.#draft = draft
    this.#began = options.clock.monotonic()
  }

  /** Puts on record that the request leaves with these headers; throws audit_unavailable, and then it must not. */
  leaves(bound: Bound): void {
    const { jkt, jti, x5t } = bound
    this.#hasLeft = true
    this.#append('egress', { allowed: true, jkt, jti, token: bound.ath?.slice(0, 16), x5t })
    this.#options.audit.commit()
  }

  /** Puts on record how it ended; a refusal when it never left. */
  ended({ status, fault }: Ending): void {
    const { metrics } = this.#options
    const [reason, owner] = [fault?.reason, fault?.owner]
    if (this.#hasLeft) {
      const took = durationText(this.#options.clock.monotonic() - this.#began)
      const detail = status === undefined ? took : `${Math.floor(status / 100)}xx ${took}`
      this.#append('egress.done', { allowed: true, reason, owner, detail })
    } else if (this.#draft.workload) this.#append('egress', { allowed: false, reason, owner })
    metrics.count('holdfast_egress_requests_total', {
      class: status === undefined ? 'none' : `s${Math.floor(status / 100)}xx`,
      reason: fault?.reason ?? 'ok',
    })
  }

  #append(event: AuditFacts['event'], outcome: Outcome): void {
    const { audit, book } = this.#options
    audit.append(factsOf(event, this.#draft, book.get().hash, outcome))
  }
}

/** What `make` reads of a request that a proxy tells of; what cannot be read is refused on record, like all that is asked for. */
export async function readOnRecord<T>(
  { audit, book, metrics }: Omit<RecordOptions, 'clock'>,
  workload: Workload,
  make: () => T,
): Promise<T> {
  try {
    return make()
  } catch (caught) {
    const fault = Fault.from(caught)
    const { owner, reason } = fault
    const outcome = { allowed: false, reason, owner }
    audit.append(factsOf('sign.headers', { method: '', workload }, book.get().hash, outcome))
    metrics.count('holdfast_refusals_total', { reason })
    await audit.settle()
    throw fault
  }
}

/** What became of a request. */
export type Outcome = Pick<
  AuditFacts,
  'allowed' | 'reason' | 'owner' | 'jkt' | 'jti' | 'token' | 'x5t' | 'detail'
>

const NO_METHOD: ReadonlySet<AuditFacts['event']> = new Set(['token.release', 'probe'])

/** What the records of a request say of it, as far as it got. One literal: objects merged by spreads cost 5 µs. */
export function factsOf(
  event: AuditFacts['event'],
  draft: Draft,
  policy: string,
  { allowed, reason, owner, jkt, jti, token, x5t, detail }: Outcome,
): AuditFacts {
  const { workload, entry, target, decision, method, url, subject } = draft
  const isObserved = allowed && event !== 'egress.done' && decision && !decision.allowed
  const place = decision && (decision.allowed ? decision.rule : decision.nearest)
  return {
    event,
    allowed,
    spiffe_id: entry?.spiffeId,
    entry: entry?.name,
    pid: workload?.peer.pid,
    uid: workload?.peer.uid,
    target: target?.name,
    rule: place && `${place.file}:${place.line}`,
    method: NO_METHOD.has(event) ? undefined : methodName(method),
    origin: url?.origin,
    path: decision?.allowed ? decision.path : undefined,
    subject: subject?.id,
    policy,
    observed: isObserved ? decision.reason : undefined,
    reason,
    owner,
    jkt,
    jti,
    token,
    x5t,
    detail,
  }
}

const BUCKETS: readonly (readonly [Millis, string])[] = [
  [10, 'within 10 ms'],
  [100, 'within 100 ms'],
  [1_000, 'within 1 s'],
  [10_000, 'within 10 s'],
  [60_000, 'within 1 min'],
]

/** Buckets: exact times of requests tell of their content. */
function durationText(millis: Millis): string {
  return BUCKETS.find(([limit]) => millis <= limit)?.[1] ?? 'over 1 min'
}
