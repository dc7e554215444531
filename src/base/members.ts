/** A value from outside (parsed JSON, a decoded message) as an object, before any of it is believed. */

export type Members = Readonly<Record<string, unknown>>

/** `value` where it is an object and no list; else an object without members. */
export function membersOf(value: unknown): Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Members) : {}
}

/** The items of a list, or of any member that is one; else none. */
export function itemsOf(value: unknown): readonly Members[] {
  return Array.isArray(value) ? value.map(membersOf) : []
}
