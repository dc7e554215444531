/** Finds the entries of a caller: each is filed under its rarest selector, so that a look-up tries few of them. */
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { Entry } from './entry.ts'
import { type EntryTemplate, makeEntry } from './entry-template.ts'
import { kindOf } from './selector-kind.ts'

export interface EntryIndex {
  /** In policy order; of several with one SPIFFE ID the one with the most selectors: it knows the caller best. */
  find(selectors: ReadonlySet<Selector>): readonly Entry[]
  /** Why templates that fit the caller gave it no entry. */
  misfits(selectors: ReadonlySet<Selector>): readonly string[]
  /** The entries that templates have made so far. */
  made(): readonly Entry[]
  /** Whether a selector of `kind` may give the caller an entry: one that rests on it, and for which no other is missing. */
  wants(kind: string, selectors: ReadonlySet<Selector>): boolean
}

interface Filed<T> {
  readonly entry: T
  readonly order: number
}

/** What a template came to for one caller. */
interface Made {
  readonly template: EntryTemplate
  readonly entry: Entry | undefined
  readonly misfit: string | undefined
}

interface Resting {
  readonly selectors: readonly Selector[]
}

/** `checked` may refuse an entry that a template makes, by a reason. */
export function indexEntries(
  entries: readonly Entry[],
  templates: readonly EntryTemplate[] = [],
  checked: (entry: Entry) => string | undefined = () => undefined,
): EntryIndex {
  const files = fileEntries(entries)
  const templateFiles = fileEntries(templates)
  const made = new MadeEntries()
  const makeAll = (selectors: ReadonlySet<Selector>) =>
    lookUp(templateFiles, selectors).flatMap(({ entry: template, order }): readonly Made[] => {
      const entry = makeEntry(template, selectors)
      if (entry === undefined) return []
      const misfit = 'misfit' in entry ? entry.misfit : checked(entry)
      if (misfit !== undefined) return [{ template, entry: undefined, misfit }]
      return [{ template, entry: made.keep(order, entry as Entry), misfit: undefined }]
    })
  const find = (selectors: ReadonlySet<Selector>) => {
    const fixed = lookUp(files, selectors).map(({ entry }) => entry)
    if (templates.length === 0) return mostSpecific(fixed)
    const all = makeAll(selectors)
    const of = (isFallback: boolean) =>
      all.flatMap(({ template, entry }) => (entry && template.isFallback === isFallback ? [entry] : []))
    const found = [...fixed, ...of(false)]
    return mostSpecific(found.length > 0 ? found : of(true))
  }
  const byKind = new Map<string, Files<Resting>>()
  const without = (kind: string) => {
    const known = byKind.get(kind) ?? fileEntries(restingOn(kind, [...entries, ...templates]))
    byKind.set(kind, known)
    return known
  }
  return {
    find,
    misfits: (selectors) => makeAll(selectors).flatMap(({ misfit }) => misfit ?? []),
    made: () => made.all(),
    wants: (kind, selectors) => lookUp(without(kind), selectors).length > 0,
  }
}

/** Those that rest on `kind`, as if they did not. */
function restingOn(kind: string, all: readonly Resting[]): readonly Resting[] {
  return all.flatMap((each) => {
    const selectors = each.selectors.filter((selector) => kindOf(selector) !== kind)
    if (selectors.length === each.selectors.length) return []
    return [selectors.length > 0 ? { ...each, selectors } : { ...each, selectors, conditions: [] }]
  })
}

/** Most callers have distinct identities, and then nothing is to be done. */
function mostSpecific(entries: readonly Entry[]): readonly Entry[] {
  const best = new Map<SpiffeId, Entry>()
  for (const entry of entries) {
    const known = best.get(entry.spiffeId)
    if (!known || entry.selectors.length > known.selectors.length) best.set(entry.spiffeId, entry)
  }
  return best.size === entries.length
    ? entries
    : entries.filter((entry) => best.get(entry.spiffeId) === entry)
}

const MADE_LIMIT = 20_000

/** One object for each entry that templates make, however many callers have it. */
class MadeEntries {
  readonly #made = new Map<string, Entry>()

  keep(order: number, entry: Entry): Entry {
    const key = JSON.stringify([order, entry.spiffeId, entry.selectors, entry.dnsNames])
    const known = this.#made.get(key)
    if (known) return known
    const [oldest] = this.#made.keys()
    if (this.#made.size >= MADE_LIMIT && oldest !== undefined) this.#made.delete(oldest)
    this.#made.set(key, entry)
    return entry
  }

  all(): readonly Entry[] {
    return [...this.#made.values()]
  }
}

interface Files<T> {
  readonly bySelector: ReadonlyMap<Selector, readonly Filed<T>[]>
  /** Those without a selector of their own: templates, which have conditions instead. */
  readonly open: readonly Filed<T>[]
}

function fileEntries<T extends Resting>(entries: readonly T[]): Files<T> {
  const uses = new Map<Selector, number>()
  for (const entry of entries) {
    for (const selector of entry.selectors) uses.set(selector, (uses.get(selector) ?? 0) + 1)
  }
  const bySelector = new Map<Selector, Filed<T>[]>()
  const open: Filed<T>[] = []
  for (const [order, entry] of entries.entries()) {
    const rarest = rarestOf(entry, uses)
    if (rarest === undefined) {
      // An entry without selectors and conditions would match every caller; it is filed nowhere.
      if ('conditions' in entry) open.push({ entry, order })
      continue
    }
    const file = bySelector.get(rarest)
    if (file) file.push({ entry, order })
    else bySelector.set(rarest, [{ entry, order }])
  }
  return { bySelector, open }
}

function rarestOf(entry: Resting, uses: ReadonlyMap<Selector, number>): Selector | undefined {
  let rarest = entry.selectors[0]
  for (const selector of entry.selectors) {
    if (rarest !== undefined && (uses.get(selector) ?? 0) < (uses.get(rarest) ?? 0)) rarest = selector
  }
  return rarest
}

function lookUp<T extends Resting>(
  { bySelector, open }: Files<T>,
  selectors: ReadonlySet<Selector>,
): readonly Filed<T>[] {
  const found: Filed<T>[] = selectors.size > 0 ? [...open] : []
  for (const selector of selectors) {
    for (const filed of bySelector.get(selector) ?? []) {
      if (filed.entry.selectors.every((wanted) => selectors.has(wanted))) found.push(filed)
    }
  }
  // In a container a uid is whoever the image says: it counts beside what the container attestor knows, never alone.
  const counting = [...selectors].some(isOfPod) ? found.filter(({ entry }) => restsOnPod(entry)) : found
  return counting.sort((a, b) => a.order - b.order)
}

const isOfPod = (selector: Selector) => selector.startsWith('k8s:')

/** Conditions of templates are about pods. */
function restsOnPod(entry: Resting): boolean {
  return 'conditions' in entry || entry.selectors.some(isOfPod)
}
