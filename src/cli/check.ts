/** `holdfast check`: everything that can be known to be right or wrong, here and in the agent, in one list. */
import { Fault } from '../base/fault.ts'
import { problemsOf, problemText } from '../base/problem.ts'
import { loadConfig } from '../config.ts'
import { reviewPolicy } from '../policy/check.ts'
import { placeText } from '../policy/statements.ts'
import { runPolicyTests } from '../policy/tests.ts'
import type { Config } from '../settings.ts'
import { agentDir, type Where } from './agent.ts'
import { agentGroups } from './check-agent.ts'
import {
  countOf,
  type Finding,
  failure,
  fine,
  type Group,
  groupsText,
  summaryText,
  warning,
} from './check-finding.ts'
import { clockGroup, directoryGroup, machineGroup, readMachine } from './check-machine.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { policyContext } from './policy-context.ts'
import { counted, json, parseSpan } from './render.ts'

export interface CheckOptions extends Where {
  readonly output?: 'text' | 'short' | 'json'
  /** Before an agent runs. */
  readonly pre?: boolean
  readonly config?: string
  /** A cluster, and nothing of this machine. */
  readonly kubernetes?: boolean
  readonly server?: string
  readonly namespace?: string
  readonly failOn?: 'error' | 'warn'
  /** A duration, or true for the default. */
  readonly wait?: string | true
}

const DEFAULT_WAIT = '30s'
const PAUSE_MS = 1_000

/** Checks, again and again where `--wait` says so, and prints the last result. */
export async function check(options: CheckOptions, io: Io): Promise<ExitCode> {
  const { wait, output, failOn } = options
  const limit = wait === undefined ? 0 : parseSpan('--wait', wait === true ? DEFAULT_WAIT : wait)
  const end = io.now() + limit
  const hasPassed = (groups: readonly Group[]) =>
    countOf(groups, 'error') === 0 && (failOn !== 'warn' || countOf(groups, 'warn') === 0)
  let groups = await checkAll(options, io)
  while (!hasPassed(groups) && io.now() < end) {
    await io.sleep(PAUSE_MS)
    groups = await checkAll(options, io)
  }
  const passed = hasPassed(groups)
  if (output === 'json') io.out(json({ passed, groups }))
  else io.out(groupsText(groups, output === 'short', io.isColored) + summaryText(groups, io.isColored))
  return passed ? EXIT.ok : EXIT.failed
}

async function checkAll(options: CheckOptions, io: Io): Promise<readonly Group[]> {
  const { config, kubernetes = false, pre = false } = options
  if (kubernetes) return [await (await import('./check-kubernetes.ts')).kubernetesGroup(options, io)]
  const dir = agentDir(options, io)
  return [
    machineGroup(readMachine()),
    directoryGroup(dir, pre),
    ...(config === undefined ? [] : [await filesGroup(config, io)]),
    ...(pre ? [] : await agentGroups(options, io)),
    clockGroup(io.now()),
  ]
}

/** The configuration that was named and the policy it names, as an agent would read them. */
async function filesGroup(file: string, io: Io): Promise<Group> {
  try {
    const loaded = await loadConfig(file)
    const valid = fine('config', `${file} is valid (trust domain ${loaded.trustDomain})`)
    const context = policyContext(loaded, () => io.now())
    const policy = await policyFindings(loaded.policy.files, context)
    return { name: 'files', findings: [valid, ...(await podsApiFindings(loaded)), ...policy] }
  } catch (caught) {
    const fault = Fault.from(caught)
    const problems = problemsOf(fault).map(problemText)
    const why = problems.length > 0 ? problems : [fault.message]
    return {
      name: 'files',
      findings: [failure('config', `${file} is not valid`, { why, action: fault.action })],
    }
  }
}

async function podsApiFindings({ kubernetes }: Config): Promise<readonly Finding[]> {
  const { attestor, podsApi } = kubernetes
  if (attestor !== 'pods_api' && attestor !== 'auto') return []
  const { choiceFinding, socketFinding } = await import('./check-pods-api.ts')
  return [attestor === 'auto' ? await choiceFinding(podsApi) : socketFinding(podsApi.socket)]
}

async function policyFindings(
  files: readonly string[],
  context: Parameters<typeof reviewPolicy>[1],
): Promise<readonly Finding[]> {
  const { problems, weaknesses, book } = await reviewPolicy(files, context)
  if (!book) return [failure('policy', 'the policy does not load', { why: problems.map(problemText) })]
  const lines = (grade: string) =>
    weaknesses
      .filter((weakness) => weakness.grade === grade)
      .map(({ place, subject, message }) => `${placeText(place)}: ${subject}: ${message}`)
  const [insecure, weak] = [lines('insecure'), lines('weak')]
  return [
    fine(
      'policy',
      `${counted(book.entries.length, 'entry', 'entries')}, ${counted(book.targets.size, 'target')}, policy ${book.hash}`,
    ),
    ...(insecure.length > 0 ? [failure('policy_insecure', 'insecure statements', { why: insecure })] : []),
    ...(weak.length > 0 ? [warning('policy_weak', 'weak statements', { why: weak })] : []),
    testFinding(runPolicyTests(book)),
  ]
}

function testFinding(results: ReturnType<typeof runPolicyTests>): Finding {
  const failed = results.filter((result) => !result.passed)
  if (failed.length === 0) return fine('policy_tests', `${counted(results.length, 'policy test')} passed`)
  const why = failed.map(({ name, place, message }) => `${placeText(place)}: ${name}: ${message}`)
  return failure('policy_tests', `${counted(failed.length, 'policy test')} failed`, { why })
}
