/** `holdfast run`: hardens the process, reads what it is told to be, starts the agent and waits for its end. */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { systemClock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { watchFiles } from '../base/watch.ts'
import { type Config, readEnvironment } from '../config.ts'
import { type Daemon, startDaemon } from '../daemon.ts'
import type { Authority } from '../issue/authority.ts'
import { embeddedAuthority } from '../issue/embedded.ts'
import { generateKey } from '../keys/signer.ts'
import type { Directories } from '../serve/directories.ts'
import { type AuditSink, openAudit } from '../telemetry/audit.ts'
import { Health } from '../telemetry/health.ts'
import { openLog } from '../telemetry/log.ts'
import { openMetrics } from '../telemetry/metrics.ts'
import { followCluster } from './cluster-policy.ts'
import { type Gap, harden } from './harden.ts'
import { openSources, type Sources } from './sources.ts'
import { devWelcome } from './welcome.ts'

export interface RunOptions {
  readonly dev?: boolean
  readonly config?: string
  readonly dir?: string
  readonly takeover?: boolean
}

const STDOUT = 1
const STDERR = 2
const GRACE = 10_000
const MIB = 1024 * 1024
const FIRST_ACTIVATED_FD = 3

/** Runs until SIGTERM, SIGINT or a drain; throws what keeps the agent from starting. */
export async function run(options: RunOptions, version: string): Promise<void> {
  const { nodeOptions, pod, sudoUid } = readEnvironment()
  const gaps = harden(nodeOptions)
  const sources = await openSources({
    dev: options.dev ?? false,
    configFile: options.config,
    dir: options.dir,
    sudoUid,
    clock: systemClock,
    pod,
  })
  const daemon = await start(sources, gaps, options.takeover ?? false, version)
  if (options.dev)
    process.stdout.write(devWelcome(daemon.directories.workloadSocket, sources.config.trustDomain))
}

async function start(
  sources: Sources,
  gaps: readonly Gap[],
  takeover: boolean,
  version: string,
): Promise<Daemon> {
  const { config, directories, book, paths } = sources
  const clock = systemClock
  const log = openLog({ level: config.log.level, fd: STDERR })
  const health = new Health()
  reportGaps(gaps, config, health)
  const metrics = openMetrics()
  const { onFailure } = config.audit
  const [boot, signer] = [randomUUID(), generateKey('ES256')]
  const audit = openAudit({
    sink: sinkOf(config, directories),
    onFailure,
    boot,
    signer,
    clock,
    log,
    metrics,
    health,
  })
  const authority = authorityOf(sources)
  const daemon = await startDaemon({
    config,
    dir: directories.dir,
    version,
    book,
    loadBook: () => sources.reload(log),
    authority,
    federated: sources.federated,
    audit,
    log,
    health,
    metrics,
    clock,
    takeover,
    listening: activated(),
    onDrained: () => process.exit(0),
  })
  const reload = () => void daemon.reload().catch(() => {})
  watchFiles(paths, clock, reload)
  if (sources.cluster) followCluster(sources.cluster, { log, health, metrics, reload })
  handleSignals(daemon, reload)
  log.info('ready', {
    socket: daemon.directories.workloadSocket,
    pid: process.pid,
    count: book.entries.length,
  })
  return daemon
}

function authorityOf({ config, ca, sharedKeys }: Sources): Authority {
  const { trustDomain } = config
  const { algorithm, intermediate, caTtl, keyTtl } = config.authority
  const { issuer } = config.bundleEndpoint
  const clock = systemClock
  const made = {
    trustDomain,
    clock,
    algorithm,
    intermediate,
    caTtl,
    keyTtl,
    issuer,
    wit: config.wit === 'on',
  }
  return embeddedAuthority({ ...made, ...(ca ? { ca } : {}), ...(sharedKeys ? { sharedKeys } : {}) })
}

function reportGaps(gaps: readonly Gap[], config: Config, health: Health): void {
  const [first] = gaps
  if (first && config.hardening.onDegraded === 'refuse') {
    throw new Fault('hardening_missing', first.message, { action: first.action })
  }
  for (const { name, message, action } of gaps) health.degrade({ code: `hardening_${name}`, message, action })
}

function sinkOf({ audit }: Config, directories: Directories): AuditSink {
  if (audit.sink === 'none') return { kind: 'none' }
  if (audit.sink === 'stdout') return { kind: 'descriptor', fd: STDOUT }
  const path = audit.file ?? join(directories.dir, 'private', 'audit.jsonl')
  return { kind: 'file', path, rotateBytes: audit.rotateMib * MIB, keep: audit.keep }
}

/** sd_listen_fds(3): the descriptors are ours only when LISTEN_PID names this process; the units name them. */
function activated(): ReadonlyMap<string, number> {
  const { listenFds, listenPid, listenFdNames } = readEnvironment()
  if (listenPid !== String(process.pid)) return new Map()
  const count = Number(listenFds ?? 0)
  const names = (listenFdNames ?? '').split(':')
  const named = Array.from(
    { length: count },
    (_, index) => [nameOf(names[index], index), FIRST_ACTIVATED_FD + index] as const,
  )
  return new Map(named)
}

const SOCKETS: ReadonlySet<string> = new Set(['workload', 'egress', 'verifier', 'admin'])

/** A socket without a name of ours is the workload's when it is the first: activation by other tools names nothing. */
function nameOf(given: string | undefined, index: number): string {
  if (given !== undefined && SOCKETS.has(given)) return given
  return index === 0 ? 'workload' : `unknown-${index}`
}

/** The second signal ends the process at once. */
function handleSignals(daemon: Daemon, reload: () => void): void {
  let isStopping = false
  const stop = () => {
    if (isStopping) process.exit(1)
    isStopping = true
    void daemon.stop(GRACE).then(() => process.exit(0))
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', reload)
}
