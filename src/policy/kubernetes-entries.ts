/** Entries of custom resources: ClusterSPIFFEID becomes a template, ClusterStaticEntry an entry. */
import { Fault } from '../base/fault.ts'
import { makeSelector, type Selector } from '../spiffe/selector.ts'
import type { Entry, Place } from './entry.ts'
import type { Condition, EntryTemplate } from './entry-template.ts'
import type { Namespaces } from './kubernetes-object.ts'
import type { ClusterSpiffeIdSpec, ClusterStaticEntrySpec, LabelSelector } from './kubernetes-schema.ts'
import { parseSubject } from './parse.ts'
import { NO_STATEMENTS, type PolicyContext, type Statements } from './statements.ts'

const NOTHING = { x509: false, jwt: false, wit: false } as const
const NAMESPACE = 'k8s:ns:'

/** What is read against besides the object itself. */
export interface ClusterContext extends PolicyContext {
  /** Absent: the namespaces are not known, as in a check of files. */
  readonly namespaces?: Namespaces | undefined
  /** Whether every label of a pod is a selector; else the absence of one says nothing. */
  readonly allLabels?: boolean
}

type Settings = EntryTemplate['settings']
type Common = Pick<
  ClusterStaticEntrySpec,
  'deliver' | 'hint' | 'audiences' | 'acceptedAt' | 'instance' | 'federatesWith'
>

function settingsOf(spec: Common, place: Place, ttl: Pick<Settings, 'x509Ttl' | 'jwtTtl'>): Settings {
  return {
    name: place.file.replace(' ', '/'),
    ...ttl,
    hint: spec.hint ?? '',
    deliver: spec.deliver ?? NOTHING,
    audiences: spec.audiences ?? [],
    acceptedAt: spec.acceptedAt ?? [],
    federatesWith: spec.federatesWith ?? [],
    sds: {},
    instance: spec.instance ?? 'process',
    isProbe: false,
    place,
  }
}

/** The entry of a ClusterStaticEntry. */
export function staticEntryOf(
  spec: ClusterStaticEntrySpec,
  place: Place,
  context: PolicyContext,
): Statements {
  const { x509Ttl, jwtTtl } = context.defaults
  const ttl = { x509Ttl: spec.x509SVIDTTL ?? x509Ttl, jwtTtl: spec.jwtSVIDTTL ?? jwtTtl }
  const entry: Entry = {
    ...settingsOf(spec, place, ttl),
    spiffeId: spec.spiffeID,
    selectors: [...new Set(spec.selectors)],
    dnsNames: spec.dnsNames ?? [],
  }
  return { ...NO_STATEMENTS, entries: [entry] }
}

/** The template of a ClusterSPIFFEID; throws policy_invalid for a selector that cannot be told here. */
export function templateOf(spec: ClusterSpiffeIdSpec, place: Place, context: ClusterContext): Statements {
  const { x509Ttl, jwtTtl } = context.defaults
  const ttl = { x509Ttl: spec.ttl ?? x509Ttl, jwtTtl: spec.jwtTtl ?? jwtTtl }
  const given = spec.workloadSelectorTemplates ?? []
  const isLiteral = ({ parts }: { readonly parts: readonly unknown[] }) =>
    parts.every((part) => typeof part === 'string')
  const pods = podConditions(spec.podSelector, context)
  const template: EntryTemplate = {
    id: spec.spiffeIDTemplate,
    selectors: [
      ...new Set([...given.filter(isLiteral).map(({ text }) => parseSubject(text)), ...pods.selectors]),
    ],
    selectorTemplates: given.filter((each) => !isLiteral(each)),
    // Whoever has no namespace is no pod that may be spoken of here: a static pod, or no pod at all.
    conditions: [
      { kind: 'has', prefix: NAMESPACE },
      ...namespaceConditions(spec.namespaceSelector, context),
      ...pods.conditions,
    ],
    dnsNames: spec.dnsNameTemplates ?? [],
    isFallback: spec.fallback ?? false,
    names: context,
    settings: settingsOf(spec, place, ttl),
  }
  return { ...NO_STATEMENTS, templates: [template] }
}

/** Labels of pods are selectors: those that must be there, and conditions on the rest. */
function podConditions(
  selector: LabelSelector = {},
  { allLabels = true }: ClusterContext,
): { readonly selectors: readonly Selector[]; readonly conditions: readonly Condition[] } {
  const of = (key: string, value: string) => makeSelector(`k8s:pod-label:${key}`, value)
  const selectors = Object.entries(selector.matchLabels ?? {}).map(([key, value]) => of(key, value))
  const conditions = (selector.matchExpressions ?? []).map(({ key, operator, values = [] }): Condition => {
    const isAbsence = operator === 'NotIn' || operator === 'DoesNotExist'
    if (isAbsence && !allLabels) throw unknowable(`podSelector: ${operator} ${key}`)
    if (operator === 'In' || operator === 'NotIn')
      return { kind: operator === 'In' ? 'some' : 'none', of: new Set(values.map((value) => of(key, value))) }
    return { kind: operator === 'Exists' ? 'has' : 'lacks', prefix: `k8s:pod-label:${key}:` }
  })
  return { selectors, conditions }
}

function unknowable(what: string): Fault {
  const why = 'kubernetes.pod_labels leaves labels out, so nobody knows that a pod does not have it'
  return new Fault('policy_invalid', `${what} cannot be told: ${why}`)
}

/** The namespaces that `selector` selects now, as a condition. */
function namespaceConditions(
  selector: LabelSelector | undefined,
  { namespaces }: ClusterContext,
): readonly Condition[] {
  if (!selector || Object.values(selector).every((member) => Object.keys(member ?? {}).length === 0))
    return []
  const selected = namespaces ? [...namespaces].filter(([, labels]) => isSelected(selector, labels)) : []
  const names = selected.map(([name]) => makeSelector('k8s:ns', name))
  return [{ kind: 'some', of: new Set(names) }]
}

/** metav1.LabelSelector: all of matchLabels and of matchExpressions; NotIn takes what has no such label. */
export function isSelected(selector: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
  const { matchLabels = {}, matchExpressions = [] } = selector
  const valueAt = (key: string) => (Object.hasOwn(labels, key) ? labels[key] : undefined)
  return (
    Object.entries(matchLabels).every(([key, value]) => valueAt(key) === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = valueAt(key)
      if (operator === 'In') return value !== undefined && values.includes(value)
      if (operator === 'NotIn') return value === undefined || !values.includes(value)
      return (value !== undefined) === (operator === 'Exists')
    })
  )
}
