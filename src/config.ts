/** The configuration: read from one file, or made for development; and the only place that reads the environment. */
import { dirname, resolve } from 'node:path'
import { Fault } from './base/fault.ts'
import { type Problem, problemFault } from './base/problem.ts'
import { checkShape } from './base/shape.ts'
import { readTrusted } from './base/trusted.ts'
import { parseYaml, YAML_LIMIT, type YamlFile } from './base/yaml.ts'
import { ALIAS } from './serve/aliases.ts'
import { type Config, SETTINGS } from './settings.ts'
import { type Branch, camelCase, isSetting, type Listen, type Setting } from './settings-forms.ts'
import { parseTrustDomain, parseWorkloadId } from './spiffe/id.ts'

export type { Layer } from './policy/statements.ts'
export type { Config } from './settings.ts'
export type { Listen, OwnerContact } from './settings-forms.ts'

/** What the agent and its commands take from the environment; nothing else is read there. */
export interface Environment {
  readonly nodeOptions: string | undefined
  /** Socket activation (sd_listen_fds): how many descriptors were passed, and to which pid. */
  readonly listenFds: string | undefined
  readonly listenPid: string | undefined
  readonly listenFdNames: string | undefined
  readonly endpointSocket: string | undefined
  readonly sudoUid: string | undefined
  readonly home: string | undefined
  readonly noColor: boolean
  readonly pod: PodEnvironment | undefined
}

/** What the agent's pod is told of itself (Kubernetes Downward API); members that its manifest leaves out are absent. */
export interface PodEnvironment {
  /** `https://HOST:PORT` of the API server. */
  readonly apiServer: string
  readonly nodeIp: string | undefined
  readonly podIp: string | undefined
  readonly podNamespace: string | undefined
  readonly podUid: string | undefined
}

export function readEnvironment(): Environment {
  const env = process.env
  return {
    nodeOptions: env['NODE_OPTIONS'],
    listenFds: env['LISTEN_FDS'],
    listenPid: env['LISTEN_PID'],
    listenFdNames: env['LISTEN_FDNAMES'],
    endpointSocket: env['SPIFFE_ENDPOINT_SOCKET'],
    sudoUid: env['SUDO_UID'],
    home: env['HOME'],
    noColor: (env['NO_COLOR'] ?? '') !== '',
    pod: readPod(env),
  }
}

/** A pod is told where the API server is; nobody else is. */
function readPod(env: NodeJS.ProcessEnv): PodEnvironment | undefined {
  const host = env['KUBERNETES_SERVICE_HOST'] ?? ''
  if (host === '') return undefined
  return {
    apiServer: `https://${host.includes(':') ? `[${host}]` : host}:${env['KUBERNETES_SERVICE_PORT'] ?? '443'}`,
    nodeIp: env['NODE_IP'],
    podIp: env['POD_IP'],
    podNamespace: env['POD_NAMESPACE'],
    podUid: env['POD_UID'],
  }
}

/** The environment of a child: this process's own, and `more`. */
export function environmentWith(more: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  return { ...process.env, ...more }
}

/** The trust domain of `--dev`: a name that no other agent has (RFC 6761 s.6.2). */
export const DEV_TRUST_DOMAIN = parseTrustDomain('dev.holdfast.test')

/** The configuration in `file`; relative paths in it are relative to it. Throws config_invalid, policy_writable. */
export async function loadConfig(file: string): Promise<Config> {
  const text = readTrusted(file, { maxBytes: YAML_LIMIT }).toString('utf8')
  const result = await parseConfig(file, text)
  if ('problems' in result) throw problemFault('config_invalid', result.problems)
  return result.config
}

export type ConfigResult = { readonly config: Config } | { readonly problems: readonly Problem[] }

/** The configuration in `text`, or everything that is wrong with it. */
export async function parseConfig(file: string, text: string): Promise<ConfigResult> {
  const parsed = await parseYaml(file, text)
  if ('problems' in parsed) return parsed
  const { configSchema } = await import('./settings-schema.ts')
  const shaped = checkShape(configSchema, parsed.yaml)
  if ('problems' in shaped) return shaped
  const config = inPod(
    fill(SETTINGS as unknown as Branch, shaped.value, dirname(resolve(file))) as Config,
    shaped.value,
  )
  const problems = conflictsIn(config, parsed.yaml)
  return problems.length > 0 ? { problems } : { config }
}

/** A pod of a cluster is seldom alone: there `nodes` is `many` unless the file says otherwise. */
function inPod(config: Config, given: unknown): Config {
  const { authority } = given as { readonly authority?: { readonly nodes?: unknown } }
  if (authority?.nodes !== undefined || !readPod(process.env)) return config
  return { ...config, authority: { ...config.authority, nodes: 'many' } }
}

/** Whether tokens that this agent signs are signed by keys that all nodes of the trust domain know. */
export function sharesKeys({ authority }: Config): boolean {
  return authority.nodes === 'one' || authority.jwtKeysFile !== undefined
}

/** All defaults, with what development switches on; `over` is laid over it, section by section. */
export function devConfig(over: { readonly dir?: string } = {}): Config {
  const defaults = fill(SETTINGS as unknown as Branch, {}, '/') as Config
  const egress = { ...defaults.egress, socket: 'on' } as const
  return { ...defaults, trustDomain: DEV_TRUST_DOMAIN, wit: 'on', egress, dir: over.dir ?? defaults.dir }
}

/** `values` in camel case over the defaults, paths made absolute. */
function fill(branch: Branch, values: unknown, base: string): unknown {
  const given = (values ?? {}) as Readonly<Record<string, unknown>>
  return Object.fromEntries(
    Object.entries(branch).map(([name, node]) => [
      camelCase(name),
      isSetting(node) ? settingValue(node, given[name], base) : fill(node, given[name], base),
    ]),
  )
}

function settingValue(setting: Setting<unknown>, given: unknown, base: string): unknown {
  if (given === undefined) return setting.value
  switch (setting.form.kind) {
    case 'path':
      return resolve(base, String(given))
    case 'paths':
      return (given as readonly string[]).map((path) => resolve(base, path))
    case 'listen':
      return podAddress(given as Listen)
    default:
      return given
  }
}

/** `pod:PORT` on the address of the pod; its host stays `pod` where there is none, which is refused later. */
function podAddress(listen: Listen): Listen {
  return listen.host === POD ? { ...listen, host: readEnvironment().pod?.podIp ?? POD } : listen
}

const POD = 'pod'
const LOOPBACK = new Set(['127.0.0.1', '::1', 'localhost'])

/** Settings that are each well-formed and cannot hold together. */
function conflictsIn(config: Config, yaml: YamlFile): readonly Problem[] {
  const { authority, bundleEndpoint, decisionHook } = config
  const problems: Problem[] = []
  const refuse = (path: readonly string[], message: string) =>
    problems.push({ file: yaml.file, line: yaml.lineOf(path), message: `${path.join('.')}: ${message}` })
  const { certificateFile, keyFile, chainFile } = authority.ca
  if ((certificateFile === undefined) !== (keyFile === undefined) || (chainFile && !certificateFile)) {
    refuse(['authority', 'ca'], 'certificate_file and key_file go together')
  }
  const { listen } = bundleEndpoint
  if ((bundleEndpoint.certificateFile === undefined) !== (bundleEndpoint.keyFile === undefined)) {
    refuse(['bundle_endpoint'], 'certificate_file and key_file go together')
  } else if (listen && !bundleEndpoint.certificateFile && !LOOPBACK.has(listen.host)) {
    refuse(['bundle_endpoint', 'listen'], 'plain HTTP only on loopback: set certificate_file and key_file')
  }
  if (config.tokens.clientAttestation === 'on' && (config.wit === 'off' || !sharesKeys(config)))
    refuse(
      ['tokens', 'client_attestation'],
      'wants WIT-SVIDs: set wit: on, and authority.nodes: one or jwt_keys_file',
    )
  if (authority.nodes === 'many' && certificateFile === undefined && !authority.separateRoots)
    refuse(
      ['authority', 'nodes'],
      'with many, each node would make a root that no other knows: set authority.ca, or separate_roots: true',
    )
  const { limit, share } = config.verifier.replay
  if (share > limit) refuse(['verifier', 'replay', 'share'], `is over the limit of ${limit} proofs`)
  revocationConflicts(config, refuse)
  addressConflicts(config, refuse)
  verifierConflicts(config, refuse)
  kubernetesConflicts(config, refuse)
  if (decisionHook.url !== undefined && decisionHook.socket !== undefined)
    refuse(['decision_hook'], 'url and socket exclude each other')
  return problems
}

function addressConflicts(config: Config, refuse: (path: readonly string[], message: string) => void): void {
  const { bundleEndpoint, events, ops, verifier } = config
  const listening = { ops, bundle_endpoint: bundleEndpoint, events, verifier }
  for (const [name, { listen }] of Object.entries(listening))
    if (listen?.host === POD)
      refuse([name, 'listen'], 'pod:PORT wants POD_IP in the environment (downward API: status.podIP)')
  const unfit = config.socketAliases.filter((alias) => !ALIAS.test(alias))
  if (unfit.length > 0)
    refuse(['socket_aliases'], `${unfit.join(', ')}: wanted file names that are none of the sockets' own`)
}

const PREFIX = /^[A-Za-z0-9._:-]{1,64}$/

/** What nobody would carry out, or could not. */
function revocationConflicts(
  { events, verifier }: Config,
  refuse: (path: readonly string[], message: string) => void,
): void {
  const { denylist, replay } = verifier
  if ((replay.store === 'redis') !== (replay.url !== undefined))
    refuse(['verifier', 'replay', 'url'], 'goes with store: redis, and that with url')
  if (!PREFIX.test(replay.prefix))
    refuse(['verifier', 'replay', 'prefix'], 'wanted 1 to 64 letters, digits, dots, colons and dashes')
  if (events.listen && (events.certificateFile === undefined || events.keyFile === undefined))
    refuse(['events', 'listen'], 'security events are pushed over HTTPS: set certificate_file and key_file')
  if (verifier.socket === 'on' || verifier.listen) return
  const idle = [
    [events.listen, ['events', 'listen']],
    [denylist.file, ['verifier', 'denylist', 'file']],
    [denylist.url, ['verifier', 'denylist', 'url']],
    [replay.url, ['verifier', 'replay', 'url']],
  ] as const
  for (const [value, path] of idle)
    if (value !== undefined) refuse(path, 'nothing is verified here: set verifier.socket: on')
}

/** The door on TCP shows one certificate, and knows whom it lets in. */
function verifierConflicts(
  { verifier }: Config,
  refuse: (path: readonly string[], message: string) => void,
): void {
  const { certificateFile, clients, entry, keyFile, listen } = verifier
  if ((certificateFile === undefined) !== (keyFile === undefined))
    refuse(['verifier'], 'certificate_file and key_file go together')
  if (listen && (entry === undefined) === (certificateFile === undefined))
    refuse(['verifier', 'listen'], 'shows a certificate: set entry, or certificate_file and key_file')
  for (const client of clients)
    try {
      parseWorkloadId(client)
    } catch (error) {
      refuse(['verifier', 'clients'], Fault.from(error).message)
    }
}

const CGROUP_ROOT = /^(?:auto|\/(?:[A-Za-z0-9_.:-]+(?:\/[A-Za-z0-9_.:-]+)*)?)$/

function kubernetesConflicts(
  { kubernetes }: Config,
  refuse: (path: readonly string[], message: string) => void,
): void {
  const { verification, certificateFile } = kubernetes.kubelet
  if ((verification === 'pinned') !== (certificateFile !== undefined))
    refuse(['kubernetes', 'kubelet', 'certificate_file'], 'goes with verification: pinned, and that with it')
  const steps = kubernetes.cgroupRoot.split('/')
  if (!CGROUP_ROOT.test(kubernetes.cgroupRoot) || steps.includes('..') || steps.includes('.'))
    refuse(['kubernetes', 'cgroup_root'], 'wanted auto, or a path such as /kubelet.slice')
}

/** One row of the configuration reference. */
export interface SettingRow {
  readonly name: string
  readonly type: string
  readonly default: string
  readonly says: string
}

/** Every setting, in the order of the table. */
export function settingRows(
  branch: Branch = SETTINGS as unknown as Branch,
  above = '',
): readonly SettingRow[] {
  return Object.entries(branch).flatMap(([name, node]) => {
    if (!isSetting(node)) return settingRows(node, `${above}${name}.`)
    const type = typeText(node)
    return [{ name: above + name, type, default: node.required ? 'required' : node.written, says: node.says }]
  })
}

function typeText({ form }: Setting<unknown>): string {
  switch (form.kind) {
    case 'choice':
      return form.of.join(' | ')
    case 'count':
      return `number, ${form.min} to ${form.max}`
    case 'duration':
      return 'duration'
    case 'flag':
      return 'true | false'
    case 'listen':
      return 'host:port | off'
    case 'paths':
      return 'list of paths'
    case 'texts':
      return 'list of texts'
    case 'hook':
    case 'redis':
      return 'url'
    case 'owners':
      return 'map of layer to {team, contact}'
    case 'trust_domain':
      return 'trust domain'
    default:
      return form.kind
  }
}

/** The JSON Schema that editors complete and check a configuration file with. */
export async function configSchemaJson(): Promise<Record<string, unknown>> {
  const { configJsonSchema } = await import('./settings-schema.ts')
  return configJsonSchema()
}

/** Throws unless `trustDomain` of a reloaded configuration is the running one's: identities cannot change under it. */
export function checkReload(running: Config, next: Config): void {
  if (running.trustDomain !== next.trustDomain) {
    throw new Fault('config_invalid', 'trust_domain cannot change while the agent runs: restart it')
  }
}
