/** The agent's directory: its own, not a link, closed where it must be. */
import { chmodSync, lstatSync, mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Fault } from '../base/fault.ts'
import { trustedPath } from '../base/trusted.ts'

/** The sockets and files below one directory. */
export interface Directories {
  readonly dir: string
  readonly workloadSocket: string
  readonly egressSocket: string
  readonly verifierSocket: string
  readonly adminSocket: string
  readonly revocations: string
  readonly policy: string
}

const ROOT_UID = 0

/** The paths below `dir`; nothing is created. */
export function directoriesOf(dir: string): Directories {
  const root = resolve(dir)
  return {
    dir: root,
    workloadSocket: join(root, 'public', 'workload.sock'),
    egressSocket: join(root, 'public', 'egress.sock'),
    verifierSocket: join(root, 'public', 'verifier.sock'),
    adminSocket: join(root, 'private', 'admin.sock'),
    revocations: join(root, 'private', 'revocations.json'),
    policy: join(root, 'policy'),
  }
}

/**
 * Makes `dir` and `public` 0755 and `private` 0700; throws socket_unusable for a link, somebody else's directory, and one below
 * a directory where others may put theirs in its place.
 */
export function prepareDirectories(dir: string): Directories {
  const paths = directoriesOf(dir)
  prepare(paths.dir, 0o755)
  const fault = placeFault(paths.dir)
  if (fault) throw fault
  prepare(join(paths.dir, 'public'), 0o755)
  prepare(join(paths.dir, 'private'), 0o700)
  return paths
}

/** Why others could put a directory of theirs in the place of `dir`; undefined where only root and this user could. */
export function placeFault(dir: string): Fault | undefined {
  try {
    trustedPath(dir)
    return undefined
  } catch (error) {
    return new Fault('socket_unusable', Fault.from(error).message, {
      action: 'Take the right to write from others, or choose another --dir.',
      cause: error,
    })
  }
}

function prepare(path: string, mode: number): void {
  try {
    mkdirSync(path, { recursive: true, mode })
  } catch (error) {
    throw new Fault('socket_unusable', `${path} cannot be created`, { cause: error })
  }
  const stat = lstatSync(path)
  if (stat.isSymbolicLink() || !stat.isDirectory())
    throw new Fault('socket_unusable', `${path} is not a directory of its own`)
  const own = process.geteuid?.() ?? ROOT_UID
  if (stat.uid !== own && stat.uid !== ROOT_UID) {
    throw new Fault('socket_unusable', `${path} belongs to uid ${stat.uid}, wanted ${own} or root`)
  }
  if ((stat.mode & 0o777) === mode) return
  try {
    chmodSync(path, mode)
  } catch (error) {
    throw new Fault(
      'socket_unusable',
      `${path} has mode ${(stat.mode & 0o777).toString(8)}, wanted ${mode.toString(8)}`,
      {
        cause: error,
      },
    )
  }
}
