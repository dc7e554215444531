/**
 * The part of CEL that conditions may use, with its types. Evaluators answer a comparison of two types with false, so
 * that `method != 1` would always hold: such conditions are refused when policy is loaded.
 */
import type { parse } from '@bufbuild/cel'
import { Fault } from '../base/fault.ts'
import { meant } from '../base/nearest.ts'

export type Expr = ReturnType<typeof parse>['expr']
export type Type = 'bool' | 'int' | 'string' | 'list(string)'

/** What a condition may ask of the request itself; all are given at each evaluation. */
export const FACTS: Readonly<Record<string, Type>> = {
  method: 'string',
  path: 'string',
  host: 'string',
  spiffe_id: 'string',
  kind: 'string',
  token: 'string',
  selectors: 'list(string)',
}

/** What only the door that makes a request knows; a condition that asks for what is not given does not hold. */
export const CONTEXT_FACTS: Readonly<Record<string, Type>> = {
  /** Seconds since 1970; the others are its parts in UTC, the days of the week from 1, Monday. */
  now: 'int',
  hour: 'int',
  minute: 'int',
  weekday: 'int',
  subject: 'string',
  actors: 'list(string)',
  txn: 'string',
  session_calls: 'int',
  session_writes: 'int',
  session_targets: 'int',
  first_use: 'bool',
}

const ALL_FACTS: Readonly<Record<string, Type>> = { ...FACTS, ...CONTEXT_FACTS }

const DEPTH_LIMIT = 24
const PATTERN_LIMIT = 200

type Signature = readonly [readonly Type[], Type]

const ORDER: readonly Signature[] = [
  [['int', 'int'], 'bool'],
  [['string', 'string'], 'bool'],
]
const SAME: readonly Signature[] = [...ORDER, [['bool', 'bool'], 'bool']]
const TEXT: readonly Signature[] = [[['string', 'string'], 'bool']]
const BOTH: readonly Signature[] = [[['bool', 'bool'], 'bool']]
const SIZE: readonly Signature[] = [
  [['string'], 'int'],
  [['list(string)'], 'int'],
]

/** Operators, functions and methods; a method's target counts as its first argument. */
const CALLS: Readonly<Record<string, readonly Signature[]>> = {
  '_&&_': BOTH,
  '_||_': BOTH,
  '!_': [[['bool'], 'bool']],
  '_==_': SAME,
  '_!=_': SAME,
  '_<_': ORDER,
  '_<=_': ORDER,
  '_>_': ORDER,
  '_>=_': ORDER,
  '_?_:_': [[['bool', 'bool', 'bool'], 'bool']],
  '@in': [[['string', 'list(string)'], 'bool']],
  size: SIZE,
  startsWith: TEXT,
  endsWith: TEXT,
  contains: TEXT,
  matches: TEXT,
}

/** Throws policy_invalid unless `expr` is of type bool and uses nothing but the calls and facts above. */
export function checkWhen(expr: Expr): void {
  const type = typeOf(expr, 1)
  if (type !== 'bool') throw refused(`the condition is of type ${type}, wanted bool`)
}

function typeOf(expr: Expr | undefined, depth: number): Type {
  if (depth > DEPTH_LIMIT) throw refused(`nested over ${DEPTH_LIMIT} deep`)
  const { exprKind: kind } = expr ?? {}
  switch (kind?.case) {
    case 'constExpr':
      return typeOfConstant(kind.value.constantKind.case)
    case 'identExpr':
      return typeOfFact(kind.value.name)
    case 'listExpr':
      for (const item of kind.value.elements) {
        if (typeOf(item, depth + 1) !== 'string') throw refused('a list holds something else than strings')
      }
      return 'list(string)'
    case 'callExpr':
      return typeOfCall(kind.value, depth)
    case 'comprehensionExpr':
      throw refused('all, exists, exists_one, map and filter are refused: their cost grows with their input')
    case 'selectExpr':
      throw refused(`.${kind.value.field} is refused: facts have no fields`)
    default:
      throw refused('maps and messages are refused')
  }
}

function typeOfConstant(kind: string | undefined): Type {
  if (kind === 'stringValue') return 'string'
  if (kind === 'boolValue') return 'bool'
  if (kind === 'int64Value') return 'int'
  throw refused('constants are strings, whole numbers, true and false')
}

function typeOfFact(name: string): Type {
  const type = Object.hasOwn(ALL_FACTS, name) ? ALL_FACTS[name] : undefined
  if (!type) throw refused(`there is no fact ${JSON.stringify(name)}${meant(name, Object.keys(ALL_FACTS))}`)
  return type
}

interface Call {
  readonly function: string
  readonly target?: Expr | undefined
  readonly args: readonly Expr[]
}

function typeOfCall(call: Call, depth: number): Type {
  const name = call.function
  const signatures = Object.hasOwn(CALLS, name) ? CALLS[name] : undefined
  if (!signatures)
    throw refused(
      `${name} is refused${meant(
        name,
        Object.keys(CALLS).filter((each) => /^\w+$/.test(each)),
      )}`,
    )
  const given = call.target ? [call.target, ...call.args] : call.args
  const types = given.map((arg) => typeOf(arg, depth + 1))
  const match = signatures.find(
    ([wanted]) => wanted.length === types.length && wanted.every((type, at) => type === types[at]),
  )
  if (!match) throw refused(`${name} does not take ${types.join(', ')}`)
  if (name === 'matches') checkPattern(given[1])
  return match[1]
}

/** A pattern from the caller, or a long one, would let a request choose what it costs. */
function checkPattern(expr: Expr | undefined): void {
  const kind = expr?.exprKind
  const constant = kind?.case === 'constExpr' ? kind.value.constantKind : undefined
  if (constant?.case !== 'stringValue') throw refused('matches wants its pattern as a text, not from a fact')
  if (constant.value.length > PATTERN_LIMIT) throw refused(`the pattern is over ${PATTERN_LIMIT} characters`)
}

/** The patterns of every `matches` in a checked condition. */
export function patternsIn(expr: Expr): readonly string[] {
  const kind = expr.exprKind
  if (kind.case !== 'callExpr') return []
  const { target, args } = kind.value
  const given = target ? [target, ...args] : args
  const pattern = kind.value.function === 'matches' ? given[1]?.exprKind : undefined
  const constant = pattern?.case === 'constExpr' ? pattern.value.constantKind : undefined
  const own = constant?.case === 'stringValue' ? [constant.value] : []
  return [...own, ...given.flatMap(patternsIn)]
}

/** The facts that a checked condition asks for. */
export function factsIn(expr: Expr): ReadonlySet<string> {
  const kind = expr.exprKind
  switch (kind.case) {
    case 'identExpr':
      return new Set([kind.value.name])
    case 'listExpr':
      return new Set(kind.value.elements.flatMap((item) => [...factsIn(item)]))
    case 'callExpr': {
      const { target, args } = kind.value
      const given = target ? [target, ...args] : args
      return new Set(given.flatMap((arg) => [...factsIn(arg)]))
    }
    default:
      return new Set()
  }
}

function refused(message: string): Fault {
  return new Fault('policy_invalid', message)
}
