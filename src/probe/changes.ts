/** What differs from an earlier run. */
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Result } from './verdict.ts'

export interface Change {
  readonly id: string
  readonly before: string
  readonly now: string
}

const LIMITS = { maxBytes: 4 * 1024 * 1024, maxDepth: 8 }
const WORD = /^[a-z]{1,16}$/

/** The verdicts in a report that `-o json` wrote, by id; throws usage. */
export function readBaseline(file: string, text: string): ReadonlyMap<string, string> {
  try {
    const { results } = parseJsonObject(text, LIMITS)
    if (Array.isArray(results)) return new Map(results.flatMap(verdictIn))
  } catch {
    // Said below.
  }
  throw new Fault('usage', `${file}: is no report of holdfast probe`, {
    action: 'Name a file that `holdfast probe URL -o json` wrote.',
  })
}

function verdictIn(result: unknown): readonly (readonly [string, string])[] {
  if (typeof result !== 'object' || result === null) return []
  const { id, verdict } = result as Readonly<Record<string, unknown>>
  return typeof id === 'string' && id.length <= 256 && typeof verdict === 'string' && WORD.test(verdict)
    ? [[id, verdict]]
    : []
}

export function verdictsOf(results: readonly Result[]): ReadonlyMap<string, string> {
  return new Map(results.map(({ id, verdict }) => [id, verdict]))
}

/** Cases whose verdict is another one than before, and those that were not there. */
export function changesSince(
  before: ReadonlyMap<string, string>,
  results: readonly Result[],
): readonly Change[] {
  return results.flatMap(({ id, verdict }) => {
    const was = before.get(id) ?? 'absent'
    return was === verdict ? [] : [{ id, before: was, now: verdict }]
  })
}
