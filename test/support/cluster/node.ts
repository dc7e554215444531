/**
 * A node of its own on this machine: a network and a mount namespace in which the programs of a cluster run, with a
 * /run, a /var/log and a /var/lib that nobody else sees. Its processes have the pids of the machine, as on a real node.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { closeGroups, openGroups, pidsIn } from './groups.ts'
import { connectNetwork, type Network } from './network.ts'
import { PATH } from './parts.ts'
import { endAll, endChild, run, shimsOf } from './processes.ts'

export interface Node extends AsyncDisposable {
  readonly dir: string
  readonly network: Network
  /** The cgroup below which all containers run, such as `/holdfast-123`. */
  readonly group: string
  /** Starts a program in the node; its output goes to DIR/NAME.log. */
  start(name: string, command: readonly string[], env?: Readonly<Record<string, string>>): ChildProcess
  /** Runs one to its end; throws when it fails. */
  run(...command: readonly string[]): string
  /** `command` as this machine has to start it to have it run in the node. */
  inside(command: readonly string[]): readonly string[]
  /** A file of the node, as this machine reaches it. */
  path(file: string): string
  /** The end of a program's output, to be shown with a failure. */
  logOf(name: string): string
  /** Ends a program gently; after five seconds with force. */
  stop(child: ChildProcess): Promise<void>
}

/** What a kubelet wants of the kernel: it finds these values, and leaves those of the machine alone. */
const TUNABLES = {
  'kernel/keys/root_maxbytes': 25_000_000,
  'kernel/keys/root_maxkeys': 1_000_000,
  'kernel/panic': 10,
  'kernel/panic_on_oops': 1,
  'vm/overcommit_memory': 1,
  'vm/panic_on_oom': 0,
}

const SETUP = [
  'mount --make-rprivate /',
  'for place in /run /var/log /var/lib; do mount -t tmpfs tmpfs $place; done',
  ...Object.entries(TUNABLES).map(
    ([name, value], at) =>
      `echo ${value} >/run/.tunable-${at} && mount --bind /run/.tunable-${at} /proc/sys/${name}`,
  ),
  'mount --make-rshared /',
  'ip link set lo up',
  'echo 1 >/proc/sys/net/ipv4/ip_forward',
  'echo ready',
  'exec sleep infinity',
].join(' && ')

/** Makes the node; disposing of it ends every process in it. */
export async function openNode(): Promise<Node> {
  const dir = mkdtempSync(join(tmpdir(), 'hf-node-'))
  const holder = spawn('unshare', ['--mount', '--net', 'sh', '-c', SETUP], {
    env: { PATH },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(holder.stdout, 'data')
  const pid = holder.pid ?? 0
  const network = connectNetwork(pid)
  const group = `/holdfast-${pid}`
  openGroups(group)
  const enter = ['nsenter', '--target', String(pid), '--mount', '--net', '--']
  const children = new Set<ChildProcess>()
  const node: Node = {
    dir,
    network,
    group,
    inside: (command) => [...enter, ...command],
    path: (file) => join(`/proc/${pid}/root`, file),
    logOf: (name) =>
      readFileSync(join(dir, `${name}.log`), 'utf8')
        .split('\n')
        .slice(-30)
        .join('\n'),
    start: (name, command, env = {}) => {
      const log = openSync(join(dir, `${name}.log`), 'a')
      const [program = '', ...args] = node.inside(command)
      const child = spawn(program, args, { env: { PATH, ...env }, stdio: ['ignore', log, log] })
      closeSync(log)
      children.add(child)
      child.once('exit', () => children.delete(child))
      return child
    },
    run: (...command) => {
      const [program = '', ...args] = node.inside(command)
      return run(program, ...args)
    },
    stop: endChild,
    [Symbol.asyncDispose]: async () => {
      for (const child of children) child.kill('SIGKILL')
      await endAll(() => [...pidsIn(group), ...shimsOf(dir)])
      holder.kill('SIGKILL')
      await closeGroups(group)
      rmSync(dir, { recursive: true, force: true })
    },
  }
  return node
}
