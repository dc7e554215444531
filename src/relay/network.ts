/** Whether this process is in the network namespace of the host, where every process of the host reaches its loopback. */
import { existsSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'

/** PROC_PID_INIT_INO of the kernel: the pid namespace that the machine began with. */
const FIRST_PIDS = 'pid:[4026531836]'

/** Throws usage in the host's network namespace, unless that was allowed by name. */
export function checkNetwork(isAllowed: boolean, proc = '/proc'): void {
  if (isAllowed || !isHostNetwork(proc)) return
  throw new Fault(
    'usage',
    "this is the network of the host, where every process of every user reaches the port: only the secret would stand between them and this process's identity",
    {
      action:
        'Run the sidecar in the pod or container of its clients, or accept the weaker protection with --allow-host-network (outside of containers there is no other way).',
    },
  )
}

/**
 * The kernel shows some settings in the first network namespace only. Process 1 is the host's in the first pid namespace
 * alone: in any other it is the container's own, whose network says nothing of the host's.
 */
export function isHostNetwork(proc: string): boolean {
  if (existsSync(join(proc, 'sys/net/core/netdev_max_backlog'))) return true
  if (linkOf(join(proc, 'self/ns/pid')) !== FIRST_PIDS) return false
  const first = linkOf(join(proc, '1/ns/net'))
  return first !== undefined && first === linkOf(join(proc, 'self/ns/net'))
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}
