/** `holdfast audit verify`: whether the audit log is as it was written; for anchors it asks another place. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault, printable } from '../base/fault.ts'
import { parseAnchors } from '../telemetry/audit-anchor.ts'
import type { Anchor } from '../telemetry/audit-chain.ts'
import { auditFiles } from '../telemetry/audit-sink.ts'
import { type AuditFinding, type AuditReport, verifyAudit } from '../telemetry/audit-verify.ts'
import { agentDir, type Shown } from './agent.ts'
import { EXIT, type ExitCode, type Io } from './io.ts'
import { counted, json, tinted } from './render.ts'

export interface AuditOptions extends Shown {
  readonly dir?: string
  /** A log with the checkpoints that the agent wrote elsewhere. */
  readonly anchor?: string
}

/** Verifies `file` and its rotated ones; the default is the file of the agent's directory. */
export async function verify(file: string | undefined, options: AuditOptions, io: Io): Promise<ExitCode> {
  const path = file ?? join(agentDir(options, io), 'private', 'audit.jsonl')
  const anchors = options.anchor === undefined ? [] : readAnchors(options.anchor)
  const report = reportOn(path, anchors)
  io.out(options.output === 'json' ? json(report) : reportText(report, options.anchor, io.isColored))
  return report.verdict === 'broken' ? EXIT.failed : EXIT.ok
}

function readAnchors(file: string): readonly Anchor[] {
  const anchors = parseAnchors(readingFile(file, () => readFileSync(file, 'utf8')))
  if (anchors.length > 0) return anchors
  throw new Fault('usage', `${file}: holds no audit checkpoint`, {
    action: 'Give the agent\'s log as it was kept elsewhere: its lines "audit checkpoint" are the anchors.',
  })
}

function reportOn(path: string, anchors: readonly Anchor[]): AuditReport {
  return readingFile(path, () => verifyAudit(auditFiles(path), anchors))
}

/** `work` on a file that an operator named; throws usage when it cannot be read. */
function readingFile<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
    throw new Fault('usage', `${file}: cannot be read (${code})`, {
      action: 'Name the audit file, and read it as the user that runs the agent.',
      cause: error,
    })
  }
}

export function reportText(report: AuditReport, anchor: string | undefined, isColored: boolean): string {
  const { verdict, records, boots, problems, notes, anchored, unanchored } = report
  const tint = verdict === 'ok' ? 'green' : verdict === 'broken' ? 'red' : 'yellow'
  const read = `${counted(records, 'record')} of ${counted(boots, 'boot')}`
  const vouched =
    anchored > 0
      ? `${counted(anchored, 'anchor')} found in the log; nothing outside it vouches for the last ${counted(unanchored, 'record')}`
      : 'nothing outside the log vouches for it: a cut tail or a restored copy would not show'
  const hint =
    verdict === 'consistent, not anchored' && anchor === undefined
      ? "Give --anchor FILE with the agent's log as it was kept on another machine.\n"
      : ''
  return [
    `${tinted(verdict, tint, isColored)}: ${read}\n`,
    ...problems.map((finding) => findingText(finding, tinted('✗', 'red', isColored))),
    ...notes.map((finding) => findingText(finding, tinted('!', 'yellow', isColored))),
    verdict === 'broken' ? '' : `${vouched}.\n`,
    hint,
  ].join('')
}

function findingText({ file, line, what }: AuditFinding, mark: string): string {
  return `  ${mark} ${printable(line > 0 ? `${file}:${line}` : file)}: ${printable(what)}\n`
}
