/** The lines of audit files and what a verifier reads in one, within bounds. */
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { parseJsonObject } from '../base/json.ts'
import { LINE_LIMIT } from './audit-sink.ts'

/** One line without its line feed. */
export interface AuditLine {
  readonly file: string
  /** Counted from 1. */
  readonly line: number
  readonly bytes: Buffer
  /** Why it can be no record: it has no end, or its end is too far away. */
  readonly flaw?: 'unfinished' | 'too long'
}

/** The members that hold the chain together. */
export interface ChainedRecord {
  readonly seq: number
  readonly boot: string
  readonly prev: string
  readonly event: string
  readonly members: Readonly<Record<string, unknown>>
}

const CHUNK = 1024 * 1024
const LINE_FEED = 10

/** All lines of `files` in order; never more than one line and one chunk in memory. */
export function* readAuditLines(files: Iterable<string>): Generator<AuditLine> {
  for (const file of files) {
    const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      yield* splitLines(file, chunksOf(fd))
    } finally {
      closeSync(fd)
    }
  }
}

function* chunksOf(fd: number): Generator<Buffer> {
  for (;;) {
    const chunk = Buffer.alloc(CHUNK)
    const length = readSync(fd, chunk)
    if (length === 0) return
    yield chunk.subarray(0, length)
  }
}

/** The lines in a sequence of chunks; of an overlong one only the first bytes. */
export function* splitLines(file: string, chunks: Iterable<Buffer>): Generator<AuditLine> {
  let line = 1
  let rest = Buffer.alloc(0)
  const cut = (bytes: Buffer): AuditLine =>
    bytes.length > LINE_LIMIT
      ? { file, line, bytes: bytes.subarray(0, LINE_LIMIT), flaw: 'too long' }
      : { file, line, bytes }
  for (const chunk of chunks) {
    let start = 0
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, start)) {
      yield cut(Buffer.concat([rest, chunk.subarray(start, end)]))
      rest = Buffer.alloc(0)
      start = end + 1
      line++
    }
    // One byte over the limit is enough to know.
    rest = Buffer.concat([rest, chunk.subarray(start)]).subarray(0, LINE_LIMIT + 1)
  }
  if (rest.length > 0) yield { ...cut(rest), flaw: 'unfinished' }
}

/** The record in a line; undefined when it is none. */
export function parseRecord({ bytes, flaw }: AuditLine): ChainedRecord | undefined {
  if (flaw) return undefined
  try {
    const members = parseJsonObject(bytes.toString(), { maxBytes: LINE_LIMIT, maxDepth: 3 })
    const { seq, boot, prev, event } = members
    if (!Number.isSafeInteger(seq) || typeof boot !== 'string' || boot === '') return undefined
    if (typeof prev !== 'string' || typeof event !== 'string') return undefined
    return { seq: seq as number, boot, prev, event, members }
  } catch {
    return undefined
  }
}
