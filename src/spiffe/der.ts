/**
 * DER from outside (X.690 s.8, 10 and 11): strict, bounded, without interpretation. Every value keeps the bytes that it
 * stood in, so that what is parsed is what is verified.
 */
import { Fault } from '../base/fault.ts'

/** One value. `bytes` and `content` are windows into the input. */
export interface Der {
  /** The identifier octet: class, constructed bit and number. */
  readonly tag: number
  /** The whole value with identifier and length. */
  readonly bytes: Buffer
  readonly content: Buffer
  /** The values inside a constructed one. */
  readonly children: readonly Der[]
}

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

const SIZE_LIMIT = 64 * 1024
const DEPTH_LIMIT = 12
const CONSTRUCTED = 0x20
const CLASS = 0xc0
const NUMBER = 0x1f
/** Lengths up to 2^24 - 1: more than the size limit. */
const LENGTH_BYTES = 3

/** The one value that `bytes` is, at most 64 KiB and 12 deep; throws certificate_malformed. */
export function parseDer(bytes: Buffer): Der {
  if (bytes.length > SIZE_LIMIT) throw malformed(`it is over ${SIZE_LIMIT} bytes`)
  const value = readValue(bytes, 0, 1)
  if (value.bytes.length !== bytes.length) throw malformed('bytes follow its end')
  return value
}

function readValue(bytes: Buffer, at: number, depth: number): Der {
  if (depth > DEPTH_LIMIT) throw malformed(`it is nested over ${DEPTH_LIMIT} deep`)
  const tag = bytes[at]
  if (tag === undefined) throw malformed('it is cut off')
  checkTag(tag)
  const { start, length } = readLength(bytes, at + 1)
  const end = start + length
  if (end > bytes.length) throw malformed('a length reaches past the end')
  const content = bytes.subarray(start, end)
  checkContent(tag, content)
  const children = (tag & CONSTRUCTED) === 0 ? [] : readValues(content, depth + 1)
  return { tag, bytes: bytes.subarray(at, end), content, children }
}

function readValues(content: Buffer, depth: number): readonly Der[] {
  const values: Der[] = []
  for (let at = 0; at < content.length; ) {
    const value = readValue(content, at, depth)
    values.push(value)
    at += value.bytes.length
  }
  return values
}

/** X.690 s.10.2: strings are primitive; certificates have no tag number over 30. */
function checkTag(tag: number): void {
  const number = tag & NUMBER
  if (number === NUMBER) throw malformed('a tag number is over 30')
  if ((tag & CLASS) !== 0) return
  const isConstructed = (tag & CONSTRUCTED) !== 0
  const holdsValues = number === (TAG.sequence & NUMBER) || number === (TAG.set & NUMBER)
  if (number === 0 || isConstructed !== holdsValues) throw malformed('a tag is not one of DER')
}

/** X.690 s.10.1: definite, in the fewest bytes. */
function readLength(bytes: Buffer, at: number): { start: number; length: number } {
  const first = bytes[at]
  if (first === undefined) throw malformed('it is cut off')
  if (first < 0x80) return { start: at + 1, length: first }
  const count = first & 0x7f
  if (count === 0) throw malformed('a length is indefinite')
  if (count > LENGTH_BYTES) throw malformed('a length is out of bounds')
  const start = at + 1 + count
  if (start > bytes.length) throw malformed('it is cut off')
  const length = bytes.readUIntBE(at + 1, count)
  if (length < (count === 1 ? 0x80 : 2 ** (8 * (count - 1)))) throw malformed('a length is not minimal')
  return { start, length }
}

function checkContent(tag: number, content: Buffer): void {
  const check = CHECKS.get(tag)
  if (check && !check(content)) throw malformed(`a value of type ${tag} is not in its one encoding`)
}

const CHECKS: ReadonlyMap<number, (content: Buffer) => boolean> = new Map([
  [TAG.boolean, (content) => content.length === 1 && (content[0] === 0 || content[0] === 0xff)],
  [TAG.integer, isMinimalInteger],
  [TAG.enumerated, isMinimalInteger],
  [TAG.bitString, isBitString],
  [TAG.null, (content) => content.length === 0],
  [TAG.oid, isOid],
])

function isMinimalInteger(content: Buffer): boolean {
  const [first, second = 0] = content
  if (first === undefined) return false
  if (content.length === 1) return true
  return !(first === 0 && second < 0x80) && !(first === 0xff && second >= 0x80)
}

/** X.690 s.11.2: the unused bits are zero. */
function isBitString(content: Buffer): boolean {
  const unused = content[0]
  if (unused === undefined || unused > 7) return false
  if (content.length === 1) return unused === 0
  return ((content[content.length - 1] ?? 0) & ((1 << unused) - 1)) === 0
}

/** X.690 s.8.19.2: no arc begins with a padding byte, and the last one ends. */
function isOid(content: Buffer): boolean {
  let isStart = true
  for (const byte of content) {
    if (isStart && byte === 0x80) return false
    isStart = byte < 0x80
  }
  return isStart && content.length > 0
}

/** The values inside `value`, which must have `tag`; throws certificate_malformed. */
export function childrenOf(value: Der | undefined, tag: number, what: string): readonly Der[] {
  return expectTag(value, tag, what).children
}

/** `value` itself when it is there and has `tag`; throws certificate_malformed. */
export function expectTag(value: Der | undefined, tag: number, what: string): Der {
  if (value?.tag !== tag) throw malformed(`its ${what} is missing or of another type`)
  return value
}

/** The bytes of a BIT STRING without unused bits; throws certificate_malformed. */
export function wholeBits(value: Der | undefined, what: string): Buffer {
  const { content } = expectTag(value, TAG.bitString, what)
  if (content[0] !== 0) throw malformed(`its ${what} is not whole bytes`)
  return content.subarray(1)
}

/** A non-negative INTEGER below 2^31; throws certificate_malformed. */
export function smallInteger(value: Der | undefined, what: string): number {
  const { content } = expectTag(value, TAG.integer, what)
  if (content.length > 4 || (content[0] ?? 0) >= 0x80) throw malformed(`its ${what} is out of bounds`)
  return content.readUIntBE(0, content.length)
}

/** An OBJECT IDENTIFIER as the hex of its content: the encoding is canonical, so it is compared as it stands. */
export function oidHex(value: Der | undefined, what: string): string {
  return expectTag(value, TAG.oid, what).content.toString('hex')
}

export function malformed(what: string): Fault {
  return new Fault('certificate_malformed', `the certificate cannot be read: ${what}`)
}
