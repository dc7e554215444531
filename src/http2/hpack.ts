/** Header blocks (RFC 7541): those of the peer read, with all the forms that they may have; our own written without any state. */
import { HpackError } from './hpack-error.ts'
import { type Field, type Fields, HpackTable } from './hpack-table.ts'
import { decodeHuffman } from './huffman.ts'
import { LastBlock } from './last-block.ts'

/** What a list of fields may come to, as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113 s.6.5.2). */
export const LIST_LIMIT = 16_384
const FIELD_SIZE = 32

/** Reads the blocks of one connection, in order: each may change what the next refers to. */
export class HpackReader {
  readonly #table = new HpackTable()
  #block: Buffer = Buffer.alloc(0)
  #at = 0
  readonly #last = new LastBlock()
  #mayRepeat = false

  /**
   * The fields of a whole block; undefined when they are over LIST_LIMIT. The same object for a block that is the same as
   * the one before it, as most of a client are that asks for one thing.
   * Throws HpackError for what is no header block: nothing that comes later can be read then.
   */
  read(block: Buffer): Fields | undefined {
    const same = this.#last.fieldsOf(block)
    if (same) return same
    this.#mayRepeat = true
    const fields = this.#read(block)
    if (this.#mayRepeat && fields) this.#last.keep(block, fields)
    else this.#last.forget()
    return fields
  }

  #read(block: Buffer): Fields | undefined {
    this.#block = block
    this.#at = 0
    const fields: Field[] = []
    let size = 0
    while (this.#at < block.length) {
      const field = this.#next(fields.length === 0)
      if (!field) continue
      size += field[0].length + field[1].length + FIELD_SIZE
      // Read to the end all the same: the table has to stay the peer's.
      if (size <= LIST_LIMIT) fields.push(field)
    }
    return size <= LIST_LIMIT ? fields : undefined
  }

  /** One representation (s.6); a change of the table's size, which may only come first, is no field. */
  #next(isFirst: boolean): Field | undefined {
    const first = this.#block[this.#at] as number
    if (first >= 0x80) return this.#table.at(this.#integer(7))
    if (first >= 0x40) {
      const field = this.#literal(6)
      this.#table.add(field)
      this.#mayRepeat = false
      return field
    }
    if (first < 0x20) {
      // s.7.1.3: never indexed is what is secret.
      if (first >= 0x10) this.#mayRepeat = false
      return this.#literal(4)
    }
    if (!isFirst) throw new HpackError()
    this.#table.resize(this.#integer(5))
    this.#mayRepeat = false
    return undefined
  }

  #literal(bits: number): Field {
    const index = this.#integer(bits)
    const name = index === 0 ? this.#string() : this.#table.at(index)[0]
    return [name, this.#string()]
  }

  /** s.5.1 with a prefix of `bits`; no more than four octets may follow. */
  #integer(bits: number): number {
    const limit = 2 ** bits - 1
    let value = this.#octet() & limit
    if (value < limit) return value
    for (let shift = 0; shift < 28; shift += 7) {
      const octet = this.#octet()
      value += (octet & 0x7f) * 2 ** shift
      if (octet < 0x80) return value
    }
    throw new HpackError()
  }

  /** s.5.2. */
  #string(): string {
    const isCoded = (this.#block[this.#at] ?? 0) >= 0x80
    const length = this.#integer(7)
    const start = this.#at
    this.#at += length
    if (this.#at > this.#block.length) throw new HpackError()
    return isCoded
      ? decodeHuffman(this.#block, start, this.#at)
      : this.#block.toString('latin1', start, this.#at)
  }

  #octet(): number {
    const octet = this.#block[this.#at++]
    if (octet === undefined) throw new HpackError()
    return octet
  }
}

/** A block of `fields` as literals that nobody keeps (s.6.2.2): secrets in them are in no table, and no order matters. */
export function writeBlock(fields: Fields): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [LITERAL, stringOf(name), stringOf(value)]))
}

const LITERAL = Buffer.of(0)

function stringOf(text: string): Buffer {
  const octets = Buffer.from(text, 'latin1')
  return Buffer.concat([integerOf(octets.length), octets])
}

/** s.5.1 with a prefix of seven bits. */
function integerOf(value: number): Buffer {
  if (value < 0x7f) return Buffer.of(value)
  const octets = [0x7f]
  let rest = value - 0x7f
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) octets.push((rest % 0x80) | 0x80)
  return Buffer.from([...octets, rest])
}
