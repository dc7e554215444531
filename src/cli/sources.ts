/** The files that an agent lives from: configuration, policy, CA. Read together, applied together or not at all. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { Live } from '../base/live.ts'
import { type Config, checkReload, devConfig, loadConfig, type PodEnvironment } from '../config.ts'
import { type CaFiles, loadCa, tryCa } from '../issue/ca-files.ts'
import type { CertificateAuthority } from '../issue/embedded.ts'
import { loadFederated } from '../issue/federation.ts'
import { readSharedKeys, type SharedKeySet } from '../issue/shared-keys.ts'
import type { FederatedBundles } from '../issue/trusted-bundles.ts'
import type { RuleBook } from '../policy/book.ts'
import { devPolicy } from '../policy/dev.ts'
import type { ClusterPolicySource } from '../policy/kubernetes-source.ts'
import { loadPolicy } from '../policy/load.ts'
import { type Directories, prepareDirectories } from '../serve/directories.ts'
import { formatBundle } from '../spiffe/bundle.ts'
import type { Log } from '../telemetry/log.ts'
import { openClusterPolicy } from './cluster-policy.ts'
import { policyContext } from './policy-context.ts'

export interface SourceOptions {
  readonly dev: boolean
  readonly configFile: string | undefined
  /** `--dir`, which goes before the configuration's. */
  readonly dir: string | undefined
  /** Under sudo, the user who typed it gets an identity too. */
  readonly sudoUid: string | undefined
  readonly clock: Clock
  readonly pod?: PodEnvironment | undefined
}

/** What was read, and how to read it again. */
export interface Sources {
  readonly config: Config
  readonly directories: Directories
  readonly book: RuleBook
  readonly ca: Live<CertificateAuthority> | undefined
  /** JWT and WIT keys that other nodes have too. */
  readonly sharedKeys: Live<SharedKeySet> | undefined
  /** The custom resources that are part of policy. */
  readonly cluster: ClusterPolicySource | undefined
  readonly federated: Live<FederatedBundles>
  /** Files and directories whose change asks for a reload. */
  readonly paths: readonly string[]
  /** The rule book as the files are now, with the CA and the log level applied; throws and applies nothing else. */
  reload(log: Log): Promise<RuleBook>
}

/** Reads everything; throws config_invalid, policy_invalid, policy_writable, socket_unusable. */
export async function openSources(options: SourceOptions): Promise<Sources> {
  const config = await readConfig(options)
  const directories = prepareDirectories(options.dir ?? config.dir ?? defaultDir())
  const files = options.dev ? writeDevPolicy(directories, config, options.sudoUid) : config.policy.files
  const cluster = await openClusterPolicy(config, options.clock, options.pod)
  const book = await readBook(files, config, options.clock, cluster)
  const caFiles = caFilesOf(config)
  const ca = caFiles && new Live(readCa(caFiles, config, options.clock))
  const keys = () => sharedKeysOf(config)
  const firstKeys = keys()
  const sharedKeys = firstKeys && new Live(firstKeys)
  const federated = new Live(readFederated(config))
  const given = [
    options.configFile,
    config.authority.jwtKeysFile,
    config.federation.directory,
    ...Object.values(config.authority.ca),
  ]
  const { certificateFile, keyFile } = config.bundleEndpoint
  const paths = [...files, ...[...given, certificateFile, keyFile].filter((path) => path !== undefined)]
  return {
    config,
    directories,
    book,
    ca,
    sharedKeys,
    cluster,
    federated,
    paths,
    reload: async (log) => {
      const next = options.dev ? config : await readConfig(options)
      checkReload(config, next)
      const nextBook = await readBook(options.dev ? files : next.policy.files, next, options.clock, cluster)
      const nextCa = caFiles && readCa(caFiles, config, options.clock)
      const nextKeys = keys()
      const nextFederated = readFederated(config)
      if (isOtherSet(federated.get(), nextFederated)) federated.set(nextFederated)
      if (ca && nextCa && isOther(ca.get(), nextCa)) ca.set(nextCa)
      if (sharedKeys && nextKeys && isOtherKeys(sharedKeys.get(), nextKeys)) sharedKeys.set(nextKeys)
      log.setLevel(next.log.level)
      warnOfRestart(config, next, log)
      return nextBook
    },
  }
}

async function readConfig({ dev, configFile }: SourceOptions): Promise<Config> {
  if (dev && configFile) throw new Fault('config_invalid', '--dev and --config exclude each other')
  if (dev) return devConfig()
  if (configFile) return loadConfig(configFile)
  throw new Fault('config_invalid', 'neither --config FILE nor --dev was given')
}

function readFederated({ federation, trustDomain }: Config): FederatedBundles {
  return federation.directory === undefined ? new Map() : loadFederated(federation.directory, trustDomain)
}

function isOtherSet(before: FederatedBundles, after: FederatedBundles): boolean {
  const texts = (bundles: FederatedBundles) =>
    [...bundles].map(([name, bundle]) => `${name} ${formatBundle(bundle)}`)
  return texts(before).sort().join('\n') !== texts(after).sort().join('\n')
}

function readBook(
  files: readonly string[],
  config: Config,
  clock: Clock,
  cluster: ClusterPolicySource | undefined,
): Promise<RuleBook> {
  const context = policyContext(config, () => nowSeconds(clock))
  return loadPolicy(files, context, cluster)
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

function caFilesOf({ authority }: Config): CaFiles | undefined {
  const { certificateFile, keyFile, chainFile } = authority.ca
  return certificateFile && keyFile ? { certificateFile, keyFile, chainFile } : undefined
}

function readCa(files: CaFiles, { trustDomain }: Config, clock: Clock): CertificateAuthority {
  const ca = loadCa(files)
  tryCa(ca, trustDomain, nowSeconds(clock))
  return ca
}

function sharedKeysOf({ authority, wit }: Config): SharedKeySet | undefined {
  const { jwtKeysFile } = authority
  return jwtKeysFile === undefined ? undefined : readSharedKeys(jwtKeysFile, wit === 'on')
}

function isOtherKeys(known: SharedKeySet, next: SharedKeySet): boolean {
  const textOf = ({ jwt, wit }: SharedKeySet) =>
    JSON.stringify([jwt, wit].map((keys) => keys.map(({ kid, held }) => [kid, held.jkt])))
  return textOf(known) !== textOf(next)
}

function isOther(known: CertificateAuthority, next: CertificateAuthority): boolean {
  return known.notAfter !== next.notAfter || !known.keyId.equals(next.keyId) || !known.root.equals(next.root)
}

/** What a reload takes over is said in the reference; the rest waits, and says so. */
function warnOfRestart(running: Config, next: Config, log: Log): void {
  const applied = new Set(['log', 'policy'])
  for (const setting of Object.keys(running) as (keyof Config)[]) {
    if (applied.has(setting) || JSON.stringify(running[setting]) === JSON.stringify(next[setting])) continue
    log.warn('a changed setting takes effect at the next start', { setting })
  }
}
