/** `holdfast status`: how the agent is, and how strong each identity is, with the reasons. */
import type { Seconds } from '../base/clock.ts'
import { printable } from '../base/fault.ts'
import type { AgentStatus, Grade } from '../operate/status.ts'
import { askAsOperator, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { type Cell, counted, json, relative, type Tint, table, tinted } from './render.ts'

export interface StatusOptions extends Where, Shown {
  readonly watch?: boolean
}

const EVERY_MS = 2_000
const CLEAR = '\u001b[H\u001b[2J'

/** Prints the status once, or again and again until Ctrl-C. */
export async function status(options: StatusOptions, io: Io): Promise<ExitCode> {
  const show = async () => {
    const found = await askAsOperator<AgentStatus>(options, io, { method: 'GET', path: '/v1/status' })
    const text = options.output === 'json' ? json(found) : statusText(found, io.now(), io.isColored)
    io.out(options.watch && io.isTerminal ? CLEAR + text : text)
  }
  await show()
  if (!options.watch) return EXIT.ok
  const stop = io.interrupted()
  for (await io.sleep(EVERY_MS); !stop.aborted; await io.sleep(EVERY_MS)) await show()
  return EXIT.ok
}

const STATES: Readonly<Record<string, Tint>> = { ready: 'green', starting: 'yellow', draining: 'yellow' }
const GRADES: Readonly<Record<Grade, Tint>> = { strong: 'green', weak: 'yellow', insecure: 'red' }

export function statusText(found: AgentStatus, now: Seconds, isColored: boolean): string {
  const parts = [
    headText(found, isColored),
    identitiesText(found, now, isColored),
    gradedText('target', found.targets, isColored),
    degradedText(found, isColored),
    revokedText(found, now, isColored),
  ]
  return parts.filter((part) => part !== '').join('\n')
}

function headText(found: AgentStatus, isColored: boolean): string {
  const { bundle } = found
  const state = tinted(found.state, STATES[found.state] ?? 'red', isColored)
  const pending = found.pending.length > 0 ? `, waiting for ${found.pending.join(', ')}` : ''
  return [
    `Holdfast ${printable(found.version)} is ${state}${printable(pending)} (pid ${found.pid}, trust domain ${printable(found.trust_domain)})`,
    `holds ${counted(found.keys, 'proof key')}, serves ${counted(found.connections, 'connection')}, policy ${printable(found.policy)}`,
    `bundle ${bundle.sequence}: ${bundle.x509} X.509, ${bundle.jwt} JWT, ${bundle.wit} WIT`,
    '',
  ].join('\n')
}

function identitiesText({ identities }: AgentStatus, now: Seconds, isColored: boolean): string {
  if (identities.length === 0) return 'No entry: nobody gets an identity.\n'
  const heads = ['identity', 'entry', 'grade', 'keys', 'x509 expires']
  const rows = identities.map((identity): readonly Cell[] => [
    identity.spiffe_id,
    identity.entry,
    gradeCell(identity.grade),
    String(identity.keys),
    identity.x509_expires === undefined ? '-' : relative(identity.x509_expires, now),
  ])
  return table(heads, rows, isColored) + reasonsText(identities, 'entry', isColored)
}

function gradedText(
  head: string,
  graded: readonly { readonly name: string; readonly grade: Grade; readonly because: readonly string[] }[],
  isColored: boolean,
): string {
  if (graded.length === 0) return ''
  const rows = graded.map(({ name, grade }): readonly Cell[] => [name, gradeCell(grade)])
  return table([head, 'grade'], rows, isColored) + reasonsText(graded, 'name', isColored)
}

function gradeCell(grade: Grade): Cell {
  return { text: grade, tint: GRADES[grade] ?? 'red' }
}

/** One line a reason, with the names it holds for: many entries are weak in the same way. */
function reasonsText<N extends string>(
  graded: readonly ({ readonly [K in N]: string } & { readonly because: readonly string[] })[],
  name: N,
  isColored: boolean,
): string {
  const subjects = new Map<string, string[]>()
  for (const each of graded) {
    for (const why of each.because) subjects.set(why, [...(subjects.get(why) ?? []), each[name]])
  }
  return [...subjects]
    .map(([why, names]) => `  ${tinted(named(names), 'dim', isColored)}: ${printable(why)}\n`)
    .join('')
}

const NAMES_SHOWN = 3

function named(names: readonly string[]): string {
  const more = names.length > NAMES_SHOWN ? ` and ${names.length - NAMES_SHOWN} more` : ''
  return printable(names.slice(0, NAMES_SHOWN).join(', ')) + more
}

function degradedText({ degraded }: AgentStatus, isColored: boolean): string {
  return degraded
    .map(({ code, message, action }) => {
      const head = tinted(`! ${printable(code)}`, 'yellow', isColored)
      return `${head}: ${printable(message)}\n  do: ${printable(action)}\n`
    })
    .join('')
}

function revokedText({ revocations }: AgentStatus, now: Seconds, isColored: boolean): string {
  if (revocations.length === 0) return ''
  const rows = revocations.map(({ kind, value, since, until }): readonly Cell[] => [
    { text: value, tint: 'red' },
    kind.replace('_', ' '),
    relative(since, now),
    until === undefined ? 'until lifted' : relative(until, now),
  ])
  return table(['revoked', 'kind', 'since', 'ends'], rows, isColored)
}
