/** Audit logs in a folder of their own, with all that an Audit needs around it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateKey } from '../../src/keys/signer.ts'
import { type Audit, type AuditFacts, type AuditOptions, openAudit } from '../../src/telemetry/audit.ts'
import { parseAnchors } from '../../src/telemetry/audit-anchor.ts'
import type { Anchor } from '../../src/telemetry/audit-chain.ts'
import { auditFiles } from '../../src/telemetry/audit-sink.ts'
import { Health } from '../../src/telemetry/health.ts'
import { openMetrics } from '../../src/telemetry/metrics.ts'
import { ManualClock } from './clock.ts'
import { keepLog } from './kept-log.ts'

export const SIGNED: AuditFacts = {
  event: 'sign.dpop',
  allowed: true,
  spiffe_id: 'spiffe://a.test/web',
  pid: 1,
}

/** One folder with one audit log; agents come and go. */
export class AuditFolder {
  readonly directory = mkdtempSync(join(tmpdir(), 'holdfast-audit-'))
  readonly path = join(this.directory, 'audit.log')
  readonly clock = new ManualClock()
  readonly log = keepLog()
  readonly health = new Health()
  readonly metrics = openMetrics()
  #boots = 0

  /** A new boot of the agent. */
  open(options: Partial<AuditOptions> = {}): Audit {
    const { clock, log, health, metrics } = this
    return openAudit({
      sink: { kind: 'file', path: this.path },
      onFailure: 'refuse',
      boot: `boot-${++this.#boots}`,
      signer: generateKey('ES256'),
      ...{ clock, log, health, metrics },
      ...options,
    })
  }

  files(): readonly string[] {
    return auditFiles(this.path)
  }

  text(): string {
    return this.files()
      .map((file) => readFileSync(file, 'utf8'))
      .join('')
  }

  records(): readonly Record<string, unknown>[] {
    return recordsIn(this.text())
  }

  /** What the log says of the audit log, as an operator keeps it elsewhere. */
  anchors(): readonly Anchor[] {
    return parseAnchors(this.log.lines.map((line) => JSON.stringify(line)).join('\n'))
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }
}

export function recordsIn(text: string): readonly Record<string, unknown>[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
}
