/** Reads options of any shape: each reader says where a value is, what is wrong with it and what was wanted. */
import { Fault } from '../base/fault.ts'
import { meant } from '../base/nearest.ts'

export type Members = Readonly<Record<string, unknown>>

/** What policy files may say of routes and grants, and this process cannot do. */
const AGENT_ONLY: ReadonlySet<string> = new Set(['when', 'introspect', 'handOut', 'mode'])

/** Throws policy_invalid. */
export function membersOf(value: unknown, at: string, keys: readonly string[]): Members {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(at, 'is not an object')
  const unknown = Object.keys(value).find((key) => !keys.includes(key))
  if (unknown !== undefined && AGENT_ONLY.has(unknown))
    throw invalid(
      at,
      `has ${unknown}, which the agent alone carries out: ask it, by createVerifier({ socket })`,
    )
  if (unknown !== undefined)
    throw invalid(at, `has the unknown member ${JSON.stringify(unknown)}${meant(unknown, keys)}`)
  return value as Members
}

/** Items in order; `limit` of them at most. */
export function listOf<T>(
  value: unknown,
  at: string,
  read: (item: unknown, at: string) => T,
  limit: number,
): readonly T[] {
  if (value === undefined) throw invalid(at, 'is missing: state a list, an empty one allows nothing')
  if (!Array.isArray(value)) throw invalid(at, 'is not a list')
  if (value.length > limit) throw invalid(at, `has ${value.length} items, wanted ${limit} at most`)
  return value.map((item: unknown, index) => read(item, `${at}[${index}]`))
}

/** A text that `parse` takes. */
export function parsed<T>(value: unknown, at: string, parse: (text: string) => T): T {
  if (typeof value !== 'string' || value === '') throw invalid(at, 'is not a text')
  try {
    return parse(value)
  } catch (error) {
    throw invalid(at, Fault.from(error).message)
  }
}

/** A text of `form`. */
export function textOf(value: unknown, at: string, form: RegExp, error: string): string {
  if (typeof value !== 'string' || !form.test(value)) throw invalid(at, error)
  return value
}

export function countOf(value: unknown, at: string, [min, max]: readonly [number, number]): number {
  if (!Number.isSafeInteger(value) || Number(value) < min || Number(value) > max)
    throw invalid(at, `is not a whole number from ${min} to ${max}`)
  return Number(value)
}

export function choiceOf<T extends string>(value: unknown, at: string, of: readonly T[]): T {
  const found = of.find((one) => one === value)
  if (found !== undefined) return found
  const near = typeof value === 'string' ? meant(value, of) : ''
  throw invalid(at, `is none of ${of.join(', ')}${near}`)
}

/** A function, when there is one. */
export function checkFunction(value: unknown, at: string): void {
  if (value !== undefined && typeof value !== 'function') throw invalid(at, 'is not a function')
}

export function invalid(at: string, what: string): Fault {
  return new Fault('policy_invalid', `${at}: ${what}`, {
    owner: 'application',
    action: 'Correct the options of createVerifier.',
  })
}
