/** Finds the entries of a caller: each is filed under its rarest selector, so that a look-up tries few of them. */
import type { Selector } from '../spiffe/selector.ts'
import type { Entry } from './entry.ts'

export interface EntryIndex {
  find(selectors: ReadonlySet<Selector>): readonly Entry[]
  /** Kinds of selectors that any entry rests on, such as `unix:sha256`. */
  readonly kinds: ReadonlySet<string>
}

interface Filed {
  readonly entry: Entry
  readonly order: number
}

export function indexEntries(entries: readonly Entry[]): EntryIndex {
  const uses = new Map<Selector, number>()
  for (const entry of entries) {
    for (const selector of entry.selectors) uses.set(selector, (uses.get(selector) ?? 0) + 1)
  }
  const files = new Map<Selector, Filed[]>()
  for (const [order, entry] of entries.entries()) {
    const rarest = rarestOf(entry, uses)
    // An entry without selectors would match every caller; it is filed nowhere.
    if (rarest === undefined) continue
    const file = files.get(rarest)
    if (file) file.push({ entry, order })
    else files.set(rarest, [{ entry, order }])
  }
  return { find: (selectors) => find(files, selectors), kinds: new Set([...uses.keys()].map(kindOf)) }
}

function rarestOf(entry: Entry, uses: ReadonlyMap<Selector, number>): Selector | undefined {
  let rarest = entry.selectors[0]
  for (const selector of entry.selectors) {
    if (rarest !== undefined && (uses.get(selector) ?? 0) < (uses.get(rarest) ?? 0)) rarest = selector
  }
  return rarest
}

function find(
  files: ReadonlyMap<Selector, readonly Filed[]>,
  selectors: ReadonlySet<Selector>,
): readonly Entry[] {
  const found: Filed[] = []
  for (const selector of selectors) {
    for (const filed of files.get(selector) ?? []) {
      if (filed.entry.selectors.every((wanted) => selectors.has(wanted))) found.push(filed)
    }
  }
  return found.sort((a, b) => a.order - b.order).map(({ entry }) => entry)
}

/** `unix:uid` of `unix:uid:1000`. */
export function kindOf(selector: Selector): string {
  const type = selector.indexOf(':')
  const end = selector.indexOf(':', type + 1)
  return end === -1 ? selector : selector.slice(0, end)
}
