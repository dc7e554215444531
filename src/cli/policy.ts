/** `holdfast policy check` and `policy test`: what the agent would say of policy files, without an agent. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { printable } from '../base/fault.ts'
import { problemText } from '../base/problem.ts'
import { type Config, devConfig, loadConfig } from '../config.ts'
import type { Weakness } from '../policy/book.ts'
import { type PolicyReview, reviewPolicy } from '../policy/check.ts'
import { loadPolicy, policyFiles } from '../policy/load.ts'
import { type PolicyContext, placeText } from '../policy/statements.ts'
import { type PolicyTestResult, runPolicyTests } from '../policy/tests.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import { agentDir, type Shown } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { policyContext } from './policy-context.ts'
import { counted, json, tinted } from './render.ts'

export interface PolicyOptions extends Shown {
  /** Names the files and the trust domain. */
  readonly config?: string
  readonly dir?: string
  readonly trustDomain?: string
  /** `warn`: a weak statement fails the check too. */
  readonly failOn?: 'error' | 'warn'
}

/** Everything that is wrong or weak in `files`. */
export async function checkFiles(
  files: readonly string[],
  options: PolicyOptions,
  io: Io,
): Promise<ExitCode> {
  const { paths, context } = await subjectOf(files, options, io)
  const review = await reviewPolicy(paths, context)
  const { passed, problems, weaknesses, notes } = review
  const count = policyFiles(paths).length
  io.out(
    options.output === 'json'
      ? json({ passed, problems, weaknesses, notes })
      : reviewText(review, count, io.isColored),
  )
  if (problems.length > 0) return EXIT.usage
  return passed && !(options.failOn === 'warn' && weaknesses.length > 0) ? EXIT.ok : EXIT.failed
}

/** Runs the tests that stand in `files`; throws policy_invalid when they do not load. */
export async function testFiles(files: readonly string[], options: PolicyOptions, io: Io): Promise<ExitCode> {
  const { paths, context } = await subjectOf(files, options, io)
  const results = runPolicyTests(await loadPolicy(paths, context))
  const passed = results.every((result) => result.passed)
  io.out(options.output === 'json' ? json({ passed, results }) : testsText(results, io.isColored))
  return passed ? EXIT.ok : EXIT.failed
}

interface Subject {
  readonly paths: readonly string[]
  readonly context: PolicyContext
}

/** Which files are meant: the named ones, those of a configuration, or those in the agent's directory. */
async function subjectOf(files: readonly string[], options: PolicyOptions, io: Io): Promise<Subject> {
  const config = options.config === undefined ? undefined : await loadConfig(options.config)
  const paths = files.length > 0 ? files : (config?.policy.files ?? [join(agentDir(options, io), 'policy')])
  const trustDomain = trustDomainOf(paths, options, config)
  const context = policyContext(config ?? devConfig(), () => io.now())
  // Without a configuration nobody has said what is on.
  const { attestation, hasHook, takesEvents } = config ? context : ({} as Partial<typeof context>)
  return { paths, context: { ...context, trustDomain, attestation, hasHook, takesEvents } }
}

function trustDomainOf(
  paths: readonly string[],
  options: PolicyOptions,
  config: Config | undefined,
): TrustDomain {
  if (options.trustDomain !== undefined) return parseTrustDomain(options.trustDomain)
  return config?.trustDomain ?? namedIn(paths) ?? devConfig().trustDomain
}

/** The trust domain of the first entry: files that are checked alone say nowhere else whose they are. */
function namedIn(paths: readonly string[]): TrustDomain | undefined {
  for (const path of policyFiles(paths)) {
    const name = /^\s*(?:- )?spiffe_id:\s*["']?spiffe:\/\/([a-z0-9._-]+)\//m.exec(textOf(path))?.[1]
    if (name !== undefined) return parseTrustDomain(name)
  }
  return undefined
}

/** What cannot be read is reported by the check itself. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

export function reviewText(
  { problems, weaknesses, notes, book }: PolicyReview,
  files: number,
  isColored: boolean,
): string {
  if (!book) {
    const lines = problems.map((problem) => `  ${tinted('✗', 'red', isColored)} ${problemText(problem)}\n`)
    return `${tinted('not valid', 'red', isColored)}: ${counted(problems.length, 'problem')}\n${lines.join('')}`
  }
  const what = `${counted(files, 'file')}, ${counted(book.entries.length, 'entry', 'entries')}, ${counted(book.targets.size, 'target')}, policy ${book.hash}`
  return [
    `${tinted('valid', 'green', isColored)}: ${what}\n`,
    ...weaknesses.map((weakness) => weaknessText(weakness, isColored)),
    ...notes.map((note) => `  ${tinted('-', 'dim', isColored)} ${printable(note)}\n`),
  ].join('')
}

function weaknessText({ grade, subject, message, place }: Weakness, isColored: boolean): string {
  const mark = grade === 'insecure' ? tinted('✗', 'red', isColored) : tinted('!', 'yellow', isColored)
  return `  ${mark} ${grade} ${printable(`${placeText(place)}: ${subject}: ${message}`)}\n`
}

export function testsText(results: readonly PolicyTestResult[], isColored: boolean): string {
  if (results.length === 0) return 'No tests: write some under `tests:` beside the rules.\n'
  const lines = results.map(({ name, passed, place, message }) => {
    const mark = passed ? tinted('✓', 'green', isColored) : tinted('✗', 'red', isColored)
    const why = passed ? '' : `\n      ${printable(`${placeText(place)}: ${message}`)}`
    return `  ${mark} ${printable(name)}${why}\n`
  })
  const failed = results.filter((result) => !result.passed).length
  const tint = failed > 0 ? 'red' : 'green'
  return `${lines.join('')}${tinted(`${results.length - failed} passed, ${failed} failed`, tint, isColored)}\n`
}
