/**
 * Refusals that callers repeat. Who has no identity is refused as often as it asks, and must not push older records out
 * of the log: what is beyond a caller's part of one second is counted, and its number written at the end of it.
 *
 * Three bounds, each for one second: of the same refusal ten records (one, while it goes on), of one caller so many
 * bytes, of all callers so many bytes. The record of the first bound says all that the refusals say; that of the second
 * names the caller, the event and the reason; that of the third the event and the reason.
 */
import type { Clock, Millis } from '../base/clock.ts'
import type { AuditFacts } from './audit.ts'
import { membersOf } from './audit-record.ts'

/** One refusal, told apart by all that its record says but for `jti`. */
interface Told {
  written: number
  folded: number
}

interface Rest {
  readonly facts: AuditFacts
  count: number
}

const SECOND: Millis = 1_000
const SAME = 10
/** What the chain adds to the members of a record. */
const CHAIN_BYTES = 160
const PER_CALLER = 32 * 1024
/** Of a service that says what others sent to its route. */
const PER_VERIFIER = 128 * 1024
const PER_NODE = 512 * 1024

/** Counts refusals. All that it keeps is of the second under way, and bounded by what was written in it. */
export class Folds {
  readonly #clock: Clock
  readonly #write: (members: string) => void
  readonly #onFolded: (count: number) => void
  #told = new Map<string, Told>()
  /** What was folded in the second before. */
  #goingOn: ReadonlySet<string> = new Set()
  readonly #bytes = new Map<string, number>()
  readonly #rest = new Map<string, Rest>()
  #all = 0
  #ended: Millis = Number.NEGATIVE_INFINITY
  #cancel: (() => void) | undefined

  /** `write` gets the members of records with a `count`, `onFolded` how many refusals they stand for. */
  constructor(clock: Clock, write: (members: string) => void, onFolded: (count: number) => void) {
    this.#clock = clock
    this.#write = write
    this.#onFolded = onFolded
  }

  /** Whether the refusal of `facts`, as `members`, is counted and not written. */
  take(facts: AuditFacts, members: string): boolean {
    const caller = callerOf(facts)
    if (caller === undefined) return false
    this.#begin()
    const key = facts.jti === undefined ? members : membersOf({ ...facts, jti: undefined })
    const told = this.#told.get(key)
    if (told && told.written >= (this.#goingOn.has(key) ? 1 : SAME)) {
      told.folded += 1
      return true
    }
    const bytes = this.#bytes.get(caller) ?? 0
    const isFull = this.#all >= PER_NODE
    if (isFull || bytes >= (facts.route === undefined ? PER_CALLER : PER_VERIFIER)) {
      this.#fold(facts, isFull ? '' : caller)
      return true
    }
    const length = members.length + CHAIN_BYTES
    this.#bytes.set(caller, bytes + length)
    this.#all += length
    if (told) told.written += 1
    else this.#told.set(key, { written: 1, folded: 0 })
    return false
  }

  /** Writes what was counted. */
  flush(): void {
    this.#cancel?.()
    this.#cancel = undefined
    this.#ended = this.#clock.monotonic()
    const folded = [...this.#told].filter(([, told]) => told.folded > 0)
    const rest = [...this.#rest.values()]
    this.#told = new Map()
    this.#goingOn = new Set(folded.map(([key]) => key))
    this.#bytes.clear()
    this.#rest.clear()
    this.#all = 0
    for (const [key, told] of folded) this.#tell(key, told.folded)
    for (const { facts, count } of rest) this.#tell(membersOf(facts), count)
  }

  #tell(members: string, count: number): void {
    this.#write(`${members},"count":${count}`)
    this.#onFolded(count)
  }

  #begin(): void {
    if (this.#cancel) return
    if (this.#clock.monotonic() - this.#ended > SECOND) this.#goingOn = new Set()
    this.#cancel = this.#clock.after(SECOND, () => this.flush())
  }

  /** `caller` is empty when it is that of many. */
  #fold({ event, reason, owner, uid, spiffe_id, route }: AuditFacts, caller: string): void {
    const key = `${event} ${reason} ${caller} ${caller === '' ? '' : route}`
    const known = this.#rest.get(key)
    if (known) {
      known.count += 1
      return
    }
    const whose = caller === '' ? {} : uid === undefined ? { spiffe_id, route } : { uid, route }
    this.#rest.set(key, {
      facts: { event, allowed: false, reason, owner, ...whose, detail: VARIED },
      count: 1,
    })
  }
}

const VARIED = 'refusals that differ, too many to be told apart'

/** Whose refusal it is; undefined for what the agent says of itself. */
function callerOf({ uid, spiffe_id }: AuditFacts): string | undefined {
  return uid === undefined ? spiffe_id : `uid ${uid}`
}
