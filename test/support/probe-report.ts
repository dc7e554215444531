/** What a run of `holdfast probe` came to, in the words that tests compare. */
import type { Change } from '../../src/probe/changes.ts'
import type { ProbeReport } from '../../src/probe/run.ts'

export interface Ran {
  readonly code: number
  readonly report: ProbeReport & { readonly changes: readonly Change[] }
  /** `case: owner` of what was let in. */
  readonly broken: readonly string[]
  /** `case verdict` of what was not refused. */
  readonly open: readonly string[]
}

/** Of what `-o json` wrote. */
export function ranOf(code: number, text: string): Ran {
  if (!text.startsWith('{')) throw new Error(`the probe says ${text}`)
  const report = JSON.parse(text) as Ran['report']
  const { results } = report
  return {
    code,
    report,
    broken: results.filter(({ verdict }) => verdict === 'broken').map(({ id, owner }) => `${id}: ${owner}`),
    open: results.filter(({ verdict }) => verdict !== 'held').map(({ id, verdict }) => `${id} ${verdict}`),
  }
}
