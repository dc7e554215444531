/** A real containerd in a node, its network for pods, and commands in its containers. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../until.ts'
import type { Node } from './node.ts'
import { CNI, PATH } from './parts.ts'

export const PAUSE = 'holdfast.test/pause:1'
const NAMESPACE = 'k8s.io'

export interface Output {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

export interface Containers {
  readonly socket: string
  import(archive: string): void
  ctr(...args: readonly string[]): string
  /** Starts a command in a container, in its namespaces and its cgroup. */
  start(container: string, command: readonly string[], user?: string): ChildProcess
  exec(container: string, command: readonly string[], user?: string): Promise<Output>
  /** Has it hang, so that nothing starts and nothing ends; then go on. */
  hang(isHanging: boolean): void
}

/** Starts it and waits until it answers. */
export async function openContainers(node: Node): Promise<Containers> {
  const place = join(node.dir, 'containerd')
  mkdirSync(place)
  const socket = join(node.dir, 'containerd.sock')
  writeFileSync(join(place, 'config.toml'), settings(place, socket))
  writeNetwork(join(place, 'net.d'), node)
  const daemon = node.start('containerd', ['containerd', '--config', join(place, 'config.toml')])
  const client = ['ctr', '--address', socket, '--namespace', NAMESPACE]
  const ctr = (...args: readonly string[]) => node.run(...client, ...args)
  await until('containerd', () => tries(() => ctr('version')), 20_000)
  let count = 0
  const start: Containers['start'] = (container, command, user) => {
    const as = user === undefined ? [] : ['--user', user]
    const id = `exec-${++count}`
    const [program = '', ...args] = node.inside([
      ...client,
      'task',
      'exec',
      '--exec-id',
      id,
      ...as,
      container,
      ...command,
    ])
    return spawn(program, args, { env: { PATH }, stdio: ['ignore', 'pipe', 'pipe'] })
  }
  return {
    socket,
    ctr,
    import: (archive) => void ctr('images', 'import', '--no-unpack', archive),
    start,
    exec: (container, command, user) => outputOf(start(container, command, user)),
    hang: (isHanging) => void daemon.kill(isHanging ? 'SIGSTOP' : 'SIGCONT'),
  }
}

function tries(work: () => unknown): boolean {
  try {
    work()
    return true
  } catch {
    return false
  }
}

/** What a command wrote, when it has ended. */
export function outputOf(child: ChildProcess): Promise<Output> {
  let [out, err] = ['', '']
  child.stdout?.on('data', (chunk) => (out += chunk))
  child.stderr?.on('data', (chunk) => (err += chunk))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, out, err }))
  })
}

function settings(place: string, socket: string): string {
  return `version = 2
root = "${place}/root"
state = "${place}/state"
oom_score = 0
[grpc]
address = "${socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "${PAUSE}"
# A machine where root may not lower a score would start no container.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "${CNI}"
conf_dir = "${place}/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.internal.v1.opt"]
path = "${place}/opt"
`
}

/** A bridge for the pods of this node; whatever is not in it goes through the node. */
function writeNetwork(folder: string, node: Node): void {
  mkdirSync(folder)
  const routes = [{ dst: '0.0.0.0/0' }]
  const ipam = {
    type: 'host-local',
    ranges: [[{ subnet: node.network.pods }]],
    routes,
    dataDir: join(folder, 'addresses'),
  }
  const bridge = { type: 'bridge', bridge: 'pods', isGateway: true, hairpinMode: true, ipam }
  const conflist = { cniVersion: '0.4.0', name: 'pods', plugins: [bridge] }
  writeFileSync(join(folder, '10-pods.conflist'), JSON.stringify(conflist))
}
