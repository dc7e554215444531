/**
 * Files that the agent believes: configuration, policy, keys of a CA. Nobody but root and the agent's own user may be
 * able to change them, at any step of the path, symlinks included.
 */
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  type Stats,
} from 'node:fs'
import { dirname, parse, resolve } from 'node:path'
import { Fault } from './fault.ts'

const LINKS_LIMIT = 40
const OTHERS_WRITE = 0o022
const OTHERS_READ = 0o007
const STICKY = 0o1000

export interface TrustedOptions {
  /** The most that is read, in bytes. */
  readonly maxBytes: number
  /** Whether other users must not be able to read it either. */
  readonly secret?: boolean
}

/** The bytes of `path`; throws policy_writable, or config_invalid when it cannot be read. */
export function readTrusted(path: string, options: TrustedOptions): Buffer {
  const real = trustedPath(path)
  let fd: number
  try {
    fd = openSync(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    throw unreadable(path, error)
  }
  try {
    const stats = fstatSync(fd)
    checkFile(path, stats, options)
    return readAll(fd, stats.size, path)
  } finally {
    closeSync(fd)
  }
}

/** `path` without symlinks; throws policy_writable when others can change where it leads. */
export function trustedPath(path: string): string {
  let links = 0
  let real = parse(resolve(path)).root
  const steps = partsOf(resolve(path))
  checkDirectory(path, real)
  for (let step = steps.shift(); step !== undefined; step = steps.shift()) {
    const next = resolve(real, step)
    const stats = statOf(next, path)
    if (stats.isSymbolicLink()) {
      links += 1
      if (links > LINKS_LIMIT) throw new Fault('config_invalid', `${path}: too many symlinks`)
      checkOwner(path, next, stats)
      const target = resolve(dirname(next), readlinkSync(next))
      real = parse(target).root
      steps.unshift(...partsOf(target))
      continue
    }
    real = next
    if (stats.isDirectory()) checkDirectory(path, real, stats)
  }
  return real
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '')
}

function statOf(path: string, asked: string): Stats {
  try {
    return lstatSync(path)
  } catch (error) {
    throw unreadable(asked, error)
  }
}

function checkDirectory(path: string, directory: string, stats = statOf(directory, path)): void {
  checkOwner(path, directory, stats)
  // In a sticky directory nobody can replace what another user owns; on a read-only mount nobody can at all.
  if ((stats.mode & OTHERS_WRITE) === 0 || (stats.mode & STICKY) !== 0 || isReadOnly(directory)) return
  throw new Fault(
    'policy_writable',
    `${path}: others may write the directory ${directory}, mode ${octal(stats)}`,
  )
}

function isReadOnly(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK)
    return false
  } catch (error) {
    return codeOf(error) === 'EROFS'
  }
}

function checkFile(path: string, stats: Stats, options: TrustedOptions): void {
  if (!stats.isFile()) throw new Fault('config_invalid', `${path}: not a regular file`)
  checkOwner(path, path, stats)
  if ((stats.mode & OTHERS_WRITE) !== 0) {
    throw new Fault('policy_writable', `${path}: others may write it, mode ${octal(stats)}`)
  }
  if (options.secret && (stats.mode & OTHERS_READ) !== 0) {
    throw new Fault('policy_writable', `${path}: others may read this key, mode ${octal(stats)}`, {
      action: 'chmod o-rwx the file.',
    })
  }
  if (stats.size > options.maxBytes)
    throw new Fault('config_invalid', `${path}: over ${options.maxBytes} bytes`)
}

function checkOwner(path: string, step: string, stats: Stats): void {
  if (stats.uid === 0 || stats.uid === process.geteuid?.()) return
  throw new Fault('policy_writable', `${path}: ${step} belongs to uid ${stats.uid}, not to root or the agent`)
}

function octal(stats: Stats): string {
  return (stats.mode & 0o7777).toString(8).padStart(4, '0')
}

/** A file that grows while it is read is cut at the size it was checked with. */
function readAll(fd: number, size: number, path: string): Buffer {
  const buffer = Buffer.alloc(size)
  let filled = 0
  while (filled < size) {
    const count = readSync(fd, buffer, filled, size - filled, null)
    if (count === 0) throw new Fault('config_invalid', `${path}: changed while it was read`)
    filled += count
  }
  return buffer
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
}

function unreadable(path: string, error: unknown): Fault {
  const why = codeOf(error) === 'ENOENT' ? 'does not exist' : `cannot be read (${codeOf(error)})`
  return new Fault('config_invalid', `${path}: ${why}`, { cause: error })
}
