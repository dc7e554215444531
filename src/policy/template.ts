/**
 * Templates in the vocabulary of spire-controller-manager: texts that refer to facts of the calling pod, parsed once and
 * filled in when it is attested. Values escape nothing: one that would not stay inside its segment is refused.
 */
import { Fault } from '../base/fault.ts'
import { meant } from '../base/nearest.ts'
import { parseWorkloadId, type SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import { isPrefix, stemOf } from './pattern.ts'

/** A fact of the caller: the value of its one selector that begins with `prefix`. */
interface Reference {
  readonly says: string
  readonly prefix: string
  /** Characters that its values can never have, so that one of them parts it from the next value. */
  readonly never: string
}

/** What an installation is called, the same for all callers. */
export interface TemplateNames {
  readonly trustDomain: string
  readonly clusterName?: string | undefined
  readonly clusterDomain?: string | undefined
}

type Part = string | Reference | { readonly says: string; readonly name: keyof TemplateNames }

/** A parsed template. */
export interface Template {
  readonly text: string
  readonly parts: readonly Part[]
}

/** What a template becomes, or why it cannot be filled in for this caller. */
export type Filled = { readonly text: string } | { readonly misfit: string }

const TEMPLATE_LIMIT = 1024
const ACTION = /\{\{\s*([^{}]*?)\s*\}\}/g
// The alphabets of Kubernetes: RFC 1123 labels and subdomains, label values, UUIDs.
const FIELDS: Readonly<Record<string, Omit<Reference, 'says'>>> = {
  '.PodMeta.Namespace': { prefix: 'k8s:ns:', never: '._' },
  '.PodMeta.Name': { prefix: 'k8s:pod-name:', never: '_' },
  '.PodMeta.UID': { prefix: 'k8s:pod-uid:', never: '._' },
  '.PodSpec.ServiceAccountName': { prefix: 'k8s:sa:', never: '_' },
  '.PodSpec.NodeName': { prefix: 'k8s:node-name:', never: '_' },
}
const NAMES: Readonly<Record<string, keyof TemplateNames>> = {
  '.TrustDomain': 'trustDomain',
  '.ClusterName': 'clusterName',
  '.ClusterDomain': 'clusterDomain',
}
const LABEL =
  /^(?:index \.PodMeta\.Labels "([A-Za-z0-9._/-]{1,317})"|\.PodMeta\.Labels\.([A-Za-z0-9_]{1,63}))$/

/** The template in `text`; throws policy_invalid for what is no template of ours. */
export function parseTemplate(text: string): Template {
  if (text.length === 0 || text.length > TEMPLATE_LIMIT)
    throw invalid(text, `wanted 1 to ${TEMPLATE_LIMIT} characters`)
  const parts: Part[] = []
  let end = 0
  for (const { 0: whole, 1: action = '', index } of text.matchAll(ACTION)) {
    if (index > end) parts.push(text.slice(end, index))
    parts.push(referenceOf(action))
    end = index + whole.length
  }
  if (end < text.length) parts.push(text.slice(end))
  if (parts.some((part) => typeof part === 'string' && /\{\{|\}\}/.test(part)))
    throw invalid(text, 'braces do not close')
  return { text, parts }
}

function referenceOf(action: string): Part {
  const name = NAMES[action]
  if (name) return { says: action, name }
  const field = FIELDS[action]
  if (field) return { says: action, ...field }
  const [, quoted, plain] = LABEL.exec(action) ?? []
  const label = quoted ?? plain
  if (label !== undefined) return { says: action, prefix: `k8s:pod-label:${label}:`, never: '' }
  const known = [...Object.keys(NAMES), ...Object.keys(FIELDS), 'index .PodMeta.Labels "KEY"']
  throw new Fault(
    'policy_invalid',
    `{{ ${action.slice(0, 64)} }} is not supported${meant(action, known)}: wanted one of ${known.join(', ')}`,
  )
}

/** A template of SPIFFE IDs: its trust domain is fixed, and no two values meet in one segment. Throws policy_invalid. */
export function parseIdTemplate(text: string): Template {
  const template = parseTemplate(text)
  const [segments, scheme] = [segmentsOf(template), 'spiffe://']
  if (!text.startsWith(scheme)) throw invalid(text, `wanted ${scheme}{{ .TrustDomain }}/…`)
  const [domain = [], ...path] = segments
  if (path.length === 0) throw invalid(text, 'the SPIFFE ID of a workload needs a path')
  const [first] = domain
  const isNamed = typeof first === 'object' && 'name' in first && first.name === 'trustDomain'
  if (domain.length !== 1 || (typeof first !== 'string' && !isNamed))
    throw invalid(text, 'its trust domain is neither {{ .TrustDomain }} nor written out')
  for (const segment of path) checkSegment(text, segment)
  parseWorkloadId(sampleOf(template))
  return template
}

/** The parts between slashes; the first one is the trust domain. */
function segmentsOf({ parts }: Template): readonly (readonly Part[])[] {
  const segments: Part[][] = [[]]
  for (const [index, part] of parts.entries()) {
    if (typeof part !== 'string') {
      segments.at(-1)?.push(part)
      continue
    }
    const [first = '', ...more] = (index === 0 ? part.replace(/^spiffe:\/\//, '') : part).split('/')
    segments.at(-1)?.push(first)
    for (const text of more) segments.push([text])
  }
  return segments.map((segment) => segment.filter((part) => part !== ''))
}

/** `a` + `b-c` and `a-b` + `c` must not be one: what stands between two values is no part of the first. */
function checkSegment(text: string, segment: readonly Part[]): void {
  let before: Reference | undefined
  let between = ''
  for (const part of segment) {
    if (typeof part === 'string') between += part
    else if ('prefix' in part) {
      const { never = '' } = before ?? {}
      if (before && ![...between].some((each) => never.includes(each))) {
        const why = `${before.says} and ${part.says} in one segment could be read in two ways`
        throw invalid(text, `${why}: give each a segment of its own`)
      }
      before = part
      between = ''
    }
  }
}

/** With a word in place of each value: its literal parts must be valid where they stand. */
function sampleOf({ parts }: Template): string {
  return parts.map((part) => (typeof part === 'string' ? part : 'x')).join('')
}

/** Whether `caller`, a SPIFFE ID or a prefix ending in slash and two stars, may be one that `template` becomes. */
export function mayBecome(template: Template, names: TemplateNames, caller: string): boolean {
  const [domain = [], ...path] = segmentsOf(template)
  const forms = [domain, ...path].map(
    (segment) => new RegExp(`^${segment.map((part) => formOf(part, names)).join('')}$`),
  )
  const steps = stemOf(caller).slice('spiffe://'.length).split('/')
  const isLong = isPrefix(caller) ? steps.length <= forms.length : steps.length === forms.length
  return isLong && steps.every((step, index) => forms[index]?.test(step))
}

function formOf(part: Part, names: TemplateNames): string {
  const literal = typeof part === 'string' ? part : 'name' in part ? (names[part.name] ?? '') : undefined
  return literal === undefined ? '[A-Za-z0-9._-]+' : literal.replace(/[.*+?^${}()|[\]\\-]/g, '\\$&')
}

/** The names that `template` refers to and this installation does not have. */
export function unnamed({ parts }: Template, names: TemplateNames): readonly string[] {
  return parts.flatMap((part) =>
    typeof part === 'object' && 'name' in part && names[part.name] === undefined ? [part.says] : [],
  )
}

/** What values may be, so that they stay inside what they are filled into. */
const VALUES = {
  /** Part of a segment of a SPIFFE ID (SPIFFE-ID.md s.2.2). */
  segment: /^[A-Za-z0-9._-]{1,253}$/,
  /** Part of one label of a DNS name. */
  label: /^[a-z0-9-]{1,63}$/,
} as const

/** `template` filled in for a caller with `selectors`. */
export function fillTemplate(
  template: Template,
  selectors: ReadonlySet<Selector>,
  names: TemplateNames,
  values: keyof typeof VALUES = 'segment',
): Filled {
  let text = ''
  for (const part of template.parts) {
    if (typeof part === 'string') {
      text += part
      continue
    }
    const value = 'name' in part ? names[part.name] : soleValue(part.prefix, selectors)
    if (value === undefined) return { misfit: `${template.text}: the caller has no ${part.says}` }
    if (!('name' in part) && !VALUES[values].test(value))
      return { misfit: `${template.text}: ${part.says} of the caller cannot stand there` }
    text += value
  }
  return { text }
}

/** `template` as a SPIFFE ID; a value can neither add a segment nor be one that means another place. */
export function fillId(
  template: Template,
  selectors: ReadonlySet<Selector>,
  names: TemplateNames,
): { readonly id: SpiffeId } | { readonly misfit: string } {
  const filled = fillTemplate(template, selectors, names)
  if ('misfit' in filled) return filled
  try {
    return { id: parseWorkloadId(filled.text) }
  } catch {
    return { misfit: `${template.text}: becomes no SPIFFE ID` }
  }
}

/** The value of the one selector that begins with `prefix`; a caller with two has none. */
function soleValue(prefix: string, selectors: ReadonlySet<Selector>): string | undefined {
  let found: string | undefined
  for (const selector of selectors) {
    if (!selector.startsWith(prefix)) continue
    if (found !== undefined) return undefined
    found = selector.slice(prefix.length)
  }
  return found
}

function invalid(text: string, why: string): Fault {
  return new Fault('policy_invalid', `${JSON.stringify(text.slice(0, 128))} is not a template: ${why}`)
}
