/** What `policy check` says of a set of files: what is wrong, what is weak, and where layers are silent. */
import type { Problem } from '../base/problem.ts'
import type { RuleBook, Weakness } from './book.ts'
import { checkPolicy } from './load.ts'
import { isMatch } from './pattern.ts'
import type { PolicyContext } from './statements.ts'
import { mayBecome } from './template.ts'

export interface PolicyReview {
  /** Whether the files load and nothing in them is graded insecure. */
  readonly passed: boolean
  readonly problems: readonly Problem[]
  readonly weaknesses: readonly Weakness[]
  /** Sentences about what will never be allowed. */
  readonly notes: readonly string[]
  readonly book: RuleBook | undefined
}

/** Reads `files` as the agent would, without loading them into one. */
export async function reviewPolicy(files: readonly string[], context: PolicyContext): Promise<PolicyReview> {
  const result = await checkPolicy(files, context)
  if ('problems' in result) {
    return { passed: false, problems: result.problems, weaknesses: [], notes: [], book: undefined }
  }
  const { book } = result
  const passed = !book.weaknesses.some((weakness) => weakness.grade === 'insecure')
  return { passed, problems: [], weaknesses: book.weaknesses, notes: notesOn(book), book }
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
