/**
 * HPACK without its state (RFC 7541): the representations of a header block walked by their lengths, and the value of
 * `:authority` changed where it stands. Octets and Huffman bits keep their number, so both ends' dynamic tables do too.
 */

/** What is wrong with a header block is never said to the peer: the connection ends. */
export class HpackError extends Error {}

const AUTHORITY_INDEX = 1
const AUTHORITY_NAME = Buffer.from(':authority', 'latin1')
/** The same name as Huffman codes, padded with ones (RFC 7541 s.5.2). */
const AUTHORITY_CODED = Buffer.from('b83b5339ec327d7f', 'hex')
const SLASH = 0x2f
const DASH = 0x2d
const SLASH_CODE = 0b011000
const DASH_CODE = 0b010110
const SHORT_CODE = 6

/** How many Huffman codes have each length (RFC 7541 Appendix B); the code is canonical, so this is all of it. */
const CODES_OF_LENGTH: Readonly<Record<number, number>> = {
  5: 10,
  6: 26,
  7: 32,
  8: 6,
  10: 5,
  11: 3,
  12: 2,
  13: 6,
  14: 2,
  15: 3,
  19: 3,
  20: 8,
  21: 13,
  22: 26,
  23: 29,
  24: 12,
  25: 4,
  26: 15,
  27: 19,
  28: 29,
  30: 4,
}
const LONGEST_CODE = 30
const END_CODE = 2 ** LONGEST_CODE - 1
/** The first code of each length; codes of one length follow each other. */
const FIRST_CODE: readonly number[] = firstCodes()

function firstCodes(): readonly number[] {
  const first = [0]
  for (let length = 1; length <= LONGEST_CODE; length++)
    first.push(((first[length - 1] ?? 0) + (CODES_OF_LENGTH[length - 1] ?? 0)) * 2)
  return first
}

/** A string literal in a block. */
interface Literal {
  readonly start: number
  readonly end: number
  readonly isCoded: boolean
}

/**
 * Replaces each `/` in the literal values of `:authority` by `-`, in place; whether anything changed. Throws HpackError
 * where the block ends inside a representation.
 */
export function replaceSlashes(block: Buffer): boolean {
  const reader = new Reader(block)
  let isChanged = false
  while (!reader.isAtEnd) {
    const value = nextAuthority(reader, block)
    if (value && replaceIn(block, value)) isChanged = true
  }
  return isChanged
}

/** Reads one representation (RFC 7541 s.6); its value when it is a literal named `:authority`. */
function nextAuthority(reader: Reader, block: Buffer): Literal | undefined {
  const first = reader.peek()
  if (first >= 0x80) {
    if (reader.integer(7) === 0) throw new HpackError()
    return undefined
  }
  const isSizeUpdate = (first & 0xe0) === 0x20
  const name = reader.integer(isSizeUpdate ? 5 : first >= 0x40 ? 6 : 4)
  if (isSizeUpdate) return undefined
  const isNamed = name === 0 ? isAuthority(block, reader.literal()) : name === AUTHORITY_INDEX
  const value = reader.literal()
  return isNamed ? value : undefined
}

function isAuthority(block: Buffer, { start, end, isCoded }: Literal): boolean {
  return block.subarray(start, end).equals(isCoded ? AUTHORITY_CODED : AUTHORITY_NAME)
}

function replaceIn(block: Buffer, { start, end, isCoded }: Literal): boolean {
  if (isCoded) return replaceCodes(block, start, end)
  let isChanged = false
  for (let at = start; at < end; at++) {
    if (block[at] !== SLASH) continue
    block[at] = DASH
    isChanged = true
  }
  return isChanged
}

/** Walks Huffman codes bit by bit; `/` and `-` are both six bits long. */
function replaceCodes(block: Buffer, start: number, end: number): boolean {
  let isChanged = false
  let code = 0
  let length = 0
  for (let bit = start * 8; bit < end * 8; bit++) {
    code = code * 2 + bitAt(block, bit)
    length += 1
    if (length > LONGEST_CODE || code === END_CODE) throw new HpackError()
    if (code - (FIRST_CODE[length] ?? 0) >= (CODES_OF_LENGTH[length] ?? 0)) continue
    if (length === SHORT_CODE && code === SLASH_CODE) {
      writeCode(block, bit - SHORT_CODE + 1, DASH_CODE)
      isChanged = true
    }
    code = 0
    length = 0
  }
  // Padding is shorter than an octet and all ones.
  if (length > 7 || code !== 2 ** length - 1) throw new HpackError()
  return isChanged
}

function bitAt(block: Buffer, bit: number): number {
  return ((block[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1
}

function writeCode(block: Buffer, bit: number, code: number): void {
  for (let index = 0; index < SHORT_CODE; index++) {
    const at = bit + index
    const mask = 1 << (7 - (at & 7))
    const isOne = (code >> (SHORT_CODE - 1 - index)) & 1
    block[at >> 3] = isOne ? (block[at >> 3] ?? 0) | mask : (block[at >> 3] ?? 0) & ~mask
  }
}

/** Integers and strings of a block (RFC 7541 s.5), each bounded by the block. */
class Reader {
  readonly #block: Buffer
  #at = 0

  constructor(block: Buffer) {
    this.#block = block
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#block.length
  }

  peek(): number {
    const octet = this.#block[this.#at]
    if (octet === undefined) throw new HpackError()
    return octet
  }

  /** s.5.1 with a prefix of `bits`; no more than four octets may follow. */
  integer(bits: number): number {
    const limit = 2 ** bits - 1
    let value = this.#next() & limit
    if (value < limit) return value
    for (let shift = 0; shift < 28; shift += 7) {
      const octet = this.#next()
      value += (octet & 0x7f) * 2 ** shift
      if (octet < 0x80) return value
    }
    throw new HpackError()
  }

  /** s.5.2. */
  literal(): Literal {
    const isCoded = this.peek() >= 0x80
    const length = this.integer(7)
    const start = this.#at
    if (length > this.#block.length - start) throw new HpackError()
    this.#at += length
    return { start, end: this.#at, isCoded }
  }

  #next(): number {
    const octet = this.peek()
    this.#at += 1
    return octet
  }
}
