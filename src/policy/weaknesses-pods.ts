/** What weakens entries of pods: labels, names, images and service accounts are chosen by whoever may create pods in some namespace. */
import type { Selector } from '../spiffe/selector.ts'
import type { Weakness } from './book.ts'
import type { Condition, EntryTemplate } from './entry-template.ts'
import { kindOf } from './selector-kind.ts'
import type { Statements } from './statements.ts'

const NAMESPACE = 'k8s:ns'
/** Kinds that one namespace alone can have: the API server makes UIDs. */
const BOUND: ReadonlySet<string> = new Set([NAMESPACE, 'k8s:pod-uid', 'k8s:pod-owner-uid'])

/** Kinds whose values are names of images: with a tag, or with a digest. */
const IMAGES: ReadonlySet<string> = new Set(['k8s:container-image', 'k8s:pod-image', 'k8s:pod-init-image'])

/** Entries that a pod of any namespace may get, and those that tell images apart by names that move. */
export function podWeaknesses(statements: Pick<Statements, 'entries' | 'templates'>): readonly Weakness[] {
  return [...looseEntries(statements), ...taggedEntries(statements)]
}

function taggedEntries({
  entries,
  templates,
}: Pick<Statements, 'entries' | 'templates'>): readonly Weakness[] {
  const all = [...entries, ...templates.map(({ selectors, settings }) => ({ ...settings, selectors }))]
  return all.flatMap(({ name, place, selectors }) => {
    const tagged = selectors.find((each) => IMAGES.has(kindOf(each)) && !each.includes('sha256:'))
    if (tagged === undefined) return []
    const message = `${tagged} names an image by its tag, which whoever may push it moves to another: name it by its digest`
    return [{ code: 'entry_image_tag', grade: 'weak' as const, subject: name, message, place }]
  })
}

function looseEntries({
  entries,
  templates,
}: Pick<Statements, 'entries' | 'templates'>): readonly Weakness[] {
  const loose = entries.filter(({ selectors }) => selectors.some(isOfPod) && !selectors.some(isBound))
  return [...loose, ...templates.filter(isLoose).map(({ settings }) => settings)].map(({ name, place }) => ({
    code: 'entry_any_namespace',
    grade: 'weak',
    subject: name,
    message:
      'it names no namespace (k8s:ns): whoever may create a pod anywhere may make one that gets this identity',
    place,
  }))
}

const isOfPod = (selector: Selector) => selector.startsWith('k8s:')
const isBound = (selector: Selector) => BOUND.has(kindOf(selector))

/** One whose SPIFFE ID has the namespace in it gives no namespace the identity of another. */
function isLoose({ id, selectors, conditions }: EntryTemplate): boolean {
  const isNamed = id.parts.some(
    (part) => typeof part === 'object' && 'prefix' in part && BOUND.has(part.prefix.slice(0, -1)),
  )
  return !isNamed && !selectors.some(isBound) && !conditions.some(limitsNamespaces)
}

/** None at all, where the namespaces are not known yet, is a limit too. */
function limitsNamespaces(condition: Condition): boolean {
  return condition.kind === 'some' && [...condition.of].every((selector) => kindOf(selector) === NAMESPACE)
}
