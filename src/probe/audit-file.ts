/** The audit of a verifier in a file, read as it grows. */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { AuditTail, Members } from './records.ts'

const CHUNK = 1024 * 1024
const LINE = { maxBytes: 64 * 1024, maxDepth: 8 }

/** Reads what is added to `file` from now on; throws usage when it cannot be read. */
export function followFile(name: string, file: string): AuditTail {
  let at = reading(file, () => statSync(file).size)
  let rest = ''
  const pull = () => {
    const { text, end } = reading(file, () => readFrom(file, at))
    at = end
    const lines = (rest + text).split('\n')
    rest = (lines.pop() ?? '').slice(-LINE.maxBytes)
    return lines.flatMap(parsed)
  }
  return { name, pull }
}

/** A file that has become shorter is a new one, read from its beginning. */
function readFrom(file: string, at: number): { readonly text: string; readonly end: number } {
  const descriptor = openSync(file, 'r')
  try {
    const { size } = fstatSync(descriptor)
    const from = size < at ? 0 : at
    const bytes = Buffer.alloc(Math.min(size - from, CHUNK))
    const count = readSync(descriptor, bytes, 0, bytes.length, from)
    return { text: bytes.subarray(0, count).toString('utf8'), end: from + count }
  } finally {
    closeSync(descriptor)
  }
}

function parsed(line: string): readonly Members[] {
  try {
    return [parseJsonObject(line, LINE)]
  } catch {
    return []
  }
}

function reading<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw new Fault('usage', `${file}: cannot be read`, {
      action:
        "Name the audit file of the verifier's agent or its admin socket, and read it as a user that may.",
      cause: error,
    })
  }
}
