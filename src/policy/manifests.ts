/** Manifests: files with custom resources as `kubectl apply` takes them, read for a check without a cluster. */
import { PROBLEMS_LIMIT, type Problem } from '../base/problem.ts'
import { checkShape } from '../base/shape.ts'
import type { Path, YamlFile } from '../base/yaml.ts'
import { parseYamlDocuments } from '../base/yaml-documents.ts'
import type { Place } from './entry.ts'
import {
  API_GROUP,
  API_VERSION,
  type ClusterObject,
  keyOf,
  type Namespaces,
  PLURALS,
  parseNamespace,
  parseObject,
  record,
} from './kubernetes-object.ts'
import { type PolicyText, placeText } from './statements.ts'

/** An object and where its manifest stands. */
export interface ManifestObject {
  readonly object: ClusterObject
  readonly place: Place
  /** The line of what is at a path of its spec. */
  readonly lineOf: YamlFile['lineOf']
}

export interface Manifests {
  readonly objects: readonly ManifestObject[]
  /** Absent: none of the files has a Namespace. */
  readonly namespaces: Namespaces | undefined
  /** What keeps a document from being an object at all. */
  readonly problems: readonly Problem[]
  /** Sentences about what was not read. */
  readonly notes: readonly string[]
}

const OBJECTS_LIMIT = 20_000
const MANIFEST = /(?:^|[{,])[ \t]*["']?apiVersion["']?[ \t]*:/m

/** Whether `text` is written for the API server rather than for the agent. */
export function isManifest(text: string): boolean {
  return MANIFEST.test(text)
}

/** The custom resources in `files`. Loads zod. */
export async function readManifests(files: readonly PolicyText[]): Promise<Manifests> {
  const { CUSTOM_RESOURCE } = await import('./kubernetes-schema.ts')
  const reading = new Reading(CUSTOM_RESOURCE)
  for (const { file, text } of files) {
    const { documents, problems } = await parseYamlDocuments(file, text)
    reading.problems.push(...problems)
    for (const document of documents) reading.document(document)
  }
  return reading.result()
}

class Reading {
  readonly problems: Problem[] = []
  readonly #schema: Parameters<typeof checkShape>[0]
  readonly #objects = new Map<string, ManifestObject>()
  readonly #namespaces = new Map<string, Readonly<Record<string, string>>>()
  readonly #others = new Map<string, number>()

  constructor(schema: Parameters<typeof checkShape>[0]) {
    this.#schema = schema
  }

  /** One document: an object, or a list of them as `kubectl get -o yaml` writes it. */
  document(yaml: YamlFile): void {
    const { kind, apiVersion, items } = record(yaml.value)
    const isList = typeof kind === 'string' && kind.endsWith('List') && Array.isArray(items)
    if (!isList) this.#object(yaml)
    else if (kind !== 'List' && !String(apiVersion).startsWith(`${API_GROUP}/`)) this.#countOther(kind)
    else for (const index of items.keys()) this.#object(below(yaml, ['items', index]))
  }

  result(): Manifests {
    const others = [...this.#others].map(([kind, count]) => `${count} ${kind}`)
    return {
      objects: [...this.#objects.values()],
      namespaces: this.#namespaces.size > 0 ? this.#namespaces : undefined,
      problems: this.problems.slice(0, PROBLEMS_LIMIT),
      notes: others.length > 0 ? [`other kinds are not read: ${others.slice(0, 16).join(', ')}`] : [],
    }
  }

  #object(yaml: YamlFile): void {
    const wrong = this.#take(yaml)
    if (wrong !== undefined)
      this.problems.push({ file: yaml.file, line: yaml.lineOf(['kind']), message: wrong })
  }

  /** Takes what `yaml` is, or says why it is nothing. */
  #take(yaml: YamlFile): string | undefined {
    const { apiVersion, kind } = record(yaml.value)
    if (typeof apiVersion !== 'string' || typeof kind !== 'string')
      return 'apiVersion and kind are missing: a policy file stands alone'
    const isKnown = Object.hasOwn(PLURALS, kind)
    if (apiVersion.startsWith(`${API_GROUP}/`)) {
      if (apiVersion !== API_VERSION)
        return `apiVersion: is ${JSON.stringify(apiVersion)}, wanted ${API_VERSION}`
      if (!isKnown) return `kind: is ${JSON.stringify(kind)}, wanted ${Object.keys(PLURALS).join(' or ')}`
      return this.#takeOurs(yaml)
    }
    const namespace = apiVersion === 'v1' && kind === 'Namespace' ? parseNamespace(yaml.value) : undefined
    if (namespace) this.#namespaces.set(namespace.name, namespace.labels)
    else this.#countOther(isKnown ? `${kind} of ${apiVersion}` : kind)
    return undefined
  }

  #takeOurs(yaml: YamlFile): string | undefined {
    const shaped = checkShape(this.#schema, yaml)
    if ('problems' in shaped) {
      this.problems.push(...shaped.problems)
      return undefined
    }
    const object = parseObject(withoutNulls(yaml.value))
    if (!object) return 'is no custom resource of ours'
    if (object.kind === 'Grant' && object.namespace === '')
      return `metadata.namespace: is missing: Grant ${object.name} stands in a namespace`
    const before = this.#objects.get(keyOf(object))
    if (before) return `${keyOf(object)} is there twice; first at ${placeText(before.place)}`
    if (this.#objects.size >= OBJECTS_LIMIT) return `over ${OBJECTS_LIMIT} objects`
    const place = { file: yaml.file, line: yaml.lineOf(['kind']) }
    this.#objects.set(keyOf(object), { object, place, lineOf: (path) => yaml.lineOf(['spec', ...path]) })
    return undefined
  }

  #countOther(kind: string): void {
    if (this.#others.size < 1_000) this.#others.set(kind, (this.#others.get(kind) ?? 0) + 1)
  }
}

/** What stands at `path` of `yaml`, as a document of its own. */
function below(yaml: YamlFile, path: Path): YamlFile {
  let value = yaml.value
  for (const step of path) value = (value as Readonly<Record<PropertyKey, unknown>>)[step]
  return { file: yaml.file, value, lineOf: (further) => yaml.lineOf([...path, ...further]) }
}

/** Tools write `creationTimestamp: null` into objects that have never been applied. */
function withoutNulls(value: unknown): unknown {
  const { metadata, ...rest } = record(value)
  const given = Object.entries(record(metadata)).filter(([, each]) => each !== null)
  return { ...rest, metadata: Object.fromEntries(given) }
}
