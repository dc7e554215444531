/** `holdfast approve`: the requests that wait for a person, and the answer to one of them. */
import type { Seconds } from '../base/clock.ts'
import { Fault, printable } from '../base/fault.ts'
import type { ApprovalsAnswer, ApproveAnswer } from '../operate/approve.ts'
import { askAsOperator, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { counted, json, relative, table } from './render.ts'

export interface ApproveOptions extends Where, Shown {
  readonly deny?: boolean
}

/** Lists what waits, or answers `id`. */
export async function approve(id: string | undefined, options: ApproveOptions, io: Io): Promise<ExitCode> {
  if (id !== undefined) return answer(id, options, io)
  if (options.deny) throw usage('--deny names no request')
  const found = await askAsOperator<ApprovalsAnswer>(options, io, { method: 'GET', path: '/v1/approvals' })
  io.out(options.output === 'json' ? json(found) : waitingText(found, io.now(), io.isColored))
  return EXIT.ok
}

async function answer(id: string, options: ApproveOptions, io: Io): Promise<ExitCode> {
  const body = options.deny ? { id, deny: true } : { id }
  const found = await askAnswer(body, options, io)
  io.out(options.output === 'json' ? json(found) : answeredText(found))
  return EXIT.ok
}

async function askAnswer(body: object, options: ApproveOptions, io: Io): Promise<ApproveAnswer> {
  try {
    return await askAsOperator<ApproveAnswer>(options, io, { method: 'POST', path: '/v1/approve', body })
  } catch (caught) {
    const fault = Fault.from(caught)
    if (fault.reason === 'not_found' || fault.reason === 'invalid_request') throw usage(fault.message)
    throw fault
  }
}

function usage(message: string): Fault {
  return new Fault('usage', message, {
    action: '`holdfast approve` lists the requests that wait; holdfast approve ID [--deny] answers one.',
  })
}

export function waitingText({ waiting }: ApprovalsAnswer, now: Seconds, isColored: boolean): string {
  if (waiting.length === 0) return 'No request waits for approval.\n'
  const heads = ['id', 'spiffe id', 'pid', 'request', 'target', 'since', 'refused']
  const rows = waiting.map((one) => [
    one.id,
    one.spiffe_id,
    String(one.pid),
    `${one.method} ${one.path}`,
    one.target,
    relative(one.since, now),
    relative(one.deadline, now),
  ])
  return `${table(heads, rows, isColored)}\nholdfast approve ID lets one go on; with --deny it is refused.\n`
}

export function answeredText({ allowed, answered, request }: ApproveAnswer): string {
  const { on, spiffe_id, target } = request
  const what = `${spiffe_id} at ${target} (${counted(answered, 'request')})`
  const later =
    allowed && on === 'first_use' ? '; later ones of this instance to this target need no approval' : ''
  return `${allowed ? 'Approved' : 'Denied'}: ${printable(what)}${later}.\n`
}
