/**
 * Replays told by the memory of one process. Proofs of one second share a bucket, so that what has aged goes at once;
 * a bucket holds 16 bytes a proof, which is what a million of them in 200 MB wants.
 */
import { hash } from 'node:crypto'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { type Fingerprint, Fingerprints } from './fingerprints.ts'
import type { ProofUse, ReplayStore, Use } from './replay.ts'

export interface MemoryReplayOptions {
  readonly clock: Clock
  /** How long a proof could be used again: window and skew of the verifier together, both ways. */
  readonly keep: Seconds
  /** Proofs that are remembered at a time. */
  readonly limit: number
  /** Of these, how many one subject may hold. */
  readonly share: number
  /** How far ahead `iat` of a proof may be: one used before the start may lie that far above it. Default: 0. */
  readonly skew?: Seconds
  /** Nonces of before the start are good too, since other nodes give them or the key outlives this process. */
  readonly sharesNonces?: boolean
}

interface Bucket {
  readonly seen: Fingerprints
  readonly subjects: Map<string, number>
  /** Monotonic: a wall clock that is set back must not bring a proof back to life. */
  readonly until: Seconds
}

/** One process's memory; a restart is a new one, whose floor is its start. */
export class MemoryReplayStore implements ReplayStore {
  readonly #options: MemoryReplayOptions
  readonly #buckets = new Map<Seconds, Bucket>()
  readonly #subjects = new Map<string, number>()
  #count = 0
  /** Proofs made up to here may have been used unseen. */
  #floor: Seconds
  /** As well those whose nonce was given up to here: their bucket is gone. */
  #nonceFloor = Number.NEGATIVE_INFINITY

  constructor(options: MemoryReplayOptions) {
    this.#options = options
    const start = nowSeconds(options.clock)
    this.#floor = start + (options.skew ?? 0)
    if (options.sharesNonces) this.#nonceFloor = start
  }

  /** Proofs that are remembered. */
  get count(): number {
    return this.#count
  }

  use(proof: ProofUse): Use {
    this.#forgetAged()
    const made = Math.floor(proof.made)
    const bucket = this.#buckets.get(made)
    const print = fingerprintOf(proof)
    if (bucket?.seen.has(print)) return 'replayed'
    if (this.#isBelow(made, proof.hasNonce)) return 'floor'
    const held = this.#subjects.get(proof.subject) ?? 0
    if (held >= this.#options.share) return 'share'
    if (this.#count >= this.#options.limit) this.#forgetOldest()
    // Forgetting may have raised the floor over this very proof.
    if (this.#isBelow(made, proof.hasNonce)) return 'floor'
    this.#remember(made, print, proof.subject)
    return 'fresh'
  }

  stop(): void {
    this.#buckets.clear()
    this.#subjects.clear()
    this.#count = 0
    this.#floor = Number.POSITIVE_INFINITY
    this.#nonceFloor = Number.POSITIVE_INFINITY
  }

  /** A nonce of this process is younger than its memory; what was forgotten since counts for both. */
  #isBelow(made: Seconds, hasNonce: boolean): boolean {
    return made <= (hasNonce ? this.#nonceFloor : this.#floor)
  }

  #remember(made: Seconds, print: Fingerprint, subject: string): void {
    let bucket = this.#buckets.get(made)
    if (!bucket) {
      bucket = {
        seen: new Fingerprints(),
        subjects: new Map(),
        until: this.#monotonic() + this.#options.keep,
      }
      this.#buckets.set(made, bucket)
    }
    bucket.seen.add(print)
    bucket.subjects.set(subject, (bucket.subjects.get(subject) ?? 0) + 1)
    this.#subjects.set(subject, (this.#subjects.get(subject) ?? 0) + 1)
    this.#count += 1
  }

  /** Buckets are few: one a second of the window. They age in the order in which they were begun. */
  #forgetAged(): void {
    const now = this.#monotonic()
    for (const [made, bucket] of this.#buckets) {
      if (bucket.until > now) return
      this.#forget(made, bucket)
    }
  }

  #forgetOldest(): void {
    const made = Math.min(...this.#buckets.keys())
    const bucket = this.#buckets.get(made)
    if (bucket) this.#forget(made, bucket)
  }

  #forget(made: Seconds, { seen, subjects }: Bucket): void {
    this.#buckets.delete(made)
    this.#floor = Math.max(this.#floor, made)
    this.#nonceFloor = Math.max(this.#nonceFloor, made)
    this.#count -= seen.size
    for (const [subject, count] of subjects) {
      const left = (this.#subjects.get(subject) ?? 0) - count
      if (left > 0) this.#subjects.set(subject, left)
      else this.#subjects.delete(subject)
    }
  }

  #monotonic(): Seconds {
    return this.#options.clock.monotonic() / 1000
  }
}

/** The lengths keep two different triples from one text. */
function fingerprintOf({ scope, jkt, jti }: ProofUse): Fingerprint {
  return hash('sha256', `${scope.length}.${jkt.length}.${scope}${jkt}${jti}`, 'binary')
}
