/** One run of the lab: first a genuine request, without which nothing is concluded, then the cases, place by place. */
import type { Seconds } from '../base/clock.ts'
import { type Fate, fateOf } from './answer.ts'
import type { ProbeCase } from './case.ts'
import { CASES, CORE_CASES } from './cases.ts'
import { Lab, type LabOptions, type Tally } from './lab.ts'
import { attribute, byRoot, type Judged, judge, type Result, seenText } from './verdict.ts'

/** Another place that the same requests are sent to: a hop, or the service behind the gateway. */
export interface Place {
  readonly name: string
  readonly url: string
}

export interface RunOptions extends LabOptions {
  /** From the outside in; the last is the service, when `--behind` names it. */
  readonly inner: readonly Place[]
  /** Told before each case. */
  readonly onCase?: (id: string) => void
}

export interface PlaceReport extends Place {
  /** What became of the genuine request there. */
  readonly genuine: Fate
}

/** All that a run found. */
export interface ProbeReport {
  readonly run: string
  readonly url: string
  readonly method: 'GET' | 'HEAD'
  readonly began: Seconds
  readonly ended: Seconds
  readonly requests: number
  /** Why nothing can be concluded; absent when the results count. */
  readonly inconclusive?: string
  /** The first is what everybody calls. */
  readonly places: readonly PlaceReport[]
  readonly results: readonly Result[]
}

export const FRONT = 'front'

export async function runProbe(options: RunOptions): Promise<ProbeReport> {
  const began = options.now()
  const tally: Tally = { sent: 0 }
  const front = new Lab(options, tally)
  const first = await baseline(front)
  const report = (rest: Pick<ProbeReport, 'places' | 'results'> & { inconclusive?: string }) => ({
    run: options.run,
    url: options.htu,
    method: options.method,
    began,
    ended: options.now(),
    requests: tally.sent,
    ...rest,
  })
  const places: PlaceReport[] = [{ name: FRONT, url: options.url, genuine: fateOf(first) }]
  if (fateOf(first) !== 'taken') {
    const inconclusive = `the genuine request was not taken (${seenText(first)}): whether a thief is refused cannot be told`
    return report({ places, results: [], inconclusive })
  }
  const isAlone = options.inner.length === 0
  const judged = { place: FRONT, isFront: true, isAlone, hasRecords: first.record !== undefined }
  const results = await playAll(front, phase('now'), judged, options)
  const afterwards = [(await front.genuine()).answer]
  for (const place of options.inner) {
    const { answer, lab } = await enter(place, options, tally)
    places.push({ ...place, genuine: fateOf(answer) })
    const at = { place: place.name, isFront: false, isAlone, hasRecords: answer.record !== undefined }
    results.push(...(await playAll(lab, CORE_CASES, at, options)))
    if (fateOf(answer) === 'taken') afterwards.push((await lab.genuine()).answer)
  }
  results.push(...(await playAll(front, [...phase('late'), ...phase('end')], judged, options)))
  const found = byRoot(attribute(results, places), ABOUT_PROOF)
  const lockOut = afterwards.find((answer) => fateOf(answer) !== 'taken')
  const locked = lockOut
    ? {
        inconclusive: `a genuine request was not taken after the others (${seenText(lockOut)}): refusals may be those of a lock-out, or of a token that ended`,
      }
    : {}
  return report({ places, results: found, ...locked })
}

/** By the name of the place, and where that is not taken by the public one, which a thief would say as well. */
async function enter(place: Place, options: RunOptions, tally: Tally) {
  const own = new Lab({ ...options, url: place.url }, tally)
  const { answer } = await own.genuine()
  const host = new URL(options.url).host
  if (fateOf(answer) === 'taken' || answer.status === 0 || new URL(place.url).host === host)
    return { lab: own, answer }
  const lab = new Lab({ ...options, url: place.url, host }, tally)
  const { answer: second } = await lab.genuine()
  return fateOf(second) === 'taken' ? { lab, answer: second } : { lab: own, answer }
}

const ABOUT_PROOF: ReadonlySet<string> = new Set(
  CASES.filter(({ isAboutProof }) => isAboutProof).map(({ id }) => id),
)

function phase(name: ProbeCase['phase']): readonly ProbeCase[] {
  return CASES.filter((each) => each.phase === name)
}

/** With a query of its own if the service takes one. */
async function baseline(lab: Lab) {
  const { answer } = await lab.genuine()
  if (fateOf(answer) === 'taken' || answer.status === 401 || answer.status === 0) return answer
  lab.isMarked = false
  return (await lab.genuine()).answer
}

async function playAll(
  lab: Lab,
  cases: readonly ProbeCase[],
  judged: Omit<Judged, 'each'>,
  { onCase }: RunOptions,
): Promise<Result[]> {
  const results: Result[] = []
  for (const each of cases) {
    onCase?.(judged.isFront ? each.id : `${judged.place}/${each.id}`)
    results.push(judge(await each.play(lab), { ...judged, each }))
  }
  return results
}

/** Whether nothing that a thief tried was taken, or might have been. */
export function isPassed({ inconclusive, results }: Pick<ProbeReport, 'inconclusive' | 'results'>): boolean {
  return (
    inconclusive === undefined &&
    results.every(({ verdict }) => verdict !== 'broken' && verdict !== 'unclear')
  )
}
