/** Custom resources of the cluster as objects: what kinds there are, and what of an object is read. */
import type { Place } from './entry.ts'

/** The group and version of our custom resources. */
export const API_GROUP = 'holdfast.dev'
export const API_VERSION = `${API_GROUP}/v1alpha1`

/** `Grant` stands in a namespace; the others are the cluster's. */
export type ObjectKind = 'ClusterSPIFFEID' | 'ClusterStaticEntry' | 'ClusterPolicy' | 'Grant'

/** The name of a kind in paths of the API. */
export const PLURALS: Readonly<Record<ObjectKind, string>> = {
  ClusterSPIFFEID: 'clusterspiffeids',
  ClusterStaticEntry: 'clusterstaticentries',
  ClusterPolicy: 'clusterpolicies',
  Grant: 'grants',
}

/** One custom resource; `spec` is as it came. */
export interface ClusterObject {
  readonly kind: ObjectKind
  /** Empty for a kind that is the cluster's. */
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly generation: number
  /** As the API server wrote it; older objects go before newer ones. */
  readonly created: string
  readonly spec: unknown
  /** The condition `Accepted` as it stands in its status. */
  readonly accepted: Condition | undefined
}

export interface Condition {
  readonly status: string
  readonly message: string
  readonly observedGeneration: number
}

/** Labels of namespaces, by name. */
export type Namespaces = ReadonlyMap<string, Readonly<Record<string, string>>>

const NAME = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/

/** The object in `value`, or undefined when it is none of ours. */
export function parseObject(value: unknown): ClusterObject | undefined {
  const { apiVersion, kind, metadata, spec, status } = record(value)
  const { name, namespace = '', uid = '', generation = 0, creationTimestamp = '' } = record(metadata)
  if (apiVersion !== API_VERSION || typeof kind !== 'string' || !Object.hasOwn(PLURALS, kind))
    return undefined
  if (typeof name !== 'string' || !NAME.test(name) || typeof namespace !== 'string') return undefined
  return {
    kind: kind as ObjectKind,
    namespace: kind === 'Grant' ? namespace : '',
    name,
    uid: String(uid),
    generation: Number(generation),
    created: String(creationTimestamp),
    spec: spec ?? {},
    accepted: conditionOf(status),
  }
}

function conditionOf(status: unknown): Condition | undefined {
  const { conditions } = record(status)
  if (!Array.isArray(conditions)) return undefined
  const found = conditions.map(record).find(({ type }) => type === 'Accepted')
  if (!found) return undefined
  const { status: state, message, observedGeneration } = found
  return { status: String(state), message: String(message), observedGeneration: Number(observedGeneration) }
}

/** The namespace in `value` with its labels. */
export function parseNamespace(
  value: unknown,
): { readonly name: string; readonly labels: Readonly<Record<string, string>> } | undefined {
  const { name, labels } = record(record(value)['metadata'])
  if (typeof name !== 'string' || !NAME.test(name)) return undefined
  const given = Object.entries(record(labels)).filter(
    (pair): pair is [string, string] => typeof pair[1] === 'string',
  )
  return { name, labels: { ...Object.fromEntries(given), 'kubernetes.io/metadata.name': name } }
}

/** Names the object on this cluster: `Grant shop/orders`. */
export function keyOf({ kind, namespace, name }: Pick<ClusterObject, 'kind' | 'namespace' | 'name'>): string {
  return namespace === '' ? `${kind} ${name}` : `${kind} ${namespace}/${name}`
}

export function placeOf(object: ClusterObject): Place {
  return { file: keyOf(object), line: 0 }
}

export function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {}
}
