/** The forms of texts in routes, the same in policy files and in the options of the middleware. */
import { parseSpiffeId } from '../spiffe/id.ts'

export const NAME = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/
export const NAME_ERROR = 'is not a name: wanted letters, digits, dots, dashes and slashes, at most 128'
/** RFC 6749 s.3.3. */
export const SCOPE = /^[!#-[\]-~]{1,256}$/
export const SCOPE_ERROR = 'is not a scope (RFC 6749 s.3.3)'
export const METHOD = /^(?:\*|[A-Z][A-Z-]{0,31})$/
export const METHOD_ERROR = 'is not an upper-case method or "*"'
export const LIST_LIMIT = 256
export const GRANTS_LIMIT = 5_000

/** A caller is a SPIFFE ID, a prefix of them, or a client of a server: `client:SERVER/CLIENT_ID`. */
export function parseRouteCaller(given: string): string {
  if (!given.startsWith('client:')) parseSpiffeId(given.replace(/\/\*\*$/, ''))
  return given
}
