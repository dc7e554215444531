/** The kind of a selector: what it is a fact about. */
import type { Selector } from '../spiffe/selector.ts'

/** `unix:uid` of `unix:uid:1000`. */
export function kindOf(selector: Selector): string {
  const type = selector.indexOf(':')
  const end = selector.indexOf(':', type + 1)
  return end === -1 ? selector : selector.slice(0, end)
}
