/**
 * Nonces that a verifier gives (RFC 9449 s.9): they say themselves when they were given, so that none is kept, and
 * every node with the same key knows them. A nonce bounds when a proof was made better than a clock of the sender.
 */
import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Clock, Seconds } from '../base/clock.ts'

export interface NoncesOptions {
  readonly clock: Clock
  /** How long a nonce is good for after it was given. */
  readonly life: Seconds
  /** At least 32 bytes, the same on every node that has to know each other's; made here when absent. */
  readonly key?: KeyObject
}

/** How often it changes, or as often as its life is long: callers repeat the newest, and most requests carry one. */
const LONGEST_STEP: Seconds = 30
const TAG_BYTES = 12
const FORM = /^[A-Za-z0-9_-]{22}$/

/** Gives and knows nonces. */
export class ServerNonces {
  readonly #options: NoncesOptions
  readonly #key: KeyObject
  readonly #step: Seconds
  /** What the clocks said last. */
  #last = { time: Number.NEGATIVE_INFINITY, monotonic: 0 }
  #least: Seconds = Number.NEGATIVE_INFINITY
  #newest: { readonly given: Seconds; readonly nonce: string } | undefined

  constructor(options: NoncesOptions) {
    this.#options = options
    this.#step = Math.min(LONGEST_STEP, options.life)
    this.#key = options.key ?? createSecretKey(randomBytes(32))
  }

  /** The nonce of now; the same for a while, and for every caller. */
  current(): string {
    const now = Math.floor(this.#now())
    const step = Math.max(now - (now % this.#step), Math.min(this.#least, now + this.#step))
    if (this.#newest?.given !== step) this.#newest = { given: step, nonce: this.#make(step) }
    return this.#newest.nonce
  }

  /** Nonces from now on are of after `floor`: a store that has lost its history takes no older ones. */
  raise(floor: Seconds): void {
    this.#least = Math.max(this.#least, Math.floor(floor) + 1)
  }

  /** When `nonce` was given; undefined when it is not of this key, no longer good, or from the future. */
  givenAt(nonce: string): Seconds | undefined {
    if (!FORM.test(nonce)) return undefined
    const bytes = Buffer.from(nonce, 'base64url')
    const given = bytes.readUInt32BE(0)
    const now = this.#now()
    if (given > now + this.#step || given + this.#step + this.#options.life <= now) return undefined
    return timingSafeEqual(Buffer.from(this.#make(given)), Buffer.from(nonce)) ? given : undefined
  }

  /** Wall time that never goes back and never stands still: a clock set back would make old nonces good again. */
  #now(): Seconds {
    const { clock } = this.#options
    const monotonic = clock.monotonic() / 1000
    const last = this.#last
    const time = Math.max(clock.now() / 1000, last.time + (monotonic - last.monotonic))
    this.#last = { time, monotonic }
    return time
  }

  #make(given: Seconds): string {
    const time = Buffer.alloc(4)
    time.writeUInt32BE(given)
    const tag = createHmac('sha256', this.#key).update('holdfast nonce').update(time).digest()
    return Buffer.concat([time, tag.subarray(0, TAG_BYTES)]).toString('base64url')
  }
}
