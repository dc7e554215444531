/** Further names of the workload socket, beside it: relative links, so that they lead the same way in every mount. */
import { lstatSync, readlinkSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Fault } from '../base/fault.ts'

/** One file name, none of the agent's own. */
export const ALIAS = /^(?!(?:workload|egress|verifier)\.sock$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/**
 * Makes each of `names` a link to `socket`, and says which were sockets of somebody else's: whoever expects the name would
 * believe them, an istio-agent that was given the directory writable say. Throws socket_unusable for files and directories.
 */
export function linkAliases(socket: string, names: readonly string[]): readonly string[] {
  return names.filter((name) => linkAlias(socket, join(dirname(socket), name)) === 'socket')
}

function linkAlias(socket: string, path: string): Found {
  const target = basename(socket)
  const found = foundAt(path, target)
  if (found === 'ours') return found
  const temporary = `${path}.${process.pid}`
  try {
    // Of an agent of the same pid that was killed: in a container all have one.
    rmSync(temporary, { force: true })
    symlinkSync(target, temporary)
    renameSync(temporary, path)
    return found
  } catch (error) {
    throw new Fault('socket_unusable', `${path} cannot be made a link to ${target}`, { cause: error })
  }
}

type Found = 'ours' | 'none' | 'link' | 'socket'

function foundAt(path: string, target: string): Found {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (!stats) return 'none'
  if (stats.isSocket()) return 'socket'
  if (stats.isSymbolicLink()) return readlinkSync(path) === target ? 'ours' : 'link'
  throw new Fault(
    'socket_unusable',
    `${path} is there, no link and no socket: socket_aliases cannot replace it`,
  )
}
