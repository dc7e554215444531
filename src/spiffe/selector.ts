/** Selectors, `type:value` with SPIRE's spelling: `unix:uid:1000`, `systemd:id:web.service`. */
import { Fault } from '../base/fault.ts'

declare const brand: unique symbol
/** A fact about a caller; compared as a whole string. */
export type Selector = string & { readonly [brand]: 'Selector' }

const SELECTOR = /^[a-z0-9_-]+:.+$/su
const SELECTOR_LIMIT = 4352

/** The selector in `text`; throws invalid_request. Only the shape is checked: kinds belong to their attestors. */
export function parseSelector(text: string): Selector {
  if (text.length > SELECTOR_LIMIT || !SELECTOR.test(text)) {
    throw new Fault(
      'invalid_request',
      `not a selector: ${JSON.stringify(text.slice(0, 128))}, wanted type:value`,
    )
  }
  return text as Selector
}

/** The selector of `kind` (`unix:uid`) and `value`; values are never parsed back, so they need no escaping. */
export function makeSelector(kind: string, value: string | number): Selector {
  return `${kind}:${value}` as Selector
}
