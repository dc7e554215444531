/** A set of 128-bit fingerprints in flat memory: open addressing, at most half full (a Set of texts takes five times as much). */

const WORDS = 4
const FIRST_SLOTS = 64

/** Fingerprints are the first 16 bytes of a SHA-256: nobody chooses where one lands. */
export class Fingerprints {
  #slots = new Uint32Array(FIRST_SLOTS * WORDS)
  #size = 0

  get size(): number {
    return this.#size
  }

  has(print: Fingerprint): boolean {
    return this.#find(this.#slots, wordsOf(print)) < 0
  }

  /** Adds one that is not there. */
  add(print: Fingerprint): void {
    if (this.#size * 2 * WORDS >= this.#slots.length) this.#grow()
    this.#put(this.#slots, wordsOf(print))
    this.#size += 1
  }

  #put(slots: Uint32Array, words: Words): void {
    const at = this.#find(slots, words)
    if (at >= 0) slots.set(words, at)
  }

  /** The free place for `words`, or -1 when they are there. */
  #find(slots: Uint32Array, [a, b, c, d]: Words): number {
    const mask = slots.length - 1
    for (let at = (a * WORDS) & mask; ; at = (at + WORDS) & mask) {
      const [w, x, y, z] = [slots[at], slots[at + 1], slots[at + 2], slots[at + 3]]
      if (w === 0 && x === 0 && y === 0 && z === 0) return at
      if (w === a && x === b && y === c && z === d) return -1
    }
  }

  #grow(): void {
    const old = this.#slots
    this.#slots = new Uint32Array(old.length * 2)
    for (let at = 0; at < old.length; at += WORDS) {
      const words: Words = [old[at] ?? 0, old[at + 1] ?? 0, old[at + 2] ?? 0, old[at + 3] ?? 0]
      if (words.some((word) => word !== 0)) this.#put(this.#slots, words)
    }
  }
}

/** A SHA-256 as text, a character a byte (`binary`): hashing into a Buffer takes twice as long. */
export type Fingerprint = string

type Words = readonly [number, number, number, number]

/** All zeros means a free place; a hash of 2^-128 likelihood is not worth a second array. */
function wordsOf(print: Fingerprint): Words {
  return [wordAt(print, 0), wordAt(print, 4), wordAt(print, 8), wordAt(print, 12)]
}

function wordAt(print: Fingerprint, at: number): number {
  const [high, low] = [
    (print.charCodeAt(at) << 8) | print.charCodeAt(at + 1),
    (print.charCodeAt(at + 2) << 8) | print.charCodeAt(at + 3),
  ]
  return ((high << 16) | low) >>> 0
}
