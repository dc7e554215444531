/** Where audit lines go: a file that rotates, a descriptor, or nowhere. A sink writes bytes and knows no record. */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Fault } from '../base/fault.ts'
import { CHAIN_START, type ChainEnd, sha256 } from './audit-chain.ts'

/** What an opened sink holds already. */
export interface Found {
  readonly end: ChainEnd
  /** Whether the last line lacks its line feed. */
  readonly isOpen?: boolean
  /** What that line is when it is not even a whole record. */
  readonly torn?: { readonly bytes: number; readonly hash: string } | undefined
}

/** A place for bytes. Every function throws errno errors; after one the sink may be used again. */
export interface Sink {
  /** Opens the place; throws config_invalid or policy_writable for one that must not be used. */
  open(): Found
  /** Writes from `start` on; returns how many bytes were taken, at least 1. */
  write(bytes: Uint8Array, start: number): number
  /** Whether lines can be read again, so that a checkpoint has a use. */
  readonly isKept: boolean
  /** Whether the next line belongs in a new file. */
  isFull(): boolean
  /** The `seq` of the oldest record that `rotate` will keep; undefined when it drops nothing. */
  firstKept(): number | undefined
  rotate(): void
  /** Opens the file anew when the name no longer leads to it. */
  follow(): void
  close(): void
}

export interface FileLimits {
  readonly rotateBytes: number
  /** Rotated files beside the current one, at least 1. */
  readonly keep: number
}

/** A line is shorter: at most 36 strings of 1,024 characters, 6 bytes each when escaped. */
export const LINE_LIMIT = 256 * 1024

/** The files of an audit log, oldest first: `audit.log.2`, `audit.log.1`, `audit.log`. */
export function auditFiles(path: string): readonly string[] {
  return [...rotatedFiles(path).map(({ file }) => file), path]
}

function rotatedFiles(path: string): readonly { readonly file: string; readonly age: number }[] {
  const prefix = `${basename(path)}.`
  return readdirSync(dirname(path), { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.startsWith(prefix))
    .filter(({ name }) => /^[1-9]\d{0,5}$/.test(name.slice(prefix.length)))
    .map(({ name }) => ({ file: join(dirname(path), name), age: Number(name.slice(prefix.length)) }))
    .sort((a, b) => b.age - a.age)
}

/** Lines appended to `path`; two agents may do so at once while one takes over from the other. */
export function fileSink(path: string, limits: FileLimits): Sink {
  let fd = -1
  let size = 0
  const openFile = () => {
    fd = openLogFile(path)
    size = fstatSync(fd).size
  }
  const closeFile = () => {
    if (fd >= 0) closeSync(fd)
    fd = -1
  }
  const isOurs = () => fd >= 0 && statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino
  const reopen = () => {
    closeFile()
    openFile()
  }
  return {
    open: () => {
      reopen()
      return foundIn(path)
    },
    write: (bytes, start) => {
      if (fd < 0) openFile()
      const written = writeSome(fd, bytes, start)
      size += written
      return written
    },
    isKept: true,
    isFull: () => size >= limits.rotateBytes,
    firstKept: () => (isOurs() ? firstKept(path, limits.keep) : undefined),
    rotate: () => {
      // Whoever rotated first has moved our file; moving the new one would leave its first lines behind ours.
      if (isOurs()) shift(path, limits.keep)
      reopen()
    },
    follow: () => {
      if (!isOurs()) reopen()
    },
    close: closeFile,
  }
}

/** Opens for appending without following a link; the file is ours or root's and nobody else's to write. */
function openLogFile(path: string): number {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants
  const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600)
  const stat = fstatSync(fd)
  const owner = process.geteuid?.() ?? 0
  if (stat.isFile() && (stat.mode & 0o022) === 0 && (stat.uid === owner || stat.uid === 0)) return fd
  closeSync(fd)
  if (!stat.isFile()) throw new Fault('config_invalid', `${path}: the audit log is not a regular file`)
  throw new Fault('policy_writable', `${path}: others may write the audit log`)
}

/** The last line; after a crash while rotating, the newest file holds none and an older one does. */
function foundIn(path: string): Found {
  const files = auditFiles(path).toReversed()
  const newest = files.map((file) => readEdge(file, 'tail')).find((tail) => tail.length > 0)
  const rest = newest?.subarray(newest.lastIndexOf(10) + 1) ?? Buffer.alloc(0)
  const isOpen = rest.length > 0
  const seq = seqOf(rest)
  if (seq !== undefined) return { end: { seq, hash: sha256(rest) }, isOpen }
  const torn = isOpen ? { bytes: rest.length, hash: sha256(rest) } : undefined
  for (const file of files) {
    const end = lastWhole(readEdge(file, 'tail'))
    if (end) return { end, isOpen, torn }
  }
  return { end: CHAIN_START, isOpen, torn }
}

function lastWhole(tail: Buffer): ChainEnd | undefined {
  const stop = tail.lastIndexOf(10)
  if (stop < 0) return undefined
  const whole = tail.subarray(0, stop)
  const line = whole.subarray(whole.lastIndexOf(10) + 1)
  return { seq: seqOf(line) ?? 0, hash: sha256(line) }
}

/** The first or last bytes of a file, enough for one line. */
function readEdge(file: string, edge: 'head' | 'tail'): Buffer {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const { size } = fstatSync(fd)
    const bytes = Buffer.alloc(Math.min(size, 2 * LINE_LIMIT))
    const position = edge === 'head' ? 0 : size - bytes.length
    return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, position))
  } finally {
    closeSync(fd)
  }
}

function seqOf(line: Uint8Array): number | undefined {
  try {
    const { seq } = JSON.parse(Buffer.from(line).toString()) as { seq?: unknown }
    return Number.isSafeInteger(seq) ? (seq as number) : undefined
  } catch {
    return undefined
  }
}

function firstKept(path: string, keep: number): number | undefined {
  const rotated = rotatedFiles(path)
  if (!rotated.some(({ age }) => age >= keep)) return undefined
  const oldest = rotated.find(({ age }) => age < keep)?.file ?? path
  const head = readEdge(oldest, 'head')
  return seqOf(head.subarray(0, head.indexOf(10)))
}

/** Moves each file one name on; what is older than `keep` goes. */
function shift(path: string, keep: number): void {
  for (const { file, age } of rotatedFiles(path)) {
    if (age >= keep) unlinkSync(file)
    else renameSync(file, `${path}.${age + 1}`)
  }
  renameSync(path, `${path}.1`)
}

const FULL_PIPE_WAITS = 20
const FULL_PIPE_WAIT_MS = 1
const waiting = new Int32Array(new SharedArrayBuffer(4))

/** Lines on a descriptor; the chain begins anew with each boot. */
export function descriptorSink(fd: number): Sink {
  let isStuck = false
  const write = (bytes: Uint8Array, start: number): number => {
    for (let waits = 0; ; waits++) {
      try {
        const written = writeSome(fd, bytes, start)
        isStuck = false
        return written
      } catch (error) {
        // A burst may outrun the reader of a pipe for a moment; one that has stopped must not stop the agent.
        if (codeOf(error) !== 'EAGAIN' || isStuck || waits === FULL_PIPE_WAITS) {
          isStuck = true
          throw error
        }
        Atomics.wait(waiting, 0, 0, FULL_PIPE_WAIT_MS)
      }
    }
  }
  return { ...nowhere, isKept: true, write }
}

const nowhere = {
  open: (): Found => ({ end: CHAIN_START }),
  isKept: false,
  isFull: () => false,
  firstKept: () => undefined,
  rotate: () => {},
  follow: () => {},
  close: () => {},
}

/** Takes everything and keeps nothing. */
export function noSink(): Sink {
  return { ...nowhere, write: (bytes, start) => bytes.length - start }
}

/** A write that takes nothing would be tried for ever. */
function writeSome(fd: number, bytes: Uint8Array, start: number): number {
  const written = writeSync(fd, bytes, start)
  if (written === 0) throw Object.assign(new Error('nothing was written'), { code: 'EIO' })
  return written
}

/** The errno name of a caught error; its text may name more than it should. */
export function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' && /^E[A-Z0-9]{1,20}$/.test(code) ? code : 'error'
}
