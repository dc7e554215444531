/** Risks that somebody answers for: which case, who, until when and why. Loads zod. */
import * as z from 'zod'
import type { Seconds } from '../base/clock.ts'
import { parsedBy } from '../base/forms.ts'
import { type Problem, problemFault } from '../base/problem.ts'
import { checkShape } from '../base/shape.ts'
import { parseYaml } from '../base/yaml.ts'
import { parseDate } from '../policy/parse.ts'
import { CASES } from './cases.ts'
import type { Result } from './verdict.ts'

const text = z.string().min(1).max(256)
const schema = z.strictObject({
  accept: z
    .array(
      z.strictObject({
        case: z.string().max(256),
        approver: text,
        until: z.string().transform(parsedBy((given) => ({ given, end: parseDate(given) }))),
        reason: text,
      }),
    )
    .max(256),
})

export interface Risk {
  readonly case: string
  readonly approver: string
  readonly until: { readonly given: string; readonly end: Seconds }
  readonly reason: string
}

/** The risks in a file; throws config_invalid with all that is wrong in it, unknown cases first of all. */
export async function readRisks(file: string, content: string): Promise<readonly Risk[]> {
  const read = await parseYaml(file, content)
  if ('problems' in read) throw problemFault('config_invalid', read.problems)
  const checked = checkShape(schema, read.yaml)
  if ('problems' in checked) throw problemFault('config_invalid', checked.problems)
  const known = new Set(CASES.map(({ id }) => id))
  const unknown = checked.value.accept.flatMap((risk, index): readonly Problem[] => {
    const name = risk.case.slice(risk.case.lastIndexOf('/') + 1)
    if (known.has(name)) return []
    return [
      {
        file,
        line: read.yaml.lineOf(['accept', index]),
        message: `no case is called ${JSON.stringify(name)}`,
      },
    ]
  })
  if (unknown.length > 0) throw problemFault('config_invalid', unknown)
  return checked.value.accept
}

/** The results with what was accepted marked; what was accepted until a time that has come is not. */
export function withRisks(
  results: readonly Result[],
  risks: readonly Risk[],
  now: Seconds,
): readonly Result[] {
  return results.map((result) => {
    const risk = risks.find((each) => each.case === result.id)
    if (!risk || (result.verdict !== 'broken' && result.verdict !== 'unclear')) return result
    const { approver, until, reason } = risk
    if (now < until.end)
      return { ...result, verdict: 'accepted', acceptance: { approver, until: until.given, reason } }
    return { ...result, note: `${approver} accepted it until ${until.given}, which is over` }
  })
}
