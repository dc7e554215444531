/** How a node is reached: a cable between this machine and the network namespace of the node. */
import { run } from './processes.ts'

/** Addresses of a node, none of which this machine uses besides. */
export interface Network {
  /** This machine, as the node sees it. */
  readonly outside: string
  readonly node: string
  /** Of pods, in CIDR form. */
  readonly pods: string
}

/** A cable between this machine and the namespace; it goes when the namespace does. */
export function connectNetwork(pid: number): Network {
  const third = 1 + (pid % 250)
  const network = { outside: `10.213.${third}.1`, node: `10.213.${third}.2`, pods: `10.214.${third}.0/24` }
  const here = `hf${pid}`
  run('ip', 'link', 'add', here, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(pid))
  run('ip', 'addr', 'add', `${network.outside}/30`, 'dev', here)
  run('ip', 'link', 'set', here, 'up')
  const enter = ['--target', String(pid), '--net', '--', 'ip']
  run('nsenter', ...enter, 'addr', 'add', `${network.node}/30`, 'dev', 'eth0')
  run('nsenter', ...enter, 'link', 'set', 'eth0', 'up')
  run('nsenter', ...enter, 'route', 'add', 'default', 'via', network.outside)
  run('ip', 'route', 'add', network.pods, 'via', network.node)
  return network
}
