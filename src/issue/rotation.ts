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
  readonly first: Slot<K>
  /** How long a key is published before it signs. */
  readonly lead: Seconds
  /** Makes a successor at half a key's life; absent when successors come from outside, by `offer`. */
  readonly make?: (now: Seconds) => Slot<K>
}

/** The slots of one kind of key; `advance` moves them on. */
export class Rotation<K> {
  readonly #lead: Seconds
  readonly #make: ((now: Seconds) => Slot<K>) | undefined
  #signing: Slot<K>
  #next: Slot<K> | undefined
  #old: readonly Slot<K>[] = []

  constructor(options: RotationOptions<K>) {
    this.#lead = options.lead
    this.#make = options.make
    this.#signing = options.first
  }

  /** The key that signs now. */
  get signing(): Slot<K> {
    return this.#signing
  }

  /** Every key that verifiers must know. */
  get published(): readonly Slot<K>[] {
    return [...this.#old, this.#signing, ...(this.#next ? [this.#next] : [])]
  }

  /**
   * Makes `slot` the successor, in place of one that has not signed yet. Verifiers who know one key know every other that it
   * `vouches` for: beside a key that signs or has signed such a slot signs at once, and beside one that has not, after its lead.
   */
  offer(slot: Slot<K>, vouches: (known: K) => boolean = () => false): void {
    const isKnown = [...this.#old, this.#signing].some(({ key }) => vouches(key))
    if (isKnown) this.#sign(slot)
    else
      this.#next = this.#next && vouches(this.#next.key) ? { ...slot, published: this.#next.published } : slot
  }

  /** Brings the slots to `now`; whether what is published changed. */
  advance(now: Seconds): boolean {
    const before = this.published
    this.#old = this.#old.filter((slot) => slot.ends > now)
    // A successor that a long sleep outlived never signs.
    if (this.#next && this.#next.ends <= now) this.#next = undefined
    this.#prepare(now)
    this.#promote(now)
    const after = this.published
    return before.length !== after.length || before.some((slot, index) => slot !== after[index])
  }

  #prepare(now: Seconds): void {
    const { published, ends } = this.#signing
    if (!this.#next && now >= published + (ends - published) / 2) this.#next = this.#make?.(now)
  }

  /** The successor signs after its lead; at once when the old key has ended, as after a long sleep. */
  #promote(now: Seconds): void {
    const next = this.#next
    if (!next || (now < next.published + this.#lead && now < this.#signing.ends)) return
    this.#sign(next)
    this.#old = this.#old.filter((slot) => slot.ends > now)
  }

  #sign(slot: Slot<K>): void {
    this.#old = [...this.#old, this.#signing]
    this.#signing = slot
    this.#next = undefined
  }
}
