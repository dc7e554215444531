/** Further names of the workload socket, beside it: relative links, so that they lead the same way in every mount. */
import { lstatSync, readlinkSync, renameSync, symlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Fault } from '../base/fault.ts'

/** One file name, none of the agent's own. */
export const ALIAS = /^(?!(?:workload|egress|verifier)\.sock$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/** Makes each of `names` a link to `socket`; throws socket_unusable where something else has that name. */
export function linkAliases(socket: string, names: readonly string[]): void {
  for (const name of names) linkAlias(socket, join(dirname(socket), name))
}

function linkAlias(socket: string, path: string): void {
  const target = basename(socket)
  if (isLinkTo(path, target)) return
  const temporary = `${path}.${process.pid}`
  try {
    symlinkSync(target, temporary)
    renameSync(temporary, path)
  } catch (error) {
    throw new Fault('socket_unusable', `${path} cannot be made a link to ${target}`, { cause: error })
  }
}

function isLinkTo(path: string, target: string): boolean {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (!stats) return false
  if (!stats.isSymbolicLink())
    throw new Fault('socket_unusable', `${path} is there and no link: socket_aliases cannot replace it`)
  return readlinkSync(path) === target
}
