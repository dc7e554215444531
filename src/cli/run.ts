/** `holdfast run`: hardens the process, reads what it is told to be, starts the agent and waits for its end. */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { nowSeconds, systemClock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type Config, devConfig, loadConfig, readEnvironment } from '../config.ts'
import { type Daemon, startDaemon } from '../daemon.ts'
import { embeddedAuthority } from '../issue/embedded.ts'
import { generateKey } from '../keys/signer.ts'
import { devPolicy } from '../policy/dev.ts'
import { loadPolicy } from '../policy/load.ts'
import { type Directories, prepareDirectories } from '../serve/directories.ts'
import { type AuditSink, openAudit } from '../telemetry/audit.ts'
import { Health } from '../telemetry/health.ts'
import { openLog } from '../telemetry/log.ts'
import { openMetrics } from '../telemetry/metrics.ts'
import { type Gap, harden } from './harden.ts'
import { devWelcome } from './welcome.ts'

export interface RunOptions {
  readonly dev?: boolean
  readonly config?: string
  readonly dir?: string
  readonly takeover?: boolean
}

const STDERR = 2
const STDOUT = 1
const GRACE = 10_000
const MIB = 1024 * 1024
const FIRST_ACTIVATED_FD = 3

/** Runs until SIGTERM, SIGINT or a drain; throws what keeps the agent from starting. */
export async function run(options: RunOptions, version: string): Promise<void> {
  const environment = readEnvironment()
  const gaps = harden(environment.nodeOptions)
  const config = await configOf(options)
  const directories = prepareDirectories(options.dir ?? config.dir ?? defaultDir())
  const files = options.dev ? writeDevPolicy(directories, config, environment.sudoUid) : config.policy.files
  const daemon = await start({ options, config, directories, files, gaps, version })
  if (options.dev) process.stdout.write(devWelcome(daemon.directories.workloadSocket, config.trustDomain))
}

async function configOf(options: RunOptions): Promise<Config> {
  if (options.dev && options.config)
    throw new Fault('config_invalid', '--dev and --config exclude each other')
  if (options.dev) return devConfig()
  if (options.config) return loadConfig(options.config)
  throw new Fault('config_invalid', 'neither --config FILE nor --dev was given')
}

function defaultDir(): string {
  const uid = process.geteuid?.() ?? 0
  return uid === 0 ? '/run/holdfast' : `/tmp/holdfast-${uid}`
}

/** The development policy as files, one a layer, so that it can be read, changed and reloaded; kept when there. */
function writeDevPolicy(
  directories: Directories,
  config: Config,
  sudoUid: string | undefined,
): readonly string[] {
  const own = process.geteuid?.() ?? 0
  const uids = [...new Set([own, ...(sudoUid === undefined ? [] : [Number(sudoUid)])])]
  mkdirSync(directories.policy, { recursive: true, mode: 0o755 })
  for (const { file, text } of devPolicy({ trustDomain: config.trustDomain, uids })) {
    const path = join(directories.policy, file)
    if (!existsSync(path)) writeFileSync(path, text, { mode: 0o644 })
  }
  return [directories.policy]
}

interface Start {
  readonly options: RunOptions
  readonly config: Config
  readonly directories: Directories
  readonly files: readonly string[]
  readonly gaps: readonly Gap[]
  readonly version: string
}

async function start({ options, config, directories, files, gaps, version }: Start): Promise<Daemon> {
  const clock = systemClock
  const log = openLog({ level: config.log.level, fd: STDERR })
  const health = new Health()
  reportGaps(gaps, config, health)
  const metrics = openMetrics()
  const context = { trustDomain: config.trustDomain, defaults: config.svid, now: () => nowSeconds(clock) }
  const loadBook = () => loadPolicy(files, context)
  const book = await loadBook()
  const signer = generateKey('ES256')
  const audit = openAudit({
    sink: sinkOf(config, directories),
    onFailure: config.audit.onFailure,
    boot: randomUUID(),
    signer,
    clock,
    log,
    metrics,
    health,
  })
  const { algorithm, intermediate, caTtl, keyTtl } = config.authority
  const authority = embeddedAuthority({
    trustDomain: config.trustDomain,
    clock,
    algorithm,
    intermediate,
    caTtl,
    keyTtl,
    wit: config.wit === 'on',
  })
  const daemon = await startDaemon({
    config,
    dir: directories.dir,
    version,
    book,
    loadBook,
    authority,
    audit,
    log,
    health,
    metrics,
    clock,
    takeover: options.takeover ?? false,
    listening: activated(),
    onDrained: () => process.exit(0),
  })
  handleSignals(daemon)
  log.info('ready', {
    socket: daemon.directories.workloadSocket,
    pid: process.pid,
    count: book.entries.length,
  })
  return daemon
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

/** sd_listen_fds(3): the descriptors are ours only when LISTEN_PID names this process. */
function activated(): ReadonlyMap<string, number> {
  const { listenFds, listenPid } = readEnvironment()
  if (listenPid !== String(process.pid)) return new Map()
  const names = ['workload', 'admin'].slice(0, Number(listenFds ?? 0))
  return new Map(names.map((name, index) => [name, FIRST_ACTIVATED_FD + index]))
}

/** The second signal ends the process at once. */
function handleSignals(daemon: Daemon): void {
  let isStopping = false
  const stop = () => {
    if (isStopping) process.exit(1)
    isStopping = true
    void daemon.stop(GRACE).then(() => process.exit(0))
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', () => void daemon.reload().catch(() => {}))
}
