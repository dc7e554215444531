/** A refusal as the agent words it, on any of its wires, becomes a Fault again. */
import { Fault, type Owner, type Reason } from '../base/fault.ts'
import { REASONS } from '../base/reasons.ts'

/** The members of a Fault as they arrive; all of them from outside. */
export interface WireRefusal {
  readonly reason?: unknown
  readonly message?: unknown
  readonly action?: unknown
  readonly owner?: unknown
}

const OWNERS: ReadonlySet<unknown> = new Set(Object.values(REASONS).map(({ owner }) => owner))

/** The Fault; one whose reason this version does not know keeps its words and becomes a bug. */
export function faultOfRefusal({ reason, message, action, owner }: WireRefusal): Fault {
  const text = typeof message === 'string' ? message : undefined
  const options = {
    ...(typeof action === 'string' && action !== '' ? { action } : {}),
    ...(OWNERS.has(owner) ? { owner: owner as Owner } : {}),
  }
  if (typeof reason === 'string' && Object.hasOwn(REASONS, reason)) {
    return new Fault(reason as Reason, text, options)
  }
  return new Fault('bug', `${typeof reason === 'string' ? reason : 'no reason'}: ${text ?? ''}`, options)
}
