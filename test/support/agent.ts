/** An agent in this process on a directory of its own: real sockets, real peers, development policy. */
import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, nowSeconds, systemClock } from '../../src/base/clock.ts'
import { Live } from '../../src/base/live.ts'
import { policyContext } from '../../src/cli/policy-context.ts'
import { type Config, devConfig } from '../../src/config.ts'
import { type Daemon, startDaemon } from '../../src/daemon.ts'
import type { Authority } from '../../src/issue/authority.ts'
import { embeddedAuthority } from '../../src/issue/embedded.ts'
import type { FederatedBundles } from '../../src/issue/trusted-bundles.ts'
import { generateKey } from '../../src/keys/signer.ts'
import { devPolicy } from '../../src/policy/dev.ts'
import { loadPolicy } from '../../src/policy/load.ts'
import { type Audit, type AuditRecord, openAudit } from '../../src/telemetry/audit.ts'
import { Health } from '../../src/telemetry/health.ts'
import type { Log } from '../../src/telemetry/log.ts'
import { type Metrics, openMetrics } from '../../src/telemetry/metrics.ts'
import { silentLog } from './log.ts'

export interface AgentOptions {
  readonly clock?: Clock
  /** Changes to the development configuration. */
  readonly config?: (config: Config) => Config
  /** Policy files by name instead of the development policy. */
  readonly policy?: Readonly<Record<string, string>>
  /** uids of the development policy; this process's own when absent. */
  readonly uids?: readonly number[]
  readonly takeover?: boolean
  readonly log?: Log
  readonly federated?: Live<FederatedBundles>
  /** The directory of an earlier agent, which then is not removed at the end. */
  readonly dir?: string
}

/** A running agent, stopped and removed by `await using`. */
export interface TestAgent extends AsyncDisposable {
  readonly daemon: Daemon
  readonly dir: string
  readonly socket: string
  readonly adminSocket: string
  readonly authority: Authority
  readonly audit: Audit
  readonly health: Health
  readonly metrics: Metrics
  /** Audit records so far. */
  readonly records: readonly AuditRecord[]
  /** Writes policy files and loads them. */
  setPolicy(files: Readonly<Record<string, string>>): Promise<void>
}

/** Starts an agent. */
export async function startAgent(options: AgentOptions = {}): Promise<TestAgent> {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'holdfast-'))
  const policyDir = join(dir, 'policy')
  const clock = options.clock ?? systemClock
  const config = (options.config ?? ((same: Config) => same))(devConfig())
  writePolicy(policyDir, options.policy ?? devTexts(config, options.uids ?? [process.getuid?.() ?? 0]))
  const loadBook = () =>
    loadPolicy(
      [policyDir],
      policyContext(config, () => nowSeconds(clock)),
    )
  const [health, metrics] = [new Health(), openMetrics()]
  const log = options.log ?? silentLog
  const signer = generateKey('ES256')
  const path = join(dir, 'audit.jsonl')
  const sink = { kind: 'file', path } as const
  const audit = openAudit({
    sink,
    onFailure: 'refuse',
    boot: randomUUID(),
    signer,
    clock,
    log,
    metrics,
    health,
  })
  const records: AuditRecord[] = []
  audit.watch((record) => records.push(record))
  const { trustDomain, wit } = config
  const { algorithm, intermediate, caTtl, keyTtl } = config.authority
  const own = { algorithm, intermediate, caTtl, keyTtl, issuer: config.bundleEndpoint.issuer }
  const authority = embeddedAuthority({ ...own, trustDomain, clock, wit: wit === 'on' })
  const daemon = await startDaemon({
    config,
    dir,
    version: 'test',
    book: await loadBook(),
    loadBook,
    authority,
    federated: options.federated ?? new Live<FederatedBundles>(new Map()),
    audit,
    log,
    health,
    metrics,
    clock,
    takeover: options.takeover ?? false,
    listening: new Map(),
    onDrained: () => {},
  })
  return {
    daemon,
    dir,
    socket: daemon.directories.workloadSocket,
    adminSocket: daemon.directories.adminSocket,
    authority,
    audit,
    health,
    metrics,
    records,
    setPolicy: (files) => {
      writePolicy(policyDir, files)
      return daemon.reload()
    },
    [Symbol.asyncDispose]: async () => {
      await daemon.stop(0)
      if (options.dir === undefined) rmSync(dir, { recursive: true, force: true })
    },
  }
}

function devTexts(config: Config, uids: readonly number[]): Readonly<Record<string, string>> {
  const files = devPolicy({ trustDomain: config.trustDomain, uids, nameOf: () => undefined })
  return Object.fromEntries(files.map(({ file, text }) => [file, text]))
}

function writePolicy(dir: string, files: Readonly<Record<string, string>>): void {
  rmSync(dir, { recursive: true, force: true })
  mkdirSync(dir, { recursive: true, mode: 0o755 })
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text, { mode: 0o644 })
}
