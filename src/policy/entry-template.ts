/** Entries that are made for each caller: who it is follows from facts of its pod, the rest stands in the statement. */
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { Entry } from './entry.ts'
import { parseDnsName } from './parse.ts'
import { fillId, fillTemplate, type Template, type TemplateNames } from './template.ts'

/** What must hold of a caller beyond the selectors it has to have. */
export type Condition =
  /** At least one of these selectors, or none of them. */
  | { readonly kind: 'some' | 'none'; readonly of: ReadonlySet<Selector> }
  /** Some selector that begins so, or none. */
  | { readonly kind: 'has' | 'lacks'; readonly prefix: string }

/** A statement that gives an entry to every caller it fits. */
export interface EntryTemplate {
  readonly id: Template
  /** All must hold. */
  readonly selectors: readonly Selector[]
  /** Further ones, which hang on the caller. */
  readonly selectorTemplates: readonly Template[]
  readonly conditions: readonly Condition[]
  readonly dnsNames: readonly Template[]
  /** Counts only for callers that no other entry fits. */
  readonly isFallback: boolean
  readonly names: TemplateNames
  readonly settings: Omit<Entry, 'spiffeId' | 'selectors' | 'dnsNames'>
}

/** The entry of `template` for this caller, why there is none although it fits, or undefined when it does not fit. */
export function makeEntry(
  template: EntryTemplate,
  selectors: ReadonlySet<Selector>,
): Entry | { readonly misfit: string } | undefined {
  if (!template.selectors.every((selector) => selectors.has(selector))) return undefined
  if (!template.conditions.every((condition) => holds(condition, selectors))) return undefined
  const wanted: Selector[] = []
  for (const each of template.selectorTemplates) {
    const filled = fillTemplate(each, selectors, template.names)
    if ('misfit' in filled) return filled
    if (!selectors.has(filled.text as Selector)) return undefined
    wanted.push(filled.text as Selector)
  }
  const filled = fillId(template.id, selectors, template.names)
  if ('misfit' in filled) return filled
  const dnsNames = dnsNamesOf(template, selectors)
  if ('misfit' in dnsNames) return dnsNames
  return entryOf(template, filled.id, wanted, dnsNames.names)
}

function entryOf(
  { settings, selectors }: EntryTemplate,
  spiffeId: SpiffeId,
  wanted: readonly Selector[],
  dnsNames: readonly string[],
): Entry {
  return { ...settings, spiffeId, selectors: [...new Set([...selectors, ...wanted])], dnsNames }
}

function dnsNamesOf(
  { dnsNames, names }: EntryTemplate,
  selectors: ReadonlySet<Selector>,
): { readonly names: readonly string[] } | { readonly misfit: string } {
  const made = new Set<string>()
  for (const template of dnsNames) {
    const filled = fillTemplate(template, selectors, names, 'label')
    if ('misfit' in filled) return filled
    try {
      made.add(parseDnsName(filled.text))
    } catch {
      return { misfit: `${template.text}: becomes no DNS name` }
    }
  }
  return { names: [...made] }
}

function holds(condition: Condition, selectors: ReadonlySet<Selector>): boolean {
  if ('of' in condition) {
    const hasOne = [...selectors].some((selector) => condition.of.has(selector))
    return hasOne === (condition.kind === 'some')
  }
  const has = [...selectors].some((selector) => selector.startsWith(condition.prefix))
  return has === (condition.kind === 'has')
}
