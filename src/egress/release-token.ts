/**
 * Whether policy lets a workload hold a target's token. A token covers no single request, so it goes to whom at least
 * one is granted; each use wants a proof, and with it a decision of its own.
 */
import type { Workload } from '../attest/workload.ts'
import type { RuleBook } from '../policy/book.ts'
import { type Decision, decide, decideTarget, type Question } from '../policy/decide.ts'
import type { Entry } from '../policy/entry.ts'
import type { Target } from '../policy/grant.ts'
import { stemOf } from '../policy/pattern.ts'
import { type CanonicalUrl, canonicalUrl } from '../proof/target.ts'
import { originOf, statementsOf, unknownTarget } from './permit.ts'
import type { ReleaseAsk } from './release-ask.ts'

export interface TokenQuestion extends Pick<ReleaseAsk, 'place'> {
  readonly workload: Workload
  /** `probe`: for the replay lab, whose grants are for nothing else. */
  readonly door?: 'token' | 'probe'
  readonly entry: Entry
  /** What a request to the target is judged by. */
  readonly context?: (target: Target) => Pick<Question, 'context'>
}

export interface TokenDecision {
  readonly decision: Decision
  /** The URL that was decided about. */
  readonly url: CanonicalUrl
}

/** The first decision that allows it, else the first refusal. Throws target_unknown, policy_denied. */
export function decideToken(book: RuleBook, question: TokenQuestion): TokenDecision {
  const { entry, place } = question
  let refused: TokenDecision | undefined
  const targets = 'url' in place ? book.targetsFor(place.url) : [targetNamed(book, place.target)]
  for (const target of targets) {
    for (const { method, url } of requestsOf(book, target, question)) {
      const asked = { ...questionOf(question, method, url), ...question.context?.(target) }
      const decision = decideTarget(book, target, asked)
      if (decision.allowed) return { decision, url }
      refused ??= { decision, url }
    }
  }
  if (refused) return refused
  if (!('url' in place)) throw unknownTarget(place.target)
  return { decision: decide(book, questionOf({ ...question, entry }, 'GET', place.url)), url: place.url }
}

function targetNamed(book: RuleBook, name: string): Target {
  const target = book.targetNamed(name)
  if (!target) throw unknownTarget(name)
  return target
}

interface Sample {
  readonly method: string
  readonly url: CanonicalUrl
}

/** A request for each method of each grant that names the caller; one that no grant names when there is none. */
function requestsOf(book: RuleBook, target: Target, { entry, place }: TokenQuestion): readonly Sample[] {
  const urlFor = (path: string) =>
    'url' in place ? place.url : canonicalUrl(originOf(target, statementsOf(target).platform) + path)
  const samples = book.grantsFor(target, entry.spiffeId).flatMap(({ methods, paths }) => {
    const url = urlFor(stemOf(paths[0] ?? ''))
    return methods.map((method) => ({ method: method === '*' ? 'GET' : method, url }))
  })
  return samples.length > 0 ? samples : [{ method: 'GET', url: urlFor('') }]
}

/** Only tokens that are of no use without a proof leave. */
function questionOf(
  { workload, entry, door = 'token' }: TokenQuestion,
  method: string,
  url: CanonicalUrl,
): Question {
  const { spiffeId } = entry
  const { selectors } = workload
  return { door, kind: 'dpop', spiffeId, entry, method, url, token: 'full', selectors }
}
