/** Loads policy: the files of a configuration become one rule book, or a list of everything that is wrong with them. */
import { createHash } from 'node:crypto'
import { readdirSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { PROBLEMS_LIMIT, type Problem, problemFault } from '../base/problem.ts'
import { readTrusted } from '../base/trusted.ts'
import { YAML_LIMIT } from '../base/yaml.ts'
import type { RuleBook } from './book.ts'
import { buildBook } from './build.ts'
import { conflictsIn } from './conflicts.ts'
import type { ClusterJoin } from './kubernetes-book.ts'
import { readPolicy } from './read.ts'
import { joinStatements, type PolicyContext, type PolicyText, type Statements } from './statements.ts'

export type PolicyResult = { readonly book: RuleBook } | { readonly problems: readonly Problem[] }

const FILES_LIMIT = 256

/** The rule book of `files` (see `policyFiles`); throws policy_invalid, policy_writable, entry_too_weak. */
export async function loadPolicy(
  files: readonly string[],
  context: PolicyContext,
  cluster?: PolicyCluster,
): Promise<RuleBook> {
  const result = await checkPolicy(files, context, cluster)
  if ('problems' in result) throw problemFault('policy_invalid', result.problems)
  return result.book
}

/** As loadPolicy, but with all problems at once. */
export async function checkPolicy(
  files: readonly string[],
  context: PolicyContext,
  cluster?: PolicyCluster,
): Promise<PolicyResult> {
  const texts: PolicyText[] = []
  const problems: Problem[] = []
  for (const file of policyFiles(files)) {
    try {
      texts.push({ file, text: readTrusted(file, { maxBytes: YAML_LIMIT }).toString('utf8') })
    } catch (error) {
      problems.push(fileProblem(file, error))
    }
  }
  if (problems.length > 0) return { problems: problems.slice(0, PROBLEMS_LIMIT) }
  return parsePolicy(texts, context, cluster)
}

/** The rule book of policy files given as texts. */
export async function parsePolicy(
  texts: readonly PolicyText[],
  context: PolicyContext,
  cluster?: PolicyCluster,
): Promise<PolicyResult> {
  const read: Statements[] = []
  const problems: Problem[] = []
  for (const { file, text } of texts) {
    const result = await readPolicy(file, text, context)
    if ('problems' in result) problems.push(...result.problems)
    else read.push(result.statements)
  }
  if (cluster && problems.length === 0) return joinCluster(read, texts, context, cluster)
  const statements = joinStatements(read)
  problems.push(...conflictsIn(statements, context))
  if (problems.length > 0) return { problems: problems.slice(0, PROBLEMS_LIMIT) }
  return { book: buildBook(statements, { hash: hashOf(texts), now: context.now }) }
}

/** What stands beside the files: the custom resources of a cluster. */
export interface PolicyCluster {
  join(files: readonly Statements[], context: PolicyContext): Promise<ClusterJoin>
}

async function joinCluster(
  read: readonly Statements[],
  texts: readonly PolicyText[],
  context: PolicyContext,
  cluster: PolicyCluster,
): Promise<PolicyResult> {
  const { statements, problems, text, isPartial } = await cluster.join(read, context)
  if (problems.length > 0) return { problems }
  const hash = hashOf([...texts, { file: 'cluster', text }])
  return { book: buildBook(statements, { hash, now: context.now, isPartial }) }
}

/**
 * The files that `patterns` name, sorted within each: a file, a directory (its `*.yaml` and `*.yml`), or a pattern
 * with stars in its last part. Names that begin with a dot are left out: volumes keep their bookkeeping there.
 */
export function policyFiles(patterns: readonly string[]): readonly string[] {
  const files = new Set(patterns.flatMap(filesOf))
  if (files.size > FILES_LIMIT) throw new Fault('policy_invalid', `over ${FILES_LIMIT} policy files`)
  return [...files]
}

const YAML_NAME = /^[^.].*\.ya?ml$/s

function filesOf(pattern: string): readonly string[] {
  const last = basename(pattern)
  if (last.includes('*')) {
    const parts = last.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
    return listed(dirname(pattern), new RegExp(`^(?!\\.)${parts.join('[^/]*')}$`, 's'))
  }
  return isDirectory(pattern) ? listed(pattern, YAML_NAME) : [pattern]
}

function listed(directory: string, names: RegExp): readonly string[] {
  try {
    return readdirSync(directory)
      .filter((name) => names.test(name))
      .sort()
      .map((name) => join(directory, name))
  } catch (error) {
    throw new Fault('policy_invalid', `${directory}: the directory cannot be read`, { cause: error })
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}

function fileProblem(file: string, error: unknown): Problem {
  const fault = Fault.from(error)
  const message = fault.message.startsWith(`${file}: `) ? fault.message.slice(file.length + 2) : fault.message
  return {
    file,
    line: 0,
    message,
    reason: fault.reason === 'config_invalid' ? 'policy_invalid' : fault.reason,
  }
}

/** Which policy decided: 16 hex characters over names and texts. */
function hashOf(texts: readonly PolicyText[]): string {
  const hash = createHash('sha256')
  for (const { file, text } of texts) hash.update(JSON.stringify([basename(file), text]))
  return hash.digest('hex').slice(0, 16)
}
