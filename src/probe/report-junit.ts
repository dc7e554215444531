/** The report as JUnit XML, which every CI system reads: one test case a case. */
import { escaped } from './escape.ts'
import type { ProbeReport } from './run.ts'
import type { Result } from './verdict.ts'

export function junitReport(report: ProbeReport): string {
  const { results, url, began, ended, inconclusive } = report
  const tests = [...(inconclusive === undefined ? [] : [errorCase(inconclusive)]), ...results.map(caseText)]
  const failures = results.filter(isFailure).length
  const skipped = results.filter(isSkipped).length
  const counts = `tests="${tests.length}" failures="${failures}" errors="${inconclusive === undefined ? 0 : 1}" skipped="${skipped}"`
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuite name="holdfast probe ${escaped(url)}" ${counts} time="${ended - began}" timestamp="${new Date(began * 1000).toISOString()}">`,
    ...tests,
    '</testsuite>',
    '',
  ].join('\n')
}

function isFailure({ verdict }: Result): boolean {
  return verdict === 'broken' || verdict === 'unclear'
}

function isSkipped({ verdict }: Result): boolean {
  return verdict === 'untried' || verdict === 'uncovered' || verdict === 'accepted'
}

function errorCase(why: string): string {
  return `  <testcase classname="probe" name="baseline"><error message="${escaped(why)}"/></testcase>`
}

function caseText(result: Result): string {
  const { case: id, place, verdict, seen, owner, cure, note } = result
  const open = `  <testcase classname="probe.${escaped(place)}" name="${escaped(id)}"`
  if (isFailure(result)) {
    const body = [`sent: ${result.sends}`, `seen: ${seen}`, `owner: ${owner}`, `do: ${cure}`, note ?? '']
    const text = body
      .filter((line) => line !== '')
      .map(escaped)
      .join('\n')
    return `${open}>\n    <failure type="${verdict}" message="${escaped(`${seen}; ${owner}`)}">${text}</failure>\n  </testcase>`
  }
  if (isSkipped(result)) return `${open}><skipped message="${escaped(skipText(result))}"/></testcase>`
  return `${open}/>`
}

function skipText({ verdict, note, acceptance, seen }: Result): string {
  if (!acceptance) return note ?? verdict
  return `${seen}: accepted by ${acceptance.approver} until ${acceptance.until}: ${acceptance.reason}`
}
