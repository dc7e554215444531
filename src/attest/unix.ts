/** The `unix:` selectors of a peer on the host, with SPIRE's spelling. */
import { readFileSync } from 'node:fs'
import { makeSelector, type Selector } from '../spiffe/selector.ts'
import type { Accounts } from './accounts.ts'
import type { Kernel } from './kernel.ts'
import type { OpenPeer } from './peer.ts'

/** The numbers that the kernel shows for ids it cannot map into the agent's user namespace. */
export interface OverflowIds {
  readonly uid: number
  readonly gid: number
}

/** A user namespace may grant its owner 65,536 supplementary groups; no entry needs so many. */
const GROUPS_LIMIT = 1_024

/** The overflow ids of this kernel; 65534 where it does not say. */
export function readOverflowIds(): OverflowIds {
  return { uid: readNumber('/proc/sys/kernel/overflowuid'), gid: readNumber('/proc/sys/kernel/overflowgid') }
}

function readNumber(path: string): number {
  try {
    const number = Number.parseInt(readFileSync(path, 'utf8'), 10)
    return Number.isNaN(number) ? 65_534 : number
  } catch {
    return 65_534
  }
}

/** Who the peer is by its ids; nobody at all when its uid is the overflow uid, behind which may be anyone. */
export function idSelectors(
  peer: OpenPeer,
  accounts: Accounts,
  overflow: OverflowIds,
  what: 'all' | 'numbers' = 'all',
): readonly Selector[] {
  if (peer.uid === overflow.uid) return []
  // The names of a container's users are its own, whatever those numbers are called on the node.
  const hasNames = what === 'all'
  const selectors = [makeSelector('unix:uid', peer.uid)]
  const user = hasNames ? accounts.userName(peer.uid) : undefined
  if (user !== undefined) selectors.push(makeSelector('unix:user', user))
  const groups = peer.groups.slice(0, GROUPS_LIMIT)
  for (const [kind, gids] of [
    ['', [peer.gid]],
    ['supplementary_', groups],
  ] as const) {
    for (const gid of gids) {
      if (gid === overflow.gid) continue
      selectors.push(makeSelector(`unix:${kind}gid`, gid))
      const group = hasNames ? accounts.groupName(gid) : undefined
      if (group !== undefined) selectors.push(makeSelector(`unix:${kind}group`, group))
    }
  }
  return selectors
}

/**
 * `unix:path`, when the name leads to the same file in the agent's own mount namespace: anybody may bind a file over
 * any name in a namespace of their own.
 */
export function pathSelectors(peer: OpenPeer, kernel: Kernel): readonly Selector[] {
  if (!peer.program?.path.startsWith('/')) return []
  const here = kernel.cachedFileIdentity(peer.program.path)
  const { device, inode } = peer.program.identity
  return here?.device === device && here.inode === inode ? [makeSelector('unix:path', peer.program.path)] : []
}
