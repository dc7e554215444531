/** Names of methods that may stand in records. */

const METHODS: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'PATCH',
  'DELETE',
  'OPTIONS',
  'QUERY',
])

/** Methods are the caller's words: one that is not a known one may be anything, a token included. */
export function methodName(method: string): string {
  return METHODS.has(method) ? method : 'other'
}
