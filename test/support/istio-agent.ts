/**
 * A real istio-agent (`pilot-agent`) in a directory of its own, as in the container istio-proxy: the agent's public directory is
 * mounted where Istio looks, in a mount namespace that nobody else sees. It starts the Envoy of the tests.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { stringify } from 'yaml'
import { ENVOY_VERSIONS, envoyBinary, freePort, hasEnvoy } from './envoy.ts'
import { makeTestCa } from './tls.ts'

const TEMPLATE = 'envoy_bootstrap_tmpl.json'
const places = (process.env['PATH'] ?? '').split(delimiter)
/** Where the image has it, or beside the program. */
const template = ['/var/lib/istio/envoy', ...places]
  .map((dir) => join(dir, TEMPLATE))
  .find((file) => existsSync(file))

const runs = (command: string, ...args: readonly string[]) => spawnSync(command, args).status === 0

/** Why istio-agent cannot be run here; undefined when it can. */
export function missingForIstioAgent(): string | undefined {
  if (!runs('pilot-agent', 'version')) return 'pilot-agent'
  if (!template) return `${TEMPLATE} beside pilot-agent: tools/packaging/common/envoy_bootstrap.json of Istio`
  if (!hasEnvoy) return 'Envoy'
  return runs('unshare', '--mount', 'true') ? undefined : 'the right to make namespaces'
}

export interface IstioAgentOptions {
  /** The directory that is mounted at /var/run/secrets/workload-spiffe-uds. */
  readonly directory: string
  readonly writable?: boolean
  /** `WORKLOAD_IDENTITY_SOCKET_FILE`. */
  readonly file?: string
  /** Members of the bootstrap that istio-agent adds to its own. */
  readonly bootstrap?: object
}

export interface IstioAgent extends AsyncDisposable {
  readonly child: ChildProcess
  log(): string
  /** Resolves when it has ended by itself. */
  ended(): Promise<number | null>
}

/** What the container has in its environment, whichever pod it is. */
export const ENVIRONMENT = {
  POD_NAME: 'cart-1',
  POD_NAMESPACE: 'shop',
  SERVICE_ACCOUNT: 'cart',
  TRUST_DOMAIN: 'dev.holdfast.test',
  ISTIO_META_CLUSTER_ID: 'Kubernetes',
  INSTANCE_IP: '127.0.0.1',
  // It asks no cloud who it is, and has no token for istiod.
  CLOUD_PLATFORM: 'none',
  CREDENTIAL_FETCHER_TYPE: '',
}

/** The directory that it runs in: its paths are relative to it. */
export function layOut(dir: string): string {
  const folders = ['run/secrets/workload-spiffe-uds', 'run/secrets/istio', 'lib/istio', 'istio/proxy']
  for (const folder of folders) mkdirSync(join(dir, 'var', folder), { recursive: true })
  copyFileSync(template ?? '', join(dir, 'var/lib/istio', TEMPLATE))
  // The root of an istiod that does not answer: without it, istio-agent does not start at all.
  writeFileSync(join(dir, 'var/run/secrets/istio/root-cert.pem'), makeTestCa().pem)
  return dir
}

/** `PROXY_CONFIG`. */
export const proxyConfig = (discoveryAddress: string, adminPort: number, statusPort: number) => ({
  configPath: './var/istio/proxy',
  binaryPath: envoyBinary(ENVOY_VERSIONS[0]),
  proxyBootstrapTemplatePath: `./var/lib/istio/${TEMPLATE}`,
  discoveryAddress,
  controlPlaneAuthPolicy: 'NONE',
  concurrency: 1,
  proxyAdminPort: adminPort,
  statusPort,
})

/** A shell that mounts `directory` where Istio looks, and becomes istio-agent. */
export const SCRIPT = [
  'at=var/run/secrets/workload-spiffe-uds',
  'mount --bind "$1" $at',
  'if [ "$2" = ro ]; then mount -o remount,bind,ro $at; fi',
  'exec pilot-agent proxy sidecar --log_output_level=default:debug --proxyLogLevel=warning',
].join(' && ')

/** Starts it; no istiod is there. */
export async function startIstioAgent(options: IstioAgentOptions): Promise<IstioAgent> {
  const dir = layOut(mkdtempSync(join(tmpdir(), 'hf-istio-')))
  const { directory, writable = false, file, bootstrap = {} } = options
  writeFileSync(join(dir, 'override.yaml'), stringify(bootstrap))
  const config = proxyConfig('127.0.0.1:1', await freePort(), await freePort())
  const env = {
    ...ENVIRONMENT,
    PATH: process.env['PATH'],
    PROXY_CONFIG: JSON.stringify(config),
    ISTIO_BOOTSTRAP_OVERRIDE: join(dir, 'override.yaml'),
    ENVOY_PROMETHEUS_PORT: String(await freePort()),
    ENVOY_STATUS_PORT: String(await freePort()),
    ...(file === undefined ? {} : { WORKLOAD_IDENTITY_SOCKET_FILE: file }),
  }
  const args = ['--mount', 'sh', '-c', SCRIPT, 'sh', directory, writable ? 'rw' : 'ro']
  const child = spawn('unshare', args, { cwd: dir, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const gone = once(child, 'exit')
  return {
    child,
    log: () => output,
    ended: async () => (await gone)[0] as number | null,
    [Symbol.asyncDispose]: async () => {
      // The group: its Envoy ends with it.
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL')
      await gone
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
