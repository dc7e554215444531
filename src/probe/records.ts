/** What the verifier's audit says of the lab's requests: followed in a file, or told by an agent's admin door. */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { REASONS, type Reason } from '../base/reasons.ts'
import type { VerifierRecord } from './answer.ts'
import type { RecordSource } from './lab.ts'

type Members = Readonly<Record<string, unknown>>

interface Found extends VerifierRecord {
  readonly jti: unknown
  readonly jkt: unknown
}

const KEPT = 256
const STEP: Millis = 50
const STEPS = 20

/** Records as they come. */
export class Records implements RecordSource {
  readonly #sleep: (ms: Millis) => Promise<void>
  readonly #pull: () => readonly Members[]
  #since: Found[] = []

  /** `pull` gives what has come since it was last called. */
  constructor(pull: () => readonly Members[], sleep: (ms: Millis) => Promise<void>) {
    this.#pull = pull
    this.#sleep = sleep
  }

  mark(): void {
    this.#pull()
    this.#since = []
  }

  async find({ jti, jkt }: { jti: string | undefined; jkt: string }): Promise<VerifierRecord | undefined> {
    for (let step = 0; ; step += 1) {
      this.#since = [...this.#since, ...this.#pull().flatMap(foundIn)].slice(-KEPT)
      const ours = this.#since.filter((one) => one.jkt === undefined || one.jkt === jkt || one.jti === jti)
      const exact = ours.find((one) => jti !== undefined && one.jti === jti)
      if (exact) return exact
      if (ours.length === 1 || step >= STEPS) return ours.length === 1 ? ours[0] : undefined
      await this.#sleep(STEP)
    }
  }
}

function foundIn({ event, allowed, reason, jti, jkt }: Members): readonly Found[] {
  if (event !== 'verify' || typeof allowed !== 'boolean') return []
  return [{ allowed, reason: reasonOf(reason), jti, jkt }]
}

function reasonOf(reason: unknown): Reason | 'other' | undefined {
  if (reason === undefined) return undefined
  return typeof reason === 'string' && Object.hasOwn(REASONS, reason) ? (reason as Reason) : 'other'
}

const CHUNK = 1024 * 1024
const LINE = { maxBytes: 64 * 1024, maxDepth: 8 }

/** Reads what is added to `file` from now on; throws usage when it cannot be read. */
export function followFile(file: string): () => readonly Members[] {
  let at = reading(file, () => statSync(file).size)
  let rest = ''
  return () => {
    const { text, end } = reading(file, () => readFrom(file, at))
    at = end
    const lines = (rest + text).split('\n')
    rest = (lines.pop() ?? '').slice(-LINE.maxBytes)
    return lines.flatMap(parsed)
  }
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
      action: "Name the audit file of the verifier's agent, and read it as a user that may.",
      cause: error,
    })
  }
}
