/**
 * What each workload instance did so far under each of its identities, for conditions that ask for it. Every door
 * counts here, once for each request that it lets through. A session ends with its lease.
 */
import type { Instance } from '../attest/workload.ts'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { CallContext } from '../policy/decide.ts'
import type { Target } from '../policy/grant.ts'

/** On whose behalf a call is made, as far as its subject's token says. */
export type SubjectFacts = Pick<CallContext, 'subject' | 'actors' | 'txn'>

const NOBODY: SubjectFacts = { subject: '', actors: [], txn: '' }
/** More than policy may have; only reloads that rename targets get near. */
const TARGETS_LIMIT = 10_000
const READS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** The session of one lease: an instance under one identity. */
export class Session {
  #calls = 0
  #writes = 0
  readonly #targets = new Set<string>()
  readonly #approved = new Set<string>()
  readonly #open = new Map<string, number>()

  /** What a call to `target` is judged by. */
  contextOf(target: string, now: Seconds, subject = NOBODY): CallContext {
    return {
      now,
      subject: subject.subject,
      actors: subject.actors,
      txn: subject.txn,
      calls: this.#calls,
      writes: this.#writes,
      targets: this.#targets.size,
      isFirstUse: !this.#targets.has(target),
    }
  }

  /** Counts an allowed call; one that covers every method counts as a write. Throws overloaded. */
  count(target: string, method: string | undefined): void {
    if (this.#targets.size >= TARGETS_LIMIT && !this.#targets.has(target))
      throw new Fault('overloaded', `over ${TARGETS_LIMIT} targets were used by one instance`)
    this.#targets.add(target)
    this.#calls += 1
    if (method === undefined || !READS.has(method)) this.#writes += 1
  }

  /** Whether a person has agreed to the use of `target` by this instance. */
  isApproved(target: string): boolean {
    return this.#approved.has(target)
  }

  approve(target: string): void {
    if (this.#approved.size < TARGETS_LIMIT) this.#approved.add(target)
  }

  /** Counts an open request until the returned function is called; throws target_busy over the target's concurrency. */
  enter({ name, platform }: Target): () => void {
    const open = this.#open.get(name) ?? 0
    const limit = platform?.concurrency
    if (limit === undefined) return () => {}
    if (open >= limit)
      throw new Fault('target_busy', `${open} requests of this workload are open at ${name}, its limit`, {
        action: `Back off and try again, or raise concurrency of ${name} in a platform policy file.`,
      })
    this.#open.set(name, open + 1)
    let isOpen = true
    return () => {
      if (!isOpen) return
      isOpen = false
      const left = (this.#open.get(name) ?? 1) - 1
      if (left > 0) this.#open.set(name, left)
      else this.#open.delete(name)
    }
  }
}

/** The sessions of all leases; a lease's instance is an object of its own, and its session goes with it. */
export class Sessions {
  readonly #sessions = new WeakMap<Instance, Session>()

  of(instance: Instance): Session {
    const known = this.#sessions.get(instance)
    if (known) return known
    const session = new Session()
    this.#sessions.set(instance, session)
    return session
  }
}
