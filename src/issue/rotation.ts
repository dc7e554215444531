/**
 * When signing keys change: the next one is published before it signs, the old one stays published until nothing
 * that it signed is valid. So no verifier that polls the bundle ever meets an unknown key.
 */
import type { Seconds } from '../base/clock.ts'

/** One signing key with its times. */
export interface Slot<K> {
  readonly key: K
  readonly published: Seconds
  /** Nothing that the key signs may be valid after this. */
  readonly ends: Seconds
}

export interface RotationOptions<K> {
  /** From publication to end. */
  readonly lifetime: Seconds
  /** How long a key is published before it signs. */
  readonly lead: Seconds
  make(published: Seconds, ends: Seconds): K
}

/** The slots of one kind of key; `advance` moves them on. The first slot signs. */
export class Rotation<K> {
  readonly #options: RotationOptions<K>
  #signing: Slot<K>
  #next: Slot<K> | undefined
  #old: readonly Slot<K>[] = []

  constructor(options: RotationOptions<K>, now: Seconds) {
    this.#options = options
    this.#signing = this.#make(now)
  }

  /** The key that signs now. */
  get signing(): Slot<K> {
    return this.#signing
  }

  /** Every key that verifiers must know. */
  get published(): readonly Slot<K>[] {
    return [...this.#old, this.#signing, ...(this.#next ? [this.#next] : [])]
  }

  /** Brings the slots to `now`; whether what is published changed. */
  advance(now: Seconds): boolean {
    const before = this.published
    this.#old = this.#old.filter((slot) => slot.ends > now)
    this.#prepare(now)
    this.#promote(now)
    const after = this.published
    return before.length !== after.length || before.some((slot, index) => slot !== after[index])
  }

  /** At half its life a key gets a successor. */
  #prepare(now: Seconds): void {
    const { published, ends } = this.#signing
    if (!this.#next && now >= published + (ends - published) / 2) this.#next = this.#make(now)
  }

  /** The successor signs after its lead; at once when the old key has ended, as after a long sleep. */
  #promote(now: Seconds): void {
    const next = this.#next
    if (!next || (now < next.published + this.#options.lead && now < this.#signing.ends)) return
    if (this.#signing.ends > now) this.#old = [...this.#old, this.#signing]
    this.#signing = next
    this.#next = undefined
  }

  #make(now: Seconds): Slot<K> {
    const ends = now + this.#options.lifetime
    return { key: this.#options.make(now, ends), published: now, ends }
  }
}
