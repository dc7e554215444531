/** What a grant that nearly allows a request lacks, and the smallest change that would add it. */
import type { Question } from './decide.ts'
import type { Grant } from './grant.ts'
import { isNeverGranted } from './methods.ts'

/** The grant that came furthest, and how far. */
export interface NearestGrant {
  readonly name: string
  readonly at: string
  readonly grant: Grant | undefined
  readonly steps: number
}

/** What is missing at the first step that does not hold, and what would add it. */
export function grantRefusal(
  question: Question,
  { name, at, grant, steps }: NearestGrant,
): readonly [string, string] {
  const { method, url, spiffeId, door } = question
  switch (steps) {
    case 0:
      return [`no grant of ${name} allows the path ${url.path}`, `Add ${url.path} to paths${at}.`]
    case 1: {
      const what = method ?? 'proofs that cover no method'
      return [`no grant of ${name} allows ${what} here`, methodAction(method, at)]
    }
    case 2:
      return conditionRefusal(question, at, grant)
    default:
      if (door === 'probe')
        return [
          `no grant of ${name} with probe: true names ${spiffeId}`,
          `Add a grant with probe: true for ${spiffeId}${at}.`,
        ]
      return [`no grant of ${name} names ${spiffeId}`, `Add ${spiffeId} to the callers of a grant${at}.`]
  }
}

function conditionRefusal(
  question: Question,
  at: string,
  grant: Grant | undefined,
): readonly [string, string] {
  const { asks = [], source = '' } = grant?.when ?? {}
  if (question.context || asks.length === 0)
    return [`the condition${at} does not hold`, `Meet or change the condition: ${source}`]
  return [
    `the condition${at} asks for ${asks.join(', ')}, known only when a request is made`,
    `Make the request to see, or state context in a policy test; the condition is: ${source}`,
  ]
}

function methodAction(method: string | undefined, at: string): string {
  if (method !== undefined && isNeverGranted(method)) return `${method} is never granted: use another method.`
  return `Add ${method ?? "'*'"} to methods${at}.`
}
