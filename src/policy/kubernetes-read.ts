/** Reads one custom resource: what it states, or what is wrong with it. */
import { Fault } from '../base/fault.ts'
import type { Problem } from '../base/problem.ts'
import { checkShape } from '../base/shape.ts'
import type { YamlFile } from '../base/yaml.ts'
import { idOfTrustDomain } from '../spiffe/id.ts'
import { makeSelector } from '../spiffe/selector.ts'
import { type ClusterContext, staticEntryOf, templateOf } from './kubernetes-entries.ts'
import { type ClusterObject, placeOf, record } from './kubernetes-object.ts'
import { readParsed } from './read.ts'
import { NO_STATEMENTS, type Statements } from './statements.ts'

export type ObjectResult =
  /** `granted`: grants that stand in a namespace; other statements about their targets do not exclude them. */
  | {
      readonly statements: Statements
      readonly granted: Statements['application']
      readonly notes: readonly string[]
    }
  | { readonly wrong: readonly Wrong[] }

/** What is wrong; the line from 1 where `lineOf` knows it, else 0. */
export type Wrong = Pick<Problem, 'line' | 'message'>

/** What `object` states; `lineOf` finds lines of its spec where there are any. Loads zod. */
export async function readObject(
  object: ClusterObject,
  context: ClusterContext,
  lineOf: YamlFile['lineOf'] = () => 0,
): Promise<ObjectResult> {
  const place = placeOf(object)
  const yaml: YamlFile = { file: place.file, value: object.spec, lineOf }
  const { CLUSTER_SPIFFE_ID, CLUSTER_STATIC_ENTRY } = await import('./kubernetes-schema.ts')
  try {
    switch (object.kind) {
      case 'ClusterSPIFFEID': {
        const shaped = checkShape(CLUSTER_SPIFFE_ID, yaml)
        if ('problems' in shaped) return wrong(shaped.problems)
        return stated(templateOf(shaped.value, place, context), deliverNotes(shaped.value))
      }
      case 'ClusterStaticEntry': {
        const shaped = checkShape(CLUSTER_STATIC_ENTRY, yaml)
        if ('problems' in shaped) return wrong(shaped.problems)
        return stated(staticEntryOf(shaped.value, place, context), deliverNotes(shaped.value))
      }
      case 'ClusterPolicy': {
        const relative = relativeFile(object.spec)
        if (relative !== undefined)
          return wrongAs(`${relative}: a file of the agents has an absolute path here`)
        const read = await readParsed(yaml, context)
        return 'problems' in read ? wrong(read.problems) : stated(read.statements)
      }
      case 'Grant':
        return await readGrant(object, yaml, context)
    }
  } catch (error) {
    return wrongAs(Fault.from(error).message)
  }
}

function stated(statements: Statements, notes: readonly string[] = []): ObjectResult {
  return { statements, granted: [], notes }
}

function wrong(problems: readonly Problem[]): ObjectResult {
  return { wrong: problems.map(({ line, message }) => ({ line, message })) }
}

function wrongAs(...messages: readonly string[]): ObjectResult {
  return { wrong: messages.map((message) => ({ line: 0, message })) }
}

/** Nothing is delivered that nobody has stated: the object says so itself. */
function deliverNotes({ deliver }: { readonly deliver?: unknown }): readonly string[] {
  return deliver === undefined ? ['deliver is not stated: no SVID is delivered, the agent signs only'] : []
}

/** Application's statements of one namespace: only for its own workloads. */
async function readGrant(
  { namespace, spec }: ClusterObject,
  yaml: YamlFile,
  context: ClusterContext,
): Promise<ObjectResult> {
  const stray = Object.keys(record(spec)).find((member) => member !== 'targets')
  if (stray !== undefined) return wrongAs(`unknown key ${JSON.stringify(stray)}: wanted targets`)
  const { GRANT_BOUNDS } = await import('./kubernetes-schema.ts')
  const bounded = checkShape(GRANT_BOUNDS, yaml)
  if ('problems' in bounded) return wrong(bounded.problems)
  const read = await readParsed({ ...yaml, value: { layer: 'application', ...record(spec) } }, context)
  if ('problems' in read) return wrong(read.problems)
  const { application } = read.statements
  const home = `${idOfTrustDomain(context.trustDomain)}/ns/${namespace}/`
  const grants = application.flatMap((target) => target.grants)
  const strangers = grants.flatMap(({ callers }) => callers.filter((caller) => !caller.startsWith(home)))
  if (strangers.length > 0)
    return wrongAs(
      ...strangers
        .slice(0, 3)
        .map((caller) => `the caller ${caller} is not of this namespace: wanted ${home}…`),
    )
  if (grants.some(({ isProbe }) => isProbe))
    return wrongAs('probe: true is for policy files and ClusterPolicy')
  const only = makeSelector('k8s:ns', namespace)
  const granted = application.map((target) => ({
    ...target,
    grants: target.grants.map((grant) => ({ ...grant, only })),
  }))
  return { statements: NO_STATEMENTS, granted, notes: [] }
}

/** The path of a file in `spec` that is not absolute: there is no directory that it could be relative to. */
function relativeFile(spec: unknown): string | undefined {
  for (const [name, value] of Object.entries(record(spec))) {
    if (name === 'file' && typeof value === 'string' && !value.startsWith('/'))
      return `file ${JSON.stringify(value)}`
    const below = relativeFile(value)
    if (below !== undefined) return below
  }
  return undefined
}

/** One line for logs and conditions. */
export function wrongText(problems: readonly Wrong[]): string {
  return problems
    .map(({ message }) => message)
    .join('; ')
    .slice(0, 1024)
}
