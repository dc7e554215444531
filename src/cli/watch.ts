/** `holdfast watch`: the agent's decisions as they are made; never a token or a proof. */
import { Fault, printable } from '../base/fault.ts'
import { followAgent } from '../client/http.ts'
import type { AuditRecord } from '../telemetry/audit.ts'
import { adminSocket, type Shown, type Where } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { tinted } from './render.ts'

export interface WatchOptions extends Where, Shown {
  /** Refusals only, observed ones included. */
  readonly deny?: boolean
  readonly spiffeId?: string
}

/** Prints decisions until Ctrl-C; throws agent_unreachable when the agent ends. */
export async function watch(options: WatchOptions, io: Io): Promise<ExitCode> {
  const socket = await adminSocket(options, io)
  const stop = io.interrupted()
  for await (const line of followAgent(socket, '/v1/decisions', stop)) {
    const record = line as unknown as AuditRecord
    if (!isWanted(record, options)) continue
    io.out(options.output === 'json' ? `${JSON.stringify(record)}\n` : decisionText(record, io.isColored))
  }
  if (!stop.aborted) throw new Fault('agent_unreachable', 'the agent ended while its decisions were watched')
  return EXIT.ok
}

function isWanted(record: AuditRecord, { deny, spiffeId }: WatchOptions): boolean {
  if (deny && record.allowed && record.observed === undefined) return false
  return spiffeId === undefined || record.spiffe_id === spiffeId
}

const EVENT_WIDTH = 14
const TIME = /T(\d\d:\d\d:\d\d)/

/** `12:04:05 allow sign.dpop spiffe://… GET https://api.example.test/orders (application.yaml:8)`. */
export function decisionText(record: AuditRecord, isColored: boolean): string {
  const { allowed, observed, event, reason, spiffe_id: id, pid, uid, rule } = record
  const outcome = allowed
    ? observed
      ? tinted('watch', 'yellow', isColored)
      : tinted('allow', 'green', isColored)
    : tinted('deny ', 'red', isColored)
  const who = id ?? (pid === undefined ? undefined : `pid ${pid} of uid ${uid ?? '?'}`)
  const parts = [observed ?? reason, who, destinationOf(record), rule === undefined ? undefined : `(${rule})`]
  const said = parts.filter((part) => part !== undefined && part !== '').join('  ')
  const time = TIME.exec(record.ts)?.[1] ?? '--:--:--'
  return `${time}  ${outcome}  ${printable(event).padEnd(EVENT_WIDTH)}  ${printable(said)}\n`
}

/** Where the request goes, or whom the SVID is for. */
function destinationOf({ method, origin, path, audience, target, detail }: AuditRecord): string | undefined {
  if (origin !== undefined) return `${method ?? ''} ${origin}${path ?? ''}`.trim()
  if (audience !== undefined) return `for ${audience.join(', ')}`
  return target ?? detail
}
