/**
 * Where a workload hands in a token that it was called with: gRPC and JSON. Identity, rate, handle, record, in this
 * order; what is recorded of the token is who issued it, until when, and the hash of its subject.
 */
import { chooseEntry, entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import { Secret } from '../base/secret.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import { parseServerUrl } from '../policy/parse.ts'
import type { Revocations } from '../policy/revocations.ts'
import { hashOf } from '../proof/jwt.ts'
import type { Handlers } from '../serve/grpc.ts'
import type { Routes } from '../serve/http.ts'
import { type Members, refuseUnknown, required, TOKEN } from '../sign/ask.ts'
import type { Rates } from '../sign/rate.ts'
import type { Audit, AuditFacts } from '../telemetry/audit.ts'
import { idOf } from './release-ask.ts'
import type { Handle, Subject, Subjects } from './subjects.ts'

export interface IntakeOptions {
  readonly subjects: Subjects
  readonly book: Live<RuleBook>
  readonly revocations: Revocations
  readonly rates: Rates
  readonly audit: Audit
  readonly clock: Clock
}

const MEMBERS = new Set(['token', 'spiffe_id'])

/** Takes tokens in; each is on record before its handle leaves. */
export class Intake {
  readonly #options: IntakeOptions

  constructor(options: IntakeOptions) {
    this.#options = options
  }

  /** A handle. Throws what identity and rate say, invalid_request, and what `Subjects.add` throws. */
  async take(workload: Workload, members: Members): Promise<Handle> {
    const { audit, subjects, revocations, rates } = this.#options
    audit.check()
    let entry: Entry | undefined
    try {
      refuseUnknown(members, MEMBERS)
      const token = new Secret(required(members, 'token', TOKEN))
      entry = chooseEntry(entitled(workload, revocations), idOf(members['spiffe_id']))
      const instance = workload.instanceOf(entry)
      rates.takeOf({ spiffeId: entry.spiffeId, instance })
      const { handle, expires, subject } = subjects.add({ spiffeId: entry.spiffeId, instance }, token)
      this.#record(workload, entry, { allowed: true, subject: subject.id, detail: detailOf(subject) })
      return { handle, expires }
    } catch (caught) {
      const fault = Fault.from(caught)
      this.#record(workload, entry, { allowed: false, reason: fault.reason, owner: fault.owner })
      throw fault
    } finally {
      await audit.settle()
    }
  }

  #record(workload: Workload, entry: Entry | undefined, outcome: Omit<AuditFacts, 'event'>): void {
    const { pid, uid } = workload.peer
    this.#options.audit.append({
      event: 'subject.take',
      ...outcome,
      spiffe_id: entry?.spiffeId,
      entry: entry?.name,
      pid,
      uid,
      policy: this.#options.book.get().hash,
    })
  }
}

/** The issuer is the caller's word: only one that has the form of an issuer is repeated. */
function detailOf({ claims, expires }: Subject): string {
  const { issuer, subject } = claims ?? { issuer: undefined, subject: '' }
  const sub = subject === '' ? 'none' : hashOf(Buffer.from(subject).toString('latin1')).slice(0, 16)
  return `iss ${issuerText(issuer)}, sub ${sub}, exp ${Math.floor(expires)}`
}

function issuerText(issuer: string | undefined): string {
  if (issuer === undefined) return 'none'
  try {
    return issuer.length <= 256 ? parseServerUrl(issuer) : 'other'
  } catch {
    return 'other'
  }
}

/** Loads what takes tokens in when somebody has one. */
export type LoadIntake = () => Promise<Intake>

/** The method of `holdfast.v1.ProofService` that is served here. */
export function subjectHandlers(load: LoadIntake): Handlers {
  return {
    AddSubject: {
      unary: async (caller, request) => ({ ...(await (await load()).take(caller.workload(), request)) }),
    },
  }
}

/** The same as JSON. */
export function subjectRoutes(load: LoadIntake): Routes {
  return {
    'POST /v1/subjects': async ({ caller, body }) => (await load()).take(caller.workload(), body),
  }
}
