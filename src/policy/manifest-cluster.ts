/** Manifests in place of a cluster: joined with policy files as the agent joins what the API server shows it. */
import type { Problem } from '../base/problem.ts'
import type { Place } from './entry.ts'
import { type ClusterJoin, ClusterMemory, type ObjectReport } from './kubernetes-book.ts'
import { type ClassOptions, isOurs } from './kubernetes-class.ts'
import type { ClusterContext } from './kubernetes-entries.ts'
import { type ClusterObject, keyOf, placeOf, record } from './kubernetes-object.ts'
import { readObject } from './kubernetes-read.ts'
import type { PolicyCluster } from './load.ts'
import type { ManifestObject, Manifests } from './manifests.ts'
import type { PolicyContext, Statements } from './statements.ts'

const NAME_LIMIT = 253

/** What decides about objects besides policy: settings of the agent. */
export interface ManifestOptions extends ClassOptions {
  /** Whether every label of a pod is a selector. */
  readonly allLabels: boolean
}

/** What became of one object in a check. */
export interface CheckedObject {
  /** `Grant shop/orders` */
  readonly name: string
  readonly place: Place
  /** Empty when it is accepted. */
  readonly problems: readonly Problem[]
  /** What it says of itself although it is accepted. */
  readonly note: string
}

/** See above: for one load. */
export class ManifestCluster implements PolicyCluster {
  readonly #manifests: Manifests
  readonly #options: ManifestOptions
  readonly #byKey: ReadonlyMap<string, ManifestObject>
  #checked: readonly CheckedObject[] = []

  constructor(manifests: Manifests, options: ManifestOptions) {
    this.#manifests = manifests
    this.#options = options
    this.#byKey = new Map(manifests.objects.map((each) => [keyOf(each.object), each]))
  }

  /** After `join`; empty when the policy files cannot stand by themselves. */
  get checked(): readonly CheckedObject[] {
    return this.#checked
  }

  /** Sentences about what is not read, or is another agent's. */
  get notes(): readonly string[] {
    const foreign = this.#manifests.objects.filter(({ object }) => !this.#isOurs(object))
    return [
      ...this.#manifests.notes,
      ...foreign.map(({ object }) => `${keyOf(object)} is of another class: not read by this agent`),
      ...this.#unseen.map((name) => `no file has a Namespace: the namespaceSelector of ${name} selects none`),
    ]
  }

  /** Objects that ask for labels of namespaces, where nobody knows them. */
  get #unseen(): readonly string[] {
    const { namespaces, objects } = this.#manifests
    if (namespaces) return []
    const asking = objects.filter(({ object }) => record(object.spec)['namespaceSelector'] !== undefined)
    return asking.map(({ object }) => keyOf(object))
  }

  async join(files: readonly Statements[], given: PolicyContext): Promise<ClusterJoin> {
    const { allLabels } = this.#options
    const { objects, namespaces } = this.#manifests
    const ours = objects.map(({ object }) => object).filter((object) => this.#isOurs(object))
    const context = { ...given, namespaces, allLabels }
    const state = { objects: ours, namespaces, condition: 'current' } as const
    const joined = await new ClusterMemory().join(files, state, context)
    this.#checked = await Promise.all(joined.reports.map((report) => this.#check(report, context)))
    return joined
  }

  /** Where a statement about an object stands: in its manifest. */
  placeOf(place: Place): Place {
    return (place.line === 0 && this.#byKey.get(place.file)?.place) || place
  }

  /** What is no name of a class is nobody else's: it is read, and refused. */
  #isOurs(object: ClusterObject): boolean {
    const { className = '' } = record(object.spec)
    return typeof className !== 'string' || className.length > NAME_LIMIT || isOurs(object, this.#options)
  }

  async #check(
    { object, isAccepted, message }: ObjectReport,
    context: ClusterContext,
  ): Promise<CheckedObject> {
    const name = keyOf(object)
    const place = this.placeOf(placeOf(object))
    if (isAccepted) return { name, place, problems: [], note: message }
    const read = await readObject(object, context, this.#byKey.get(name)?.lineOf)
    const wrong = 'wrong' in read ? read.wrong : [{ line: 0, message }]
    const problems = wrong.map((each) => ({
      file: place.file,
      line: each.line || place.line,
      message: `${name}: ${each.message}`,
    }))
    return { name, place, problems, note: '' }
  }
}
