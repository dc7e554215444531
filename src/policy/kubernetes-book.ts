/**
 * Joins custom resources with policy files. One that is wrong, or that cannot stand beside older ones, is left out and
 * reported; what it stated before stays. Leaving out never widens: of a statement that may narrow nothing is forgotten.
 */
import type { Problem } from '../base/problem.ts'
import { allConflictsIn, conflictsIn } from './conflicts.ts'
import type { ClusterContext } from './kubernetes-entries.ts'
import { type ClusterObject, keyOf, type Namespaces, placeOf, record } from './kubernetes-object.ts'
import { type ObjectResult, readObject, wrongText } from './kubernetes-read.ts'
import { joinStatements, NO_STATEMENTS, type Statements } from './statements.ts'

/** The custom resources as they were last seen. */
export interface ClusterState {
  readonly objects: readonly ClusterObject[]
  readonly namespaces: Namespaces | undefined
  /** `unread`: never seen as a whole; `expired`: not seen for too long. */
  readonly condition: 'current' | 'unread' | 'expired'
}

/** What became of one object. */
export interface ObjectReport {
  readonly object: ClusterObject
  readonly isAccepted: boolean
  readonly message: string
}

export interface ClusterJoin {
  readonly statements: Statements
  readonly problems: readonly Problem[]
  /** All that was read, in one form: tells one state from another. */
  readonly text: string
  readonly isPartial: boolean
  readonly reports: readonly ObjectReport[]
}

type Read = Exclude<ObjectResult, { readonly wrong: unknown }>

interface Standing {
  readonly object: ClusterObject
  readonly read: Read
}

/** What each object stated when it was last right. */
export class ClusterMemory {
  readonly #good = new Map<string, Read>()

  /** Joins `files` with the objects of `state`; problems are those of files alone. */
  async join(
    files: readonly Statements[],
    state: ClusterState,
    context: ClusterContext,
  ): Promise<ClusterJoin> {
    const objects = [...state.objects].sort(byAge)
    const wrong = new Map<string, string>()
    const standing: Standing[] = []
    for (const object of objects) {
      const result = await readObject(object, context)
      const key = keyOf(object)
      if ('wrong' in result) wrong.set(key, wrongText(result.wrong))
      const read = 'wrong' in result ? this.#good.get(key) : result
      if (read) standing.push({ object, read })
    }
    const own = conflictsIn(joinStatements(files), context)
    const isPartial = state.condition === 'unread'
    if (own.length > 0) return { statements: NO_STATEMENTS, problems: own, text: '', isPartial, reports: [] }
    const kept = settle(files, standing, context, wrong)
    this.#remember(objects, kept, wrong)
    const statements = withStops(joined(files, expire(kept, state)), objects, wrong, kept, state)
    const text = textOf(state, kept)
    const notes = new Map(kept.map(({ object, read }) => [object, read.notes]))
    return {
      statements,
      problems: [],
      text,
      isPartial,
      reports: objects.map((object) => reportOf(object, wrong, notes)),
    }
  }

  #remember(
    objects: readonly ClusterObject[],
    kept: readonly Standing[],
    wrong: ReadonlyMap<string, string>,
  ): void {
    const present = new Set(objects.map(keyOf))
    for (const key of this.#good.keys()) if (!present.has(key)) this.#good.delete(key)
    for (const { object, read } of kept) if (!wrong.has(keyOf(object))) this.#good.set(keyOf(object), read)
  }
}

/** Without what changes although nothing is stated anew, such as times and versions. */
function textOf({ condition, namespaces }: ClusterState, kept: readonly Standing[]): string {
  const specs = kept.map(({ object }) => [keyOf(object), object.spec])
  return JSON.stringify([condition, specs, [...(namespaces ?? [])].sort(([a], [b]) => a.localeCompare(b))])
}

/** Older objects first: a newer one does not push an older one out. */
function byAge(a: ClusterObject, b: ClusterObject): number {
  return a.created.localeCompare(b.created) || keyOf(a).localeCompare(keyOf(b))
}

function joined(files: readonly Statements[], standing: readonly Standing[]): Statements {
  const own = joinStatements([...files, ...standing.map(({ read }) => read.statements)])
  return { ...own, application: withGrants(own.application, standing) }
}

/** Grants of namespaces stand beside each other and beside those of files and ClusterPolicies. */
function withGrants(
  application: Statements['application'],
  standing: readonly Standing[],
): Statements['application'] {
  const byName = new Map(application.map((target) => [target.name, target]))
  for (const target of standing.flatMap(({ read }) => read.granted)) {
    const known = byName.get(target.name)
    byName.set(target.name, known ? { ...known, grants: [...known.grants, ...target.grants] } : target)
  }
  // Two statements of one target in files are a conflict: they stay, to be found as one.
  const twice = application.filter(
    (target, index) => application.findIndex(({ name }) => name === target.name) !== index,
  )
  return [...byName.values(), ...twice]
}

/** Leaves out what cannot stand together: what the conflict is found at, else the newest of the cluster's statements. */
function settle(
  files: readonly Statements[],
  all: readonly Standing[],
  context: ClusterContext,
  wrong: Map<string, string>,
): readonly Standing[] {
  let standing = all
  for (;;) {
    const problems = allConflictsIn(joined(files, standing), context)
    if (problems.length === 0) return standing
    const found = new Map(problems.map(({ file, message }) => [file, message]))
    const named = standing.filter(({ object }) => found.has(placeOf(object).file))
    const newest = standing.findLast(({ object }) => object.kind === 'ClusterPolicy') ?? standing.at(-1)
    const out = named.length > 0 ? named : newest ? [newest] : []
    if (out.length === 0) return standing
    for (const { object } of out) {
      const key = keyOf(object)
      const message = found.get(key) ?? problems[0]?.message ?? ''
      wrong.set(key, wrong.get(key) ?? message)
    }
    const gone = new Set(out)
    standing = standing.filter((each) => !gone.has(each))
  }
}

/** What the API server has not confirmed for too long gives nothing any more; what it denies stays. */
function expire(standing: readonly Standing[], { condition }: ClusterState): readonly Standing[] {
  if (condition !== 'expired') return standing
  return standing.map(({ object, read }) => ({
    object,
    read: { ...read, granted: [], statements: { ...NO_STATEMENTS, denials: read.statements.denials } },
  }))
}

const CLUSTER = { file: 'cluster', line: 0 } as const

/** Stops what a statement that is missing might have stopped. */
function withStops(
  statements: Statements,
  objects: readonly ClusterObject[],
  wrong: ReadonlyMap<string, string>,
  kept: readonly Standing[],
  { condition }: ClusterState,
): Statements {
  const standing = new Set(kept.map(({ object }) => keyOf(object)))
  const lost = objects.filter((object) => wrong.has(keyOf(object)) && !standing.has(keyOf(object)))
  const closed = lost.find(
    ({ kind, spec }) => kind === 'ClusterPolicy' && record(spec)['layer'] === 'security',
  )
  const stop = (why: string) => ({
    spiffeId: undefined,
    target: undefined,
    why,
    until: undefined,
    place: CLUSTER,
  })
  const stops = [
    ...(condition === 'unread' ? [stop('the policy of the cluster has not been read yet')] : []),
    ...(closed ? [stop(`${keyOf(closed)} is of layer security and cannot be read`)] : []),
  ]
  const texts = new Set(lost.map(({ spec }) => record(spec)['spiffeIDTemplate'] ?? record(spec)['spiffeID']))
  const entriesLost = lost.some(({ kind }) => kind === 'ClusterSPIFFEID' || kind === 'ClusterStaticEntry')
  const deliver = { x509: false, jwt: false, wit: false }
  return {
    ...statements,
    denials: [...stops, ...statements.denials],
    entries: statements.entries.map((entry) => (texts.has(entry.spiffeId) ? { ...entry, deliver } : entry)),
    templates: statements.templates
      // Whom a lost entry would have fitted is not known: nobody falls back.
      .filter(({ isFallback }) => !(isFallback && entriesLost))
      .map((each) => (texts.has(each.id.text) ? { ...each, settings: { ...each.settings, deliver } } : each)),
  }
}

function reportOf(
  object: ClusterObject,
  wrong: ReadonlyMap<string, string>,
  notes: ReadonlyMap<ClusterObject, readonly string[]>,
): ObjectReport {
  const message = wrong.get(keyOf(object))
  const standing = notes.get(object)
  if (message === undefined) return { object, isAccepted: true, message: (standing ?? []).join('; ') }
  const rest = standing ? ' (what it stated before stays in force)' : ''
  return { object, isAccepted: false, message: `${message}${rest}` }
}
