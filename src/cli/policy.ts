/** `holdfast policy check` and `policy test`: what the agent would say of policy files and custom resources, without an agent. */
import { join } from 'node:path'
import { printable } from '../base/fault.ts'
import { type Problem, problemFault, problemText } from '../base/problem.ts'
import { type Config, devConfig, loadConfig } from '../config.ts'
import type { RuleBook, Weakness } from '../policy/book.ts'
import { type PolicyReview, type ReviewedManifests, reviewPolicy } from '../policy/check.ts'
import { policyFiles } from '../policy/load.ts'
import { readManifests } from '../policy/manifests.ts'
import { type PolicyContext, placeText } from '../policy/statements.ts'
import { type PolicyTestResult, runPolicyTests } from '../policy/tests.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import { agentDir, type Shown } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { policyContext } from './policy-context.ts'
import { namedIn, sortFiles } from './policy-files.ts'
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
  const { paths, count, context, resources } = await subjectOf(files, options, io)
  const review = await reviewPolicy(paths, context, resources)
  const { passed, problems, weaknesses, notes, objects } = review
  const shown = { passed, problems, weaknesses, notes, ...(resources ? { objects } : {}) }
  io.out(options.output === 'json' ? json(shown) : reviewText(review, count, io.isColored))
  // A file that the agent would not start with is no usable input; an object is only left out.
  if (problems.length > 0 && !resources) return EXIT.usage
  return passed && !(options.failOn === 'warn' && weaknesses.length > 0) ? EXIT.ok : EXIT.failed
}

/** Runs the tests that stand in `files`; throws policy_invalid when they do not load. */
export async function testFiles(files: readonly string[], options: PolicyOptions, io: Io): Promise<ExitCode> {
  const { paths, context, resources } = await subjectOf(files, options, io)
  const { book, ...review } = await reviewPolicy(paths, context, resources)
  const problems = problemsOf(review)
  if (!book || problems.length > 0) throw problemFault('policy_invalid', problems)
  const results = runPolicyTests(book)
  const passed = results.every((result) => result.passed)
  io.out(options.output === 'json' ? json({ passed, results }) : testsText(results, io.isColored))
  return passed ? EXIT.ok : EXIT.failed
}

type Wrong = Pick<PolicyReview, 'problems' | 'objects'>

function problemsOf({ problems, objects }: Wrong): readonly Problem[] {
  return [...problems, ...objects.flatMap((object) => object.problems)]
}

interface Subject {
  /** Of policy files. */
  readonly paths: readonly string[]
  /** How many files there are, with manifests. */
  readonly count: number
  readonly context: PolicyContext
  /** Absent: no file holds custom resources. */
  readonly resources: ReviewedManifests | undefined
}

/** Which files are meant: the named ones, those of a configuration, or those in the agent's directory. */
async function subjectOf(files: readonly string[], options: PolicyOptions, io: Io): Promise<Subject> {
  const config = options.config === undefined ? undefined : await loadConfig(options.config)
  const own = () => config?.policy.files ?? [join(agentDir(options, io), 'policy')]
  const named = files.length > 0 ? sortFiles(files) : { paths: own(), manifests: [] }
  // Objects that are named alone stand beside the policy of the configuration.
  const paths = named.paths.length === 0 && config ? config.policy.files : named.paths
  const { kubernetes } = config ?? devConfig()
  const { className, classless: isDefaultClass } = kubernetes.resources
  const allLabels = kubernetes.podLabels.includes('*')
  const manifests = named.manifests.length > 0 ? await readManifests(named.manifests) : undefined
  const trustDomain = trustDomainOf([...paths, ...named.manifests.map(({ file }) => file)], options, config)
  const context = policyContext(config ?? devConfig(), () => io.now())
  // Without a configuration nobody has said what is on.
  const { attestation, hasHook, takesEvents } = config ? context : ({} as Partial<typeof context>)
  return {
    paths,
    count: policyFiles(paths).length + named.manifests.length,
    context: { ...context, trustDomain, attestation, hasHook, takesEvents },
    resources: manifests && { manifests, className, isDefaultClass, allLabels },
  }
}

function trustDomainOf(
  paths: readonly string[],
  options: PolicyOptions,
  config: Config | undefined,
): TrustDomain {
  if (options.trustDomain !== undefined) return parseTrustDomain(options.trustDomain)
  return config?.trustDomain ?? namedIn(policyFiles(paths)) ?? devConfig().trustDomain
}

export function reviewText(review: PolicyReview, files: number, isColored: boolean): string {
  const { weaknesses, notes, book, objects } = review
  const problems = problemsOf(review)
  const lines = problems.map((problem) => `  ${tinted('✗', 'red', isColored)} ${problemText(problem)}\n`)
  const head = `${tinted('not valid', 'red', isColored)}: ${counted(problems.length, 'problem')}\n`
  return [
    problems.length > 0 || !book
      ? head
      : `${tinted('valid', 'green', isColored)}: ${summary(book, objects.length, files)}\n`,
    ...lines,
    ...weaknesses.map((weakness) => weaknessText(weakness, isColored)),
    ...notes.map((note) => `  ${tinted('-', 'dim', isColored)} ${printable(note)}\n`),
  ].join('')
}

function summary(book: RuleBook, objects: number, files: number): string {
  return [
    counted(files, 'file'),
    ...(objects > 0 ? [counted(objects, 'object')] : []),
    counted(book.entries.length, 'entry', 'entries'),
    ...(book.templates.length > 0 ? [counted(book.templates.length, 'template')] : []),
    counted(book.targets.size, 'target'),
    `policy ${book.hash}`,
  ].join(', ')
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
