/** `holdfast revoke`: ends leases and keys at once, and says what lives on elsewhere and until when. */
import type { Seconds } from '../base/clock.ts'
import { Fault, printable } from '../base/fault.ts'
import type { RevokeAnswer } from '../operate/revoke.ts'
import { askAsOperator, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { counted, instant, json, parseSpan, relative, table, tinted } from './render.ts'

/** Exactly one of the four names what is meant. */
export interface RevokeOptions extends Where, Shown {
  readonly spiffeId?: string
  readonly jkt?: string
  readonly pid?: number
  readonly target?: string
  readonly for?: string
  readonly lift?: boolean
}

export async function revoke(options: RevokeOptions, io: Io): Promise<ExitCode> {
  const named = nameOf(options)
  const [[name, value] = ['', '']] = Object.entries(named)
  const what = `${name.replace('_', ' ')} ${value}`
  if (options.lift) return lift(named, what, options, io)
  const seconds = options.for === undefined ? {} : { seconds: parseSpan('--for', options.for) }
  const body = { ...named, ...seconds }
  const answer = await askAsOperator<RevokeAnswer>(options, io, { method: 'POST', path: '/v1/revoke', body })
  io.out(options.output === 'json' ? json(answer) : revokedText(what, answer, io.now(), io.isColored))
  return EXIT.ok
}

async function lift(named: object, what: string, options: RevokeOptions, io: Io): Promise<ExitCode> {
  if (options.for !== undefined) throw usage('--for and --lift exclude each other')
  const answer = await liftNamed(named, what, options, io)
  io.out(
    options.output === 'json'
      ? json(answer)
      : `Lifted: ${printable(what)}. Keys that were destroyed do not come back; new ones are made when asked for.\n`,
  )
  return EXIT.ok
}

async function liftNamed(named: object, what: string, options: RevokeOptions, io: Io): Promise<object> {
  try {
    return await askAsOperator<object>(options, io, { method: 'POST', path: '/v1/lift', body: named })
  } catch (caught) {
    const fault = Fault.from(caught)
    if (fault.reason !== 'not_found') throw fault
    throw new Fault('usage', `${what} is not revoked`, {
      action: '`holdfast status` lists the revocations that are in force.',
    })
  }
}

/** The one thing that is named, in the words of the wire. */
function nameOf({ spiffeId, jkt, pid, target }: RevokeOptions): Readonly<Record<string, string | number>> {
  const all = { spiffe_id: spiffeId, jkt, pid, target }
  const named = Object.entries(all).filter((pair): pair is [string, string | number] => pair[1] !== undefined)
  if (named.length === 1) return Object.fromEntries(named)
  throw usage(named.length === 0 ? 'nothing is named' : 'more than one thing is named')
}

function usage(message: string): Fault {
  return new Fault('usage', message, {
    action:
      'Give one of --spiffe-id, --jkt, --pid, --target; --for 1h ends it by itself, --lift takes it back.',
  })
}

export function revokedText(what: string, answer: RevokeAnswer, now: Seconds, isColored: boolean): string {
  const { rule, keys_destroyed: keys, connections_ended: connections, lives_elsewhere: others } = answer
  const end = rule.until === undefined ? 'until it is lifted' : `until ${instant(rule.until)}`
  const head = `${tinted('Revoked', 'red', isColored)} ${printable(what)} ${end}: ${counted(keys, 'key')} destroyed, ${counted(connections, 'connection')} ended.\n`
  if (others.length === 0) return `${head}Nothing lives on elsewhere.\n`
  const rows = others.map((other) => [other.what, instant(other.until), relative(other.until, now)])
  return `${head}\nThe agent cannot call back what others hold:\n${table(['what', 'until', ''], rows, isColored)}`
}
