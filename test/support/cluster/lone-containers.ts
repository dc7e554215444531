/** Real containers where a kubelet would have them, without a kubelet: made by containerd and runc at a cgroup of choice. */
import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Containers, type Output, openContainers } from './containers.ts'
import { HIERARCHIES } from './groups.ts'
import { IMAGE, packAgent } from './images.ts'
import { type Node, openNode } from './node.ts'

export interface LoneContainer {
  /** 64 hex digits. */
  readonly id: string
  /** Its cgroup, from the root of each hierarchy. */
  readonly group: string
  exec(command: readonly string[], user?: string): Promise<Output>
  /** Asks the agent; what `caller.mjs` says. */
  ask(url?: string, user?: string): Promise<{ readonly status: number; readonly body: string }>
  stop(): void
}

export interface LoneOptions {
  readonly id?: string
  /** The directories between the node's root and the container: `kubepods/burstable/podUID` when absent. */
  readonly below?: string
  /** Whether it may write its own cgroups, which it then finds at /cgroup/0, /cgroup/1 and so on. */
  readonly hasCgroups?: boolean
}

export interface LoneNode extends AsyncDisposable {
  readonly node: Node
  readonly containers: Containers
  /** Runs a container of the pod `uid`, which sees the directory `sockets` read-only. */
  run(uid: string, sockets: string, options?: LoneOptions): LoneContainer
}

/** Starts containerd. */
export async function openLoneNode(): Promise<LoneNode> {
  const node = await openNode()
  const containers = await openContainers(node)
  containers.ctr('images', 'import', packAgent(node.dir))
  return {
    node,
    containers,
    run: (uid, sockets, options = {}) => {
      const id = options.id ?? newContainerId()
      const group = join(node.group, options.below ?? `kubepods/burstable/pod${uid}`, id)
      const mounts = [`type=bind,src=${sockets},dst=/run/holdfast,options=rbind:ro`]
      if (options.hasCgroups) mounts.push(...cgroupMounts(group))
      containers.ctr(
        'run',
        '--detach',
        '--cgroup',
        group,
        ...mounts.flatMap((mount) => ['--mount', mount]),
        IMAGE,
        id,
        '/bin/busybox',
        'sleep',
        '2147483647',
      )
      return containerOf(containers, id, group)
    },
    [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
  }
}

export const newContainerId = () => randomBytes(32).toString('hex')

function cgroupMounts(group: string): readonly string[] {
  return HIERARCHIES.map(({ place }, index) => {
    mkdirSync(join(place, group), { recursive: true })
    return `type=bind,src=${join(place, group)},dst=/cgroup/${index},options=rbind:rw`
  })
}

function containerOf(containers: Containers, id: string, group: string): LoneContainer {
  const exec = (command: readonly string[], user?: string) => containers.exec(id, command, user)
  return {
    id,
    group,
    exec,
    ask: async (url = 'http://localhost/v1/identity', user) => {
      const line = await exec(
        ['/bin/node', '/app/caller.mjs', '/run/holdfast/workload.sock', 'GET', url],
        user,
      )
      const [, status, body = ''] = /^(\d+) (.*)\n$/s.exec(line.out) ?? []
      if (status === undefined) throw new Error(`the caller wrote ${line.out}${line.err}`)
      return { status: Number(status), body }
    },
    stop: () => void containers.ctr('task', 'kill', '--signal', 'SIGKILL', id),
  }
}
