/** What the audits of verifiers say of the lab's requests. One may look on while others are served. */
import type { Millis } from '../base/clock.ts'
import { REASONS, type Reason } from '../base/reasons.ts'
import { hashOf } from '../proof/jwt.ts'
import type { VerifierRecord } from './answer.ts'

export type Members = Readonly<Record<string, unknown>>

/** The audit of one verifier. */
export interface AuditTail {
  /** As reports call it. */
  readonly name: string
  /** What has come since it was last called; throws when there will be no more. */
  pull(): readonly Members[]
}

/** A request as a record tells of it. */
export interface Wanted {
  /** As `tokenMark` gives it. */
  readonly token: string | undefined
  /** Whether it was taken: then no refusal is waited for. */
  readonly isTaken: boolean
}

/** The records of verifiers that came since a moment. */
export interface RecordSource {
  mark(): void
  /** The record of the request since the mark, a refusal before others; undefined when it cannot be told. */
  find(wanted: Wanted): Promise<VerifierRecord | undefined>
  /** Whether a token was seen since the mark, and whether anything was. */
  sightings(token: string): Promise<{ readonly own: VerifierRecord | undefined; readonly others: number }>
}

const MARK_LENGTH = 16

/** What records call a token: the beginning of its `ath`. */
export function tokenMark(token: string): string {
  return hashOf(token).slice(0, MARK_LENGTH)
}

interface Found extends VerifierRecord {
  readonly token: unknown
}

const KEPT = 256
const STEP: Millis = 50
const STEPS = 20

/** Records as they come. */
export class Records implements RecordSource {
  readonly #sleep: (ms: Millis) => Promise<void>
  readonly #tails: readonly AuditTail[]
  #since: readonly Found[] = []

  constructor(tails: readonly AuditTail[], sleep: (ms: Millis) => Promise<void>) {
    this.#sleep = sleep
    this.#tails = tails
  }

  mark(): void {
    this.#pull()
    this.#since = []
  }

  async find({ token, isTaken }: Wanted): Promise<VerifierRecord | undefined> {
    const told = await this.#until(() => {
      const records = this.#tails.flatMap(({ name }) => recordAt(name, this.#since, token))
      const refusal = records.find(({ allowed }) => !allowed)
      return refusal || isTaken ? (refusal ?? records[0]) : undefined
    })
    return told ?? this.#tails.flatMap(({ name }) => recordAt(name, this.#since, token))[0]
  }

  async sightings(token: string) {
    await this.#until(() => (this.#since.length > 0 ? true : undefined))
    const own = this.#since.find((one) => one.token === token)
    return { own, others: this.#since.filter((one) => one.token !== token).length }
  }

  async #until<T>(look: () => T | undefined): Promise<T | undefined> {
    for (let step = 0; ; step += 1) {
      this.#pull()
      const found = look()
      if (found !== undefined || step >= STEPS) return found
      await this.#sleep(STEP)
    }
  }

  #pull(): void {
    const come = this.#tails.flatMap((tail) => tail.pull().flatMap((members) => foundIn(tail.name, members)))
    this.#since = [...this.#since, ...come].slice(-KEPT)
  }
}

/** Where several requests may be meant and do not agree, nothing is told. */
function recordAt(name: string, since: readonly Found[], token: string | undefined): readonly Found[] {
  const here = since.filter(({ verifier }) => verifier === name)
  const exact = here.filter((one) => one.token === token)
  // A request that is refused for its form shows no token.
  const [first, ...rest] = exact.length > 0 ? exact : here.filter((one) => one.token === undefined)
  if (!first) return []
  return rest.every(({ allowed, reason }) => allowed === first.allowed && reason === first.reason)
    ? [first]
    : []
}

function foundIn(verifier: string, { event, allowed, reason, token }: Members): readonly Found[] {
  if (event !== 'verify' || typeof allowed !== 'boolean') return []
  return [{ verifier, allowed, reason: reasonOf(reason), token }]
}

function reasonOf(reason: unknown): Reason | 'other' | undefined {
  if (reason === undefined) return undefined
  return typeof reason === 'string' && Object.hasOwn(REASONS, reason) ? (reason as Reason) : 'other'
}
