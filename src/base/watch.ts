/**
 * Tells when files have changed: edited, renamed over, deleted and made again, or swapped by a symlink as ConfigMap
 * volumes do. The kernel's notices say when to look; a slow poll finds what they miss. Bursts settle into one call.
 */
import { type FSWatcher, lstatSync, readdirSync, readlinkSync, statSync, watch } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { Clock, Millis } from './clock.ts'

export interface WatchOptions {
  /** How long nothing must change before the change is told. */
  readonly settle?: Millis
  /** How often to look without a notice. */
  readonly poll?: Millis
}

/** A running watch. */
export interface Watch {
  close(): void
}

const SETTLE: Millis = 250
const POLL: Millis = 5_000
/** A writer that never rests delays a change by at most this many settle times. */
const SETTLES_LIMIT = 8
const PATHS_LIMIT = 512
const NAMES_LIMIT = 4_096
const LINKS_LIMIT = 40

/**
 * Calls `onChange` once for each settled change of `paths`: files, directories (the names in them and what they lead
 * to), or patterns with a star in the last part (their directory). What does not exist yet is awaited.
 */
export function watchFiles(
  paths: readonly string[],
  clock: Clock,
  onChange: () => void,
  options: WatchOptions = {},
): Watch {
  const watcher = new Watcher([...new Set(paths.map(pathOf))].slice(0, PATHS_LIMIT), clock, onChange, options)
  return { close: () => watcher.close() }
}

function pathOf(path: string): string {
  const full = resolve(path)
  return basename(full).includes('*') ? dirname(full) : full
}

/** States: idle (told and seen are equal) -> settling (a look is due) -> idle, told; closed from either. */
class Watcher {
  readonly #paths: readonly string[]
  readonly #clock: Clock
  readonly #onChange: () => void
  readonly #settle: Millis
  readonly #poll: Millis
  /** By directory, so that one replaced by another of its name is watched anew. */
  readonly #notices = new Map<string, { readonly inode: number; readonly watcher: FSWatcher }>()
  #told: string
  #seen: string
  #looks = 0
  #cancelLook: (() => void) | undefined
  #cancelPoll: () => void

  constructor(paths: readonly string[], clock: Clock, onChange: () => void, options: WatchOptions) {
    this.#paths = paths
    this.#clock = clock
    this.#onChange = onChange
    this.#settle = options.settle ?? SETTLE
    this.#poll = options.poll ?? POLL
    this.#arm()
    this.#told = this.#signature()
    this.#seen = this.#told
    this.#cancelPoll = clock.after(this.#poll, this.#onPoll)
  }

  close(): void {
    this.#cancelPoll()
    this.#cancelLook?.()
    for (const { watcher } of this.#notices.values()) watcher.close()
    this.#notices.clear()
  }

  readonly #onPoll = (): void => {
    this.#cancelPoll = this.#clock.after(this.#poll, this.#onPoll)
    this.#arm()
    if (this.#signature() !== this.#told) this.#onNotice()
  }

  readonly #onNotice = (): void => {
    this.#cancelLook ??= this.#clock.after(this.#settle, this.#look)
  }

  readonly #look = (): void => {
    this.#cancelLook = undefined
    this.#arm()
    const now = this.#signature()
    const hasSettled = now === this.#seen || this.#looks >= SETTLES_LIMIT
    this.#seen = now
    if (now === this.#told) {
      this.#looks = 0
      return
    }
    this.#looks += 1
    if (!hasSettled) {
      this.#onNotice()
      return
    }
    this.#looks = 0
    this.#told = now
    this.#onChange()
  }

  #signature(): string {
    return JSON.stringify(this.#paths.map(signatureOf))
  }

  /** Watches each directory on the way to a file, its symlinks followed; gives up those no longer on it. */
  #arm(): void {
    const wanted = new Map<string, number>()
    for (const path of this.#paths) for (const directory of directoriesOf(path)) note(wanted, directory)
    for (const [directory, { inode, watcher }] of this.#notices) {
      if (wanted.get(directory) === inode) continue
      watcher.close()
      this.#notices.delete(directory)
    }
    for (const [directory, inode] of wanted) if (!this.#notices.has(directory)) this.#open(directory, inode)
  }

  #open(directory: string, inode: number): void {
    try {
      const watcher = watch(directory, { persistent: false }, this.#onNotice)
      // A directory that goes away, or no inotify watches left: the poll goes on.
      watcher.on('error', () => watcher.close())
      this.#notices.set(directory, { inode, watcher })
    } catch {
      // As above.
    }
  }
}

function note(wanted: Map<string, number>, directory: string): void {
  const stats = statSync(directory, { throwIfNoEntry: false, bigint: false })
  if (stats?.isDirectory() && wanted.size < PATHS_LIMIT) wanted.set(directory, stats.ino)
}

/** The directories in which a change could change what `path` leads to. */
function directoriesOf(path: string): readonly string[] {
  const found = [path, dirname(path)]
  let next = path
  for (let links = 0; links < LINKS_LIMIT; links++) {
    const target = linkAt(next)
    if (target === undefined) break
    next = target
    found.push(dirname(next))
  }
  return found
}

/** Where the first symlink on the way along `path` leads, with the rest of the path behind it. */
function linkAt(path: string): string | undefined {
  const parts = path.split('/')
  for (let count = 2; count <= parts.length; count++) {
    const above = parts.slice(0, count).join('/')
    try {
      if (!lstatSync(above).isSymbolicLink()) continue
      return resolve(dirname(above), readlinkSync(above), ...parts.slice(count))
    } catch {
      return undefined
    }
  }
  return undefined
}

/** What tells two states of a path apart: which file it leads to, and that file's times and size. */
function signatureOf(path: string): string {
  try {
    const stats = statSync(path, { bigint: true })
    const own = `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`
    if (!stats.isDirectory()) return own
    const names = readdirSync(path)
      .filter((name) => !name.startsWith('.'))
      .sort()
    return `${names.length} ${names
      .slice(0, NAMES_LIMIT)
      .map((name) => `${name} ${fileSignature(join(path, name))}`)
      .join(' ')}`
  } catch {
    return 'none'
  }
}

function fileSignature(path: string): string {
  const stats = statSync(path, { throwIfNoEntry: false, bigint: true })
  if (!stats) return 'none'
  return stats.isDirectory()
    ? 'directory'
    : `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`
}
