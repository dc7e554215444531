/** What policy is asked of a request whose headers leave the agent, at every door that releases them. */
import type { Instance, Workload } from '../attest/workload.ts'
import type { CallContext, Question } from '../policy/decide.ts'
import type { Entry } from '../policy/entry.ts'
import type { Target } from '../policy/grant.ts'
import { kindsOf } from './permit.ts'
import type { SentAsk } from './release-ask.ts'
import type { Subject } from './subjects.ts'

/** A request that wants headers. */
export type RequestAsk = Pick<SentAsk, 'method' | 'url' | 'query' | 'spiffeId' | 'subject' | 'target'>

/** Who asks. */
export interface Who {
  readonly workload: Workload
  readonly entry: Entry
  readonly instance: Instance
  readonly subject: Subject | undefined
}

/**
 * Whether the caller may hold the headers of this request, with the token that belongs to them; `context` is what it
 * is judged by beside.
 */
export function headersQuestion(
  { workload, entry }: Who,
  { method, url }: RequestAsk,
  { identity }: Target,
  context: CallContext | undefined,
): Question {
  const { spiffeId } = entry
  const { selectors } = workload
  const [kind, ...also] = identity ? kindsOf(identity) : (['dpop'] as const)
  const token = identity?.server?.client ? 'full' : 'none'
  return { door: 'headers', kind, also, spiffeId, entry, method, url, token, selectors, context }
}
