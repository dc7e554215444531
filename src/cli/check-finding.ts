/** What `holdfast check` finds: one line each, in groups, with stable names that documentation can be linked from. */
import { printable } from '../base/fault.ts'
import { counted, type Tint, tinted } from './render.ts'

/** `skip`: it could not be looked at, which is no failure. */
export type Grade = 'ok' | 'warn' | 'error' | 'skip'

export interface Finding {
  /** Stable, documented at `https://holdfast.dev/checks#ID`. */
  readonly id: string
  readonly grade: Grade
  /** What was looked at and seen, in one line. */
  readonly what: string
  /** Why it matters, or what is wrong in detail; one line each. */
  readonly why?: readonly string[]
  /** What to do. */
  readonly action?: string
}

export interface Group {
  readonly name: string
  readonly findings: readonly Finding[]
}

/** Something that is as it should be. */
export function fine(id: string, what: string): Finding {
  return { id, grade: 'ok', what }
}

/** Something that could not be looked at. */
export function skipped(id: string, what: string): Finding {
  return { id, grade: 'skip', what }
}

type Rest = Pick<Finding, 'why' | 'action'>

export function warning(id: string, what: string, rest: Rest = {}): Finding {
  return { id, grade: 'warn', what, ...rest }
}

export function failure(id: string, what: string, rest: Rest = {}): Finding {
  return { id, grade: 'error', what, ...rest }
}

/** How many of `groups`' findings have `grade`. */
export function countOf(groups: readonly Group[], grade: Grade): number {
  return groups.flatMap(({ findings }) => findings).filter((finding) => finding.grade === grade).length
}

const MARKS: Readonly<Record<Grade, readonly [string, Tint]>> = {
  ok: ['✓', 'green'],
  warn: ['!', 'yellow'],
  error: ['✗', 'red'],
  skip: ['-', 'dim'],
}

/** All groups under their names; `isShort` leaves out what is as it should be. */
export function groupsText(groups: readonly Group[], isShort: boolean, isColored: boolean): string {
  const shown = groups.map(({ name, findings }) => ({
    name,
    findings: isShort ? findings.filter(({ grade }) => grade === 'warn' || grade === 'error') : findings,
  }))
  return shown
    .filter(({ findings }) => findings.length > 0)
    .map(({ name, findings }) => {
      const lines = findings.map((finding) => findingText(finding, isColored))
      return `${tinted(name, 'bold', isColored)}\n${lines.join('')}\n`
    })
    .join('')
}

function findingText({ id, grade, what, why = [], action }: Finding, isColored: boolean): string {
  const [mark, tint] = MARKS[grade]
  const isWrong = grade === 'warn' || grade === 'error'
  const more = [
    ...why.map(printable),
    ...(action === undefined ? [] : [printable(`do: ${action}`)]),
    ...(isWrong ? [tinted(`see https://holdfast.dev/checks#${id}`, 'dim', isColored)] : []),
  ]
  const lines = more.map((each) => `    ${each}\n`).join('')
  return `  ${tinted(mark, tint, isColored)} ${printable(what)}\n${lines}`
}

/** The last line. */
export function summaryText(groups: readonly Group[], isColored: boolean): string {
  const errors = countOf(groups, 'error')
  const warnings = countOf(groups, 'warn')
  const parts = [
    `${countOf(groups, 'ok')} passed`,
    counted(warnings, 'warning'),
    `${errors} failed`,
    ...(countOf(groups, 'skip') > 0 ? [`${countOf(groups, 'skip')} not looked at`] : []),
  ]
  return `${tinted(parts.join(', '), errors > 0 ? 'red' : warnings > 0 ? 'yellow' : 'green', isColored)}\n`
}
