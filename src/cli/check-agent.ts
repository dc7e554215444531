/** Checks of a running agent: whether it answers, and what it says of itself through the admin door. */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { problemsOf, problemText } from '../base/problem.ts'
import type { AgentStatus } from '../operate/status.ts'
import { askAsOperator, askAsWorkload, type Where, workloadSocket } from './agent.ts'
import { type Finding, failure, fine, type Group, skipped, warning } from './check-finding.ts'
import type { Io } from './io.ts'
import { counted, instant } from './render.ts'
import type { IdentityAnswer } from './wait.ts'

/** All groups about the agent; those that need the admin door are skipped for who may not use it. */
export async function agentGroups(where: Where, io: Io): Promise<readonly Group[]> {
  const answering = await answeringFindings(where, io)
  if (answering.some(({ grade }) => grade === 'error')) return [{ name: 'agent', findings: answering }]
  const status = await statusOrFault(where, io)
  if (status instanceof Fault) {
    const closed = skipped(
      'admin',
      `the admin socket: ${problemsOf(status).map(problemText)[0] ?? status.message}`,
    )
    return [{ name: 'agent', findings: [...answering, closed] }]
  }
  const now = io.now()
  return [
    { name: 'agent', findings: [...answering, ...stateFindings(status, io.version)] },
    { name: 'hardening', findings: hardeningFindings(status) },
    { name: 'policy', findings: policyFindings(status) },
    { name: 'authority', findings: authorityFindings(status, now) },
    { name: 'audit', findings: auditFindings(status) },
  ]
}

async function answeringFindings(where: Where, io: Io): Promise<readonly Finding[]> {
  try {
    const socket = await workloadSocket(where, io)
    return [fine('socket', `an agent answers on ${socket}`), await identityFinding(where, io)]
  } catch (caught) {
    const fault = Fault.from(caught)
    return [
      failure('socket', fault.message, { why: problemsOf(fault).map(problemText), action: fault.action }),
    ]
  }
}

/** A user without an identity is no fault of the agent's. */
async function identityFinding(where: Where, io: Io): Promise<Finding> {
  try {
    const call = { method: 'GET', path: '/v1/identity' } as const
    const { identities } = await askAsWorkload<IdentityAnswer>(where, io, call)
    const [first] = identities
    return fine('identity', `this process is ${first?.spiffe_id ?? 'attested'}`)
  } catch (caught) {
    const { reason, message, action } = Fault.from(caught)
    if (reason === 'no_identity') return fine('identity', 'this process is attested and has no identity')
    return failure('identity', `this process is not served: ${message}`, { action })
  }
}

async function statusOrFault(where: Where, io: Io): Promise<AgentStatus | Fault> {
  try {
    return await askAsOperator<AgentStatus>(where, io, { method: 'GET', path: '/v1/status' })
  } catch (caught) {
    return Fault.from(caught)
  }
}

/** Degradations that have a group of their own. */
const ELSEWHERE = /^(?:hardening_|audit_|reload_failed$)/

export function stateFindings(status: AgentStatus, version: string): readonly Finding[] {
  const { state, pending, degraded } = status
  const ready =
    state === 'ready'
      ? fine('ready', `it is ready (pid ${status.pid})`)
      : failure('ready', `it is ${state}${pending.length > 0 ? `, waiting for ${pending.join(', ')}` : ''}`, {
          action: 'Give it time, or see its log.',
        })
  const same =
    status.version === version
      ? fine('version', `it has this command's version, ${version}`)
      : warning('version', `it has version ${status.version}, this command ${version}`, {
          action: 'Restart the agent after an update.',
        })
  return [ready, same, ...degraded.filter(({ code }) => !ELSEWHERE.test(code)).map(degradedFinding)]
}

function degradedFinding({ code, message, action }: AgentStatus['degraded'][number]): Finding {
  return warning(code, message, { action })
}

export function hardeningFindings({ degraded }: AgentStatus): readonly Finding[] {
  const gaps = degraded.filter(({ code }) => code.startsWith('hardening_'))
  if (gaps.length > 0) return gaps.map(degradedFinding)
  return [fine('hardening', 'keys in locked memory, no dumps, no core files, no debugger, no reports')]
}

export function policyFindings(status: AgentStatus): readonly Finding[] {
  const failed = status.degraded.find(({ code }) => code === 'reload_failed')
  const loaded = failed
    ? failure('reload_failed', 'the last good policy is in force: the newest does not load', {
        why: [failed.message],
        action: failed.action,
      })
    : fine('policy_loaded', `policy ${status.policy} is in force`)
  const entries =
    status.identities.length === 0
      ? warning('no_entries', 'no entry: nobody gets an identity', {
          action: 'Add entries to a policy file of layer identity.',
        })
      : fine(
          'entries',
          `${counted(status.identities.length, 'entry', 'entries')}, ${counted(status.targets.length, 'target')}`,
        )
  return [
    loaded,
    entries,
    ...gradeFindings(
      'identity',
      status.identities.map(({ entry, ...rest }) => ({ name: entry, ...rest })),
    ),
    ...gradeFindings('target', status.targets),
  ]
}

interface Graded {
  readonly name: string
  readonly grade: string
  readonly because: readonly string[]
}

function gradeFindings(kind: 'identity' | 'target', graded: readonly Graded[]): readonly Finding[] {
  const lines = (grade: string) =>
    graded
      .filter((each) => each.grade === grade)
      .flatMap(({ name, because }) => because.map((why) => `${name}: ${why}`))
  const [insecure, weak] = [lines('insecure'), lines('weak')]
  const what = kind === 'identity' ? 'identities' : 'targets'
  const action = '`holdfast policy check` names the lines.'
  return [
    ...(insecure.length > 0
      ? [failure(`${kind}_insecure`, `insecure ${what}`, { why: insecure, action })]
      : []),
    ...(weak.length > 0 ? [warning(`${kind}_weak`, `weak ${what}`, { why: weak, action })] : []),
    ...(insecure.length + weak.length === 0 && graded.length > 0
      ? [fine(`${kind}_strong`, `all ${what} are strong`)]
      : []),
  ]
}

export function authorityFindings({ bundle, identities }: AgentStatus, now: Seconds): readonly Finding[] {
  const held =
    bundle.x509 > 0
      ? fine(
          'authority',
          `bundle ${bundle.sequence}: ${bundle.x509} X.509, ${bundle.jwt} JWT, ${bundle.wit} WIT`,
        )
      : failure('authority', 'the bundle has no X.509 authority', { action: 'See the log of the agent.' })
  const late = identities.filter(({ x509_expires: end }) => end !== undefined && end <= now)
  if (late.length === 0) return [held, fine('renewal', 'no X.509-SVID is overdue')]
  // Both clocks: which of the two is wrong is for the reader to see.
  const why = late.map(
    ({ spiffe_id: id, x509_expires: end = 0 }) => `${id} expired ${instant(end)}, now ${instant(now)}`,
  )
  return [
    held,
    failure('renewal', `${counted(late.length, 'X.509-SVID')} not renewed`, {
      why,
      action: 'See the log of the agent.',
    }),
  ]
}

export function auditFindings({ degraded }: AgentStatus): readonly Finding[] {
  const gaps = degraded.filter(({ code }) => code.startsWith('audit_'))
  if (gaps.length === 0) return [fine('audit', 'decisions are on record; `holdfast audit verify` reads them')]
  return gaps.map(({ code, message, action }) =>
    code === 'audit_unavailable' ? failure(code, message, { action }) : warning(code, message, { action }),
  )
}
