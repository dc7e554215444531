/** What `holdfast probe` prints for people: each case on a line under its place, what has to be done below it. */
import { printable } from '../base/fault.ts'
import type { Change } from '../probe/changes.ts'
import { isPassed, type ProbeReport } from '../probe/run.ts'
import { countOf, type Result, type Verdict } from '../probe/verdict.ts'
import { counted, type Tint, tinted } from './render.ts'

const MARKS: Readonly<Record<Verdict, readonly [string, Tint]>> = {
  held: ['✓', 'green'],
  broken: ['✗', 'red'],
  unclear: ['?', 'red'],
  accepted: ['!', 'yellow'],
  untried: ['-', 'dim'],
  uncovered: ['-', 'dim'],
}

export function probeText(report: ProbeReport, changes: readonly Change[], isColored: boolean): string {
  const { places, results } = report
  const groups = places.map(({ name, url }) => {
    const here = results.filter(({ place }) => place === name)
    const width = Math.max(0, ...here.map((result) => result.case.length))
    const lines = here.map((result) => resultText(result, width, isColored))
    return `${tinted(printable(`${name}  ${url}`), 'bold', isColored)}\n${lines.join('')}\n`
  })
  return groups.join('') + changesText(changes, isColored) + summaryText(report, isColored)
}

function resultText(result: Result, width: number, isColored: boolean): string {
  const { verdict, sends, seen, evidence, owner, cure, note, acceptance } = result
  const [mark, tint] = MARKS[verdict]
  const source = evidence === 'none' ? '' : ` (${evidence})`
  const isOpen = verdict === 'broken' || verdict === 'unclear'
  const accepted =
    acceptance && `accepted by ${acceptance.approver} until ${acceptance.until}: ${acceptance.reason}`
  const more = [
    ...(note === undefined ? [] : [note]),
    ...(accepted === undefined ? [] : [accepted]),
    ...(isOpen ? [`sent: ${sends}`, `owner: ${owner}`, `do: ${cure}`] : []),
  ]
  const head = `${result.case.padEnd(width)}  ${seen}${source}`
  const lines = more.map((line) => `      ${printable(line)}\n`)
  return `  ${tinted(mark, tint, isColored)} ${printable(head)}\n${lines.join('')}`
}

function changesText(changes: readonly Change[], isColored: boolean): string {
  if (changes.length === 0) return ''
  const lines = changes.map(({ id, before, now }) => `  ${printable(id)}: ${before} -> ${now}\n`)
  return `${tinted('since the baseline', 'bold', isColored)}\n${lines.join('')}\n`
}

function summaryText(report: ProbeReport, isColored: boolean): string {
  const { results, inconclusive, requests } = report
  const count = (...verdicts: readonly Verdict[]) => countOf(results, ...verdicts)
  const why =
    inconclusive === undefined
      ? ''
      : `${tinted('nothing concluded', 'red', isColored)}: ${printable(inconclusive)}\n`
  // A thief who was let in is one, whatever else cannot be told.
  if (inconclusive !== undefined && count('broken') === 0) return why
  const parts = [
    `${count('held')} refused`,
    `${count('broken')} taken`,
    ...(count('unclear') > 0 ? [`${count('unclear')} not clear`] : []),
    ...(count('accepted') > 0 ? [counted(count('accepted'), 'accepted risk')] : []),
    ...(count('untried', 'uncovered') > 0 ? [`${count('untried', 'uncovered')} not tried`] : []),
  ]
  const tint = isPassed(report) ? (count('accepted') > 0 ? 'yellow' : 'green') : 'red'
  return `${why}${tinted(parts.join(', '), tint, isColored)} in ${counted(requests, 'request')}\n`
}
