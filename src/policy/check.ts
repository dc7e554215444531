/** What `policy check` says of a set of files: what is wrong, what is weak, and where layers are silent. */
import type { Problem } from '../base/problem.ts'
import type { RuleBook, Weakness } from './book.ts'
import type { Place } from './entry.ts'
import { checkPolicy } from './load.ts'
import { type CheckedObject, ManifestCluster, type ManifestOptions } from './manifest-cluster.ts'
import type { Manifests } from './manifests.ts'
import { isMatch } from './pattern.ts'
import { type PolicyContext, placeText } from './statements.ts'
import { mayBecome } from './template.ts'

export interface PolicyReview {
  /** Whether the files load and nothing in them is graded insecure. */
  readonly passed: boolean
  readonly problems: readonly Problem[]
  readonly weaknesses: readonly Weakness[]
  /** Sentences about what will never be allowed. */
  readonly notes: readonly string[]
  readonly book: RuleBook | undefined
  /** Custom resources among the files, with what is wrong with each. */
  readonly objects: readonly CheckedObject[]
}

/** Custom resources that stand beside policy files, and the settings that they are read with. */
export interface ReviewedManifests extends ManifestOptions {
  readonly manifests: Manifests
}

/** Reads `files` as the agent would, without loading them into one; beside a cluster with these `resources`. */
export async function reviewPolicy(
  files: readonly string[],
  context: PolicyContext,
  resources?: ReviewedManifests,
): Promise<PolicyReview> {
  const cluster = resources && new ManifestCluster(resources.manifests, resources)
  const result = await checkPolicy(files, context, cluster)
  const objects = cluster?.checked ?? []
  const unread = resources?.manifests.problems ?? []
  if ('problems' in result) {
    const problems = [...result.problems, ...unread]
    const notes = resources ? ['no custom resource was checked: the policy files have to stand first'] : []
    return { passed: false, problems, weaknesses: [], notes, book: undefined, objects }
  }
  const { book } = result
  const placeIn = (place: Place) => cluster?.placeOf(place) ?? place
  const weaknesses = book.weaknesses.map((each) => ({ ...each, place: placeIn(each.place) }))
  const isInsecure = weaknesses.some(({ grade }) => grade === 'insecure')
  const isRefused = unread.length > 0 || objects.some(({ problems }) => problems.length > 0)
  const notes = [...notesOn(book), ...(cluster?.notes ?? []), ...notesOf(objects)]
  return { passed: !isInsecure && !isRefused, problems: unread, weaknesses, notes, book, objects }
}

function notesOf(objects: readonly CheckedObject[]): readonly string[] {
  return objects
    .filter(({ note }) => note !== '')
    .map(({ name, place, note }) => `${placeText(place)}: ${name}: ${note}`)
}

/** Targets that a layer is silent about, callers that no entry makes, and statements about what nobody names. */
export function notesOn(book: RuleBook): readonly string[] {
  const targets = [...book.targets.values()]
  const silent = targets.flatMap((target) =>
    (['identity', 'platform', 'application'] as const)
      .filter((layer) => target[layer] === undefined)
      .map((layer) => `${target.name}: layer ${layer} is silent, so nothing is allowed`),
  )
  const ids = new Set<string>(book.entries.map((entry) => entry.spiffeId))
  const callers = new Set(
    targets.flatMap((target) => target.application?.grants.flatMap((grant) => grant.callers) ?? []),
  )
  const unknown = [...callers]
    .filter((caller) => !ids.has(caller) && ![...ids].some((id) => isMatch(caller, id)))
    .filter((caller) => !book.templates.some(({ id, names }) => mayBecome(id, names, caller)))
    .map((caller) => `no entry gives the caller ${caller}`)
  return [...silent, ...unknown, ...idleStatements(book)]
}

/** What platform and security say of servers and targets that identity does not have: mostly slips of the pen. */
function idleStatements(book: RuleBook): readonly string[] {
  const targets = [...book.targets.values()]
  const stated = targets.flatMap(({ identity }) => (identity?.server ? [identity.server] : []))
  const issuers = new Set([...book.servers.values(), ...stated].map(({ issuer }) => issuer))
  const servers = book.serverPlatforms
    .filter(({ issuer }) => !issuers.has(issuer))
    .map(({ issuer }) => `platform states how to reach ${issuer}, which no identity file names`)
  const exceptions = book.exceptions
    .filter(({ target }) => !book.targets.get(target)?.identity?.binding.includes('bearer'))
    .map(({ target }) => `the exception for ${target} is not used: its binding is not bearer`)
  return [...servers, ...exceptions]
}
