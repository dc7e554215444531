/** Requests that wait for a person, shown to operators and answered by them: on record before anything goes on. */
import { Fault } from '../base/fault.ts'
import type { JsonAnswer, JsonRequest } from '../serve/http.ts'
import type { Approvals, WaitingRequest } from '../sign/approvals.ts'
import type { Audit } from '../telemetry/audit.ts'

export interface ApproveOptions {
  readonly approvals: Approvals
  readonly audit: Audit
}

export interface ApprovalsAnswer {
  readonly waiting: readonly WaitingRequest[]
}

export interface ApproveAnswer {
  readonly allowed: boolean
  readonly request: WaitingRequest
  /** Requests that went on or were refused: all that waited for the same first use. */
  readonly answered: number
}

const ID = /^[0-9a-f]{12}$/

export function listApprovals({ approvals }: ApproveOptions): ApprovalsAnswer {
  return { waiting: approvals.list() }
}

/** Answers the request that `id` names; throws invalid_request, not_found, audit_unavailable. */
export function approveOne(options: ApproveOptions, { body, caller }: JsonRequest): JsonAnswer {
  const { approvals, audit } = options
  const { id, deny = false, ...rest } = body
  const unknown = Object.keys(rest)[0]
  if (unknown !== undefined)
    throw new Fault('invalid_request', `unknown member ${JSON.stringify(unknown.slice(0, 64))}`)
  if (typeof id !== 'string' || !ID.test(id)) throw new Fault('invalid_request', 'id is not one of a request')
  if (typeof deny !== 'boolean') throw new Fault('invalid_request', 'deny is not true or false')
  const { pid, uid } = caller
  const request = approvals.find(id)
  if (!request) {
    audit.append({ event: 'approve', allowed: false, reason: 'not_found', pid, uid, detail: `id=${id}` })
    throw new Fault('not_found', 'no request of this id waits', {
      action: 'See `holdfast approve` for those that wait: one that got no answer in time was refused.',
    })
  }
  const { method, path, spiffe_id, target } = request
  const detail = `id=${id} pid=${request.pid}${deny ? ' denied' : ''}`
  audit.append({ event: 'approve', allowed: !deny, spiffe_id, pid, uid, target, method, path, detail })
  audit.commit()
  const allowed = !deny
  return { allowed, request, answered: approvals.answer(id, allowed) } satisfies ApproveAnswer
}
