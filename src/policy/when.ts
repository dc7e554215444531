/** Conditions of grants, in CEL (cel.dev): compiled when policy is loaded; only `true` allows. Loads the evaluator. */
import { celEnv, parse, plan } from '@bufbuild/cel'
import { Fault } from '../base/fault.ts'
import type { When } from './grant.ts'
import { checkWhen, type Expr, FACTS, patternsIn } from './when-check.ts'

const SOURCE_LIMIT = 1_000
/** The longest fact that is looked at: a longer one makes the condition fail. */
const FACT_LIMIT = 2_048
const LIST_LIMIT = 128

const env = celEnv()
const isPattern = plan(env, parse('"".matches(pattern)').expr)

/** The condition in `source`; throws policy_invalid when it is not a condition or may cost too much. */
export function compileWhen(source: string): When {
  if (source.length > SOURCE_LIMIT) throw new Fault('policy_invalid', `is over ${SOURCE_LIMIT} characters`)
  const expr = parseSource(source)
  checkWhen(expr)
  const broken = patternsIn(expr).find((pattern) => typeof isPattern({ pattern }) !== 'boolean')
  if (broken !== undefined)
    throw new Fault('policy_invalid', `not a pattern (RE2): ${JSON.stringify(broken)}`)
  const run = plan(env, expr)
  return {
    source,
    evaluate: (facts) => {
      const bound = boundedFacts(facts)
      // An error is an object, and objects are true to a careless reader.
      return bound !== undefined && run(bound) === true
    },
  }
}

function parseSource(source: string): Expr {
  try {
    return parse(source).expr
  } catch (error) {
    const why = error instanceof Error ? error.message.replace(/^<input>:/, '') : 'not understood'
    throw new Fault('policy_invalid', `not CEL: ${why.slice(0, 160)}`)
  }
}

type Bound = Readonly<Record<string, string | string[]>>

function boundedFacts(facts: Readonly<Record<string, unknown>>): Bound | undefined {
  const bound: Record<string, string | string[]> = {}
  for (const [name, type] of Object.entries(FACTS)) {
    const fact = facts[name]
    const items = type === 'string' ? [fact] : fact
    if (!Array.isArray(items) || items.length > LIST_LIMIT || !items.every(isBounded)) return undefined
    bound[name] = type === 'string' ? (fact as string) : items
  }
  return bound
}

function isBounded(fact: unknown): fact is string {
  return typeof fact === 'string' && fact.length <= FACT_LIMIT
}
