/** Conditions of grants, in CEL (cel.dev): compiled when policy is loaded; only `true` allows. Loads the evaluator. */
import { celEnv, parse, plan } from '@bufbuild/cel'
import { Fault } from '../base/fault.ts'
import type { When } from './grant.ts'
import { CONTEXT_FACTS, checkWhen, type Expr, FACTS, factsIn, patternsIn, type Type } from './when-check.ts'

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
  const asks = [...factsIn(expr)].filter((name) => Object.hasOwn(CONTEXT_FACTS, name))
  const wanted = [...BASE, ...asks.map((name) => [name, CONTEXT_FACTS[name]] as const)]
  return {
    source,
    asks,
    evaluate: (facts) => {
      const bound = boundedFacts(facts, wanted)
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

type Wanted = readonly (readonly [string, Type | undefined])[]
type Value = string | string[] | bigint | boolean
type Bound = Readonly<Record<string, Value>>

const BASE: Wanted = Object.entries(FACTS)

/** The facts that are wanted as CEL takes them; undefined when one is missing, too long or of another type. */
function boundedFacts(facts: Readonly<Record<string, unknown>>, wanted: Wanted): Bound | undefined {
  const bound: Record<string, Value> = {}
  for (const [name, type] of wanted) {
    const value = boundedFact(facts[name], type)
    if (value === undefined) return undefined
    bound[name] = value
  }
  return bound
}

function boundedFact(fact: unknown, type: Type | undefined): Value | undefined {
  switch (type) {
    case 'string':
      return isBounded(fact) ? fact : undefined
    case 'list(string)':
      return Array.isArray(fact) && fact.length <= LIST_LIMIT && fact.every(isBounded) ? fact : undefined
    case 'int':
      return Number.isSafeInteger(fact) ? BigInt(fact as number) : undefined
    default:
      return type === 'bool' && typeof fact === 'boolean' ? fact : undefined
  }
}

function isBounded(fact: unknown): fact is string {
  return typeof fact === 'string' && fact.length <= FACT_LIMIT
}
