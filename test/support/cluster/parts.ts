/** What a node of Kubernetes is made of, and what of it this machine lacks. */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from '../built-agent.ts'

const MODULE = 'test/e2e/kubernetes/parts/go.mod'

/** The version of Kubernetes that the module of the parts names. */
export const VERSION = /^require k8s\.io\/kubernetes v(\S+)$/m.exec(
  readFileSync(join(ROOT, MODULE), 'utf8'),
)?.[1]

const CACHE = join(
  process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'),
  `holdfast/kubernetes-${VERSION}`,
)

/** Programs that `test/e2e/kubernetes/parts/build` compiles. */
export const APISERVER = join(CACHE, 'kube-apiserver')
export const KUBELET = join(CACHE, 'kubelet')
export const CONTROLLERS = join(CACHE, 'kube-controller-manager')
export const SCHEDULER = join(CACHE, 'kube-scheduler')
/** Where Debian and Fedora have the CNI plugins. */
export const CNI = '/usr/lib/cni'

const SBIN = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
export const PATH = `${process.env['PATH'] ?? ''}:${SBIN}`

function runs(command: string, ...args: readonly string[]): boolean {
  return spawnSync(command, args, { env: { PATH } }).status === 0
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** Why containers cannot be run here; undefined when they can. */
export function missingForContainers(): string | undefined {
  if (process.getuid?.() !== 0) return 'root'
  if (!runs('unshare', '--mount', '--net', 'true')) return 'the right to make namespaces'
  if (!runs('containerd', '--version') || !runs('ctr', '--version')) return 'containerd'
  if (!runs('runc', '--version')) return 'runc'
  return isProgram('/usr/bin/busybox') || isProgram('/bin/busybox') ? undefined : 'busybox-static'
}

/** Why no cluster can be run here; undefined when it can. */
export function missingForCluster(): string | undefined {
  const lacking = missingForContainers()
  if (lacking) return lacking
  if (!runs('etcd', '--version')) return 'etcd-server'
  if (!isProgram(join(CNI, 'bridge'))) return 'containernetworking-plugins'
  if (!runs('ip', '-V')) return 'iproute2'
  if (isProgram(APISERVER) && isProgram(KUBELET)) return undefined
  return `kube-apiserver and kubelet ${VERSION}, which test/e2e/kubernetes/parts/build compiles in minutes`
}

/** Why no cluster with controllers can be run here; undefined when it can. */
export function missingForControllers(): string | undefined {
  const lacking = missingForCluster()
  if (lacking) return lacking
  if (isProgram(CONTROLLERS) && isProgram(SCHEDULER)) return undefined
  return `kube-controller-manager and kube-scheduler ${VERSION}, which test/e2e/kubernetes/parts/build compiles`
}
