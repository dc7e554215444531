/** What a case shows: whether the thief was refused, who has to act when not, and how sure that is. */
import type { Owner } from '../base/fault.ts'
import { type Answer, type Fate, fateOf } from './answer.ts'
import type { Played, ProbeCase } from './case.ts'

/**
 * `held`: refused. `broken`: taken. `unclear`: neither, or refused for another cause than the case is about. `untried`:
 * nothing was sent. `uncovered`: the binding in use does not promise it. `accepted`: broken or unclear, and somebody
 * answers for it.
 */
export type Verdict = 'held' | 'broken' | 'unclear' | 'untried' | 'uncovered' | 'accepted'

/** A risk that somebody answers for until a time. */
export interface Acceptance {
  readonly approver: string
  /** `2030-01-31`, or a time. */
  readonly until: string
  readonly reason: string
}

export interface Result {
  /** The id of the case; at other places than the first `PLACE/CASE`. */
  readonly id: string
  readonly case: string
  readonly place: string
  readonly sends: string
  /** `kept`: what is seen without a thief's request. */
  readonly expected: 'refused' | 'kept'
  /** What came back, in a few words. */
  readonly seen: string
  /** Whether the verifier's audit shows it, or the answer alone. */
  readonly evidence: 'seen' | 'inferred' | 'none'
  /** Whose audit shows it. */
  readonly verifier?: string
  /** The check that refused it, when the audit shows that it was the one this case is about. */
  readonly check?: string
  readonly verdict: Verdict
  readonly owner: Owner
  readonly cure: string
  readonly note?: string
  readonly acceptance?: Acceptance
}

/** How many of `results` are one of `verdicts`. */
export function countOf(results: readonly Result[], ...verdicts: readonly Verdict[]): number {
  return results.filter(({ verdict }) => verdicts.includes(verdict)).length
}

const PLAY_AGAIN =
  'Run the probe again once genuine requests are taken throughout: until then nothing shows that a thief is refused.'

export interface Judged {
  readonly each: ProbeCase
  readonly place: string
  /** Whether it is the place that everybody calls. */
  readonly isFront: boolean
  /** Whether no place further in is tried. */
  readonly isAlone: boolean
  /** Whether the verifier's audit showed the genuine request. */
  readonly hasRecords: boolean
}

/** The result of one case, before other places and acceptances are looked at. */
export function judge(played: Played, judged: Judged): Result {
  const { each, place, isFront } = judged
  const { id, sends, owner, cure } = each
  const common = {
    id: isFront ? id : `${place}/${id}`,
    case: id,
    place,
    sends,
    expected: 'refused',
    owner,
    cure,
    evidence: 'none',
  } as const
  switch (played.kind) {
    case 'untried':
      return { ...common, seen: 'not tried', verdict: 'untried', note: played.why }
    case 'spoilt':
      if (isFront)
        return { ...common, seen: 'not tried', verdict: 'unclear', note: played.why, cure: PLAY_AGAIN }
      return {
        ...common,
        seen: 'not tried',
        verdict: 'untried',
        note: `${played.why}: it is refused here too`,
      }
    case 'uncovered':
      return { ...common, seen: 'not tried', verdict: 'uncovered', note: played.why }
    case 'observed':
      return {
        ...common,
        expected: 'kept',
        seen: played.what,
        verdict: played.isHeld ? 'held' : 'broken',
        evidence: 'inferred',
      }
    case 'answered':
      return {
        ...common,
        ...(played.note === undefined ? {} : { note: played.note }),
        ...ofAnswers(played.answers, judged),
      }
  }
}

type OfAnswers = Pick<Result, 'seen' | 'verdict' | 'evidence'> &
  Partial<Pick<Result, 'owner' | 'cure' | 'note' | 'check' | 'verifier'>>

function ofAnswers(answers: readonly Answer[], judged: Judged): OfAnswers {
  const graded = answers.map((answer) => ({ answer, verdict: verdictOf(answer, judged) }))
  const worst =
    graded.find(({ verdict }) => verdict === 'broken') ??
    graded.find(({ verdict }) => verdict === 'unclear') ??
    graded[0]
  if (!worst) return { seen: 'nothing was sent', verdict: 'unclear', evidence: 'none' }
  const { answer, verdict } = worst
  const evidence = answer.record ? 'seen' : answer.status === 0 ? 'none' : 'inferred'
  const check = judged.each.reasons.find((one) => one === answer.record?.reason)
  return {
    seen: seenText(answer),
    verdict,
    evidence,
    ...(check === undefined ? {} : { check }),
    ...(answer.record ? { verifier: answer.record.verifier } : {}),
    ...remark(answer, verdict, judged),
  }
}

/** Refusals that are none of the case's checks, and right wherever they come first. */
const ALWAYS_RIGHT: ReadonlySet<string> = new Set(['hop_unexpected', 'other'])

function verdictOf(answer: Answer, { each, isFront }: Judged): Verdict {
  switch (fateOf(answer)) {
    case 'taken':
      return 'broken'
    case 'unreached':
      return isFront || answer.isOwnFailure ? 'unclear' : 'held'
    case 'nothing':
      return 'unclear'
    case 'refused': {
      const reason = answer.record?.reason
      const isRight =
        reason === undefined || ALWAYS_RIGHT.has(reason) || each.reasons.some((one) => one === reason)
      return isRight ? 'held' : 'unclear'
    }
  }
}

const IN_BETWEEN = {
  owner: 'platform',
  cure: 'Find the hop that answers itself or vouches for callers: each has to pass Authorization and DPoP unchanged, or to verify them itself, and to add no credential of its own.',
} as const

const UNHEEDED = {
  owner: 'application',
  cure: 'Let the service do what its verifier says: a request that it refuses is answered with its challenge.',
} as const

/** What else the answer tells: that it never came to the verifier, that nobody heeded that, or that a cache gave it. */
function remark(answer: Answer, verdict: Verdict, judged: Judged): Partial<OfAnswers> {
  const { each, hasRecords, isAlone } = judged
  const traces = answer.traces.length > 0 ? `; ${answer.traces.join('; ')}` : ''
  if (verdict === 'broken' && hasRecords && !answer.record)
    return {
      ...IN_BETWEEN,
      note: `the audit of the verifier has no record of it: it was answered before${traces}`,
    }
  if (verdict === 'broken' && answer.record?.allowed === false)
    return { ...UNHEEDED, note: `the verifier refused it, and it was let in all the same${traces}` }
  if (verdict === 'broken' && isAlone && !answer.record) return { note: `${UNPLACED}${traces}` }
  if (verdict === 'broken' && traces !== '') return { note: traces.slice(2) }
  const reason = answer.record?.reason
  if (verdict === 'unclear' && reason !== undefined)
    return {
      note: `refused for ${reason}, wanted ${each.reasons.join(' or ')}: the check itself was not seen`,
    }
  if (verdict === 'unclear' && answer.isOwnFailure)
    return { note: `${answer.failure}: a thief is not kept out by that; give --ca, and check the URL` }
  if (verdict === 'unclear')
    return { note: answer.failure ?? `the status is neither a refusal nor a success${traces}` }
  return {}
}

const UNPLACED =
  'whether a gateway or the service lets it in cannot be told from here: --behind URL and --audit tell'

export function seenText({ status, error, failure, record }: Answer): string {
  if (status === 0) return failure ?? 'no answer'
  const reason = record?.reason ?? error
  return reason === undefined ? String(status) : `${status} ${reason}`
}

/** A place that the same was sent to. */
interface Tried {
  readonly name: string
  /** What became of the genuine request there. */
  readonly genuine: Fate
}

/**
 * Who has to act where the same was tried at places further in: the first that refuses what all places before it took
 * leaves the fault with what stands between. One that refuses the genuine request too shows nothing by it, unless the
 * audit names the check.
 */
export function attribute(results: readonly Result[], places: readonly Tried[]): readonly Result[] {
  const find = (place: string, of: string) =>
    results.find((result) => result.place === place && result.case === of)
  return results.map((result) => {
    if (result.verdict !== 'broken') return result
    const inner = places.slice(places.findIndex(({ name }) => name === result.place) + 1)
    const at = inner.findIndex(({ name }) => find(name, result.case)?.verdict !== 'broken')
    const place = inner[at]
    const refusal = place && find(place.name, result.case)
    if (!place || refusal?.verdict !== 'held' || refusal.evidence === 'none') return result
    if (place.genuine !== 'taken' && refusal.check === undefined) return result
    const last = inner[at - 1]?.name ?? result.place
    return {
      ...result,
      ...IN_BETWEEN,
      note: `${place.name} refuses it, ${last} lets it through: what stands between gives it what it lacks`,
    }
  })
}

const ROOT = 'no_proof'

/**
 * What is wrong with a proof tells nothing by itself at a place that wants none: whoever has to mend that has to mend
 * this, in the same way.
 */
export function byRoot(results: readonly Result[], aboutProof: ReadonlySet<string>): readonly Result[] {
  const roots = new Map(
    results
      .filter((each) => each.case === ROOT && each.verdict === 'broken')
      .map((each) => [each.place, each]),
  )
  return results.map((result) => {
    const root = roots.get(result.place)
    if (!root || result.verdict !== 'broken' || !aboutProof.has(result.case)) return result
    const { owner, cure, id } = root
    return { ...result, owner, cure, note: `no proof is wanted here at all: see ${id}` }
  })
}
