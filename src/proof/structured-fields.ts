/**
 * Structured fields (RFC 9651, without dates and display strings), parsed more strictly than they might be: no key
 * twice, base64 in its one spelling, within bounds. What other parsers repair would be a second reading of a signature.
 */

/** The value of an item, without its parameters. */
export type Bare =
  | { readonly type: 'integer' | 'decimal'; readonly value: number }
  | { readonly type: 'string' | 'token'; readonly value: string }
  | { readonly type: 'bytes'; readonly value: Buffer }
  | { readonly type: 'boolean'; readonly value: boolean }

/** In the order of the field. */
export type Parameters = ReadonlyMap<string, Bare>

export interface Item {
  readonly bare: Bare
  readonly parameters: Parameters
}

export interface InnerList {
  readonly items: readonly Item[]
  readonly parameters: Parameters
}

export type Member = Item | InnerList

const TEXT_LIMIT = 16 * 1024
const MEMBERS_LIMIT = 64

/** A text and how much of it is read. */
interface Scan {
  readonly text: string
  at: number
}

const KEY = /[a-z*][a-z0-9_.*-]{0,63}/y
const NUMBER = /-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])/y
const STRING = /"(?:[ !#-[\]-~]|\\["\\])*"/y
const TOKEN = /[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*/y
const BYTES = /:[A-Za-z0-9+/]*={0,2}:/y
const BOOLEAN = /\?[01]/y
const SPACES = / */y
const BLANKS = /[ \t]*/y

/** The dictionary (s.3.2) that `text`, all lines of a field joined by commas, holds; undefined when it is none. */
export function parseDictionary(text: string): ReadonlyMap<string, Member> | undefined {
  return whole(text, (scan) => {
    const members = new Map<string, Member>()
    separated(scan, () => {
      const key = take(scan, KEY)
      if (members.has(key)) throw MALFORMED
      members.set(key, has(scan, '=') ? readMember(scan) : readFlag(scan))
    })
    return members
  })
}

/** The list (s.3.1) that `text` holds; undefined when it is none. */
export function parseList(text: string): readonly Member[] | undefined {
  return whole(text, (scan) => {
    const members: Member[] = []
    separated(scan, () => members.push(readMember(scan)))
    return members
  })
}

/** The item (s.3.3) that `text` holds; undefined when it is none. */
export function parseItem(text: string): Item | undefined {
  return whole(text, readItem)
}

const MALFORMED = new Error('the field is malformed')

function whole<T>(text: string, read: (scan: Scan) => T): T | undefined {
  if (text.length > TEXT_LIMIT) return undefined
  const scan: Scan = { text, at: 0 }
  try {
    take(scan, SPACES)
    const value = read(scan)
    take(scan, SPACES)
    return scan.at === text.length ? value : undefined
  } catch (caught) {
    if (caught === MALFORMED) return undefined
    throw caught
  }
}

/** Members with commas between them and none after the last (s.4.2.1). */
function separated(scan: Scan, read: () => void): void {
  if (scan.at === scan.text.length) return
  for (let count = 1; count <= MEMBERS_LIMIT; count += 1) {
    read()
    const end = scan.at
    take(scan, BLANKS)
    if (!has(scan, ',')) {
      scan.at = end
      return
    }
    take(scan, BLANKS)
  }
  throw MALFORMED
}

function readMember(scan: Scan): Member {
  return has(scan, '(') ? readInnerList(scan) : readItem(scan)
}

function readFlag(scan: Scan): Item {
  return { bare: { type: 'boolean', value: true }, parameters: readParameters(scan) }
}

function readInnerList(scan: Scan): InnerList {
  const items: Item[] = []
  for (;;) {
    const blanks = take(scan, SPACES)
    if (has(scan, ')')) return { items, parameters: readParameters(scan) }
    if (items.length === MEMBERS_LIMIT || (items.length > 0 && blanks === '')) throw MALFORMED
    items.push(readItem(scan))
  }
}

function readItem(scan: Scan): Item {
  const bare = readBare(scan)
  return { bare, parameters: readParameters(scan) }
}

function readParameters(scan: Scan): Parameters {
  const parameters = new Map<string, Bare>()
  while (has(scan, ';')) {
    take(scan, SPACES)
    const key = take(scan, KEY)
    if (parameters.has(key) || parameters.size === MEMBERS_LIMIT) throw MALFORMED
    parameters.set(key, has(scan, '=') ? readBare(scan) : { type: 'boolean', value: true })
  }
  return parameters
}

function readBare(scan: Scan): Bare {
  const first = scan.text[scan.at] ?? ''
  if (first === '"') return { type: 'string', value: unquoted(take(scan, STRING)) }
  if (first === ':') return { type: 'bytes', value: decoded(take(scan, BYTES).slice(1, -1)) }
  if (first === '?') return { type: 'boolean', value: take(scan, BOOLEAN) === '?1' }
  if (!/[-0-9]/.test(first)) return { type: 'token', value: take(scan, TOKEN) }
  const number = take(scan, NUMBER)
  return { type: number.includes('.') ? 'decimal' : 'integer', value: Number(number) + 0 }
}

function unquoted(text: string): string {
  return text.slice(1, -1).replace(/\\(.)/g, '$1')
}

function decoded(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64') !== text) throw MALFORMED
  return bytes
}

function has(scan: Scan, character: string): boolean {
  if (scan.text[scan.at] !== character) return false
  scan.at += 1
  return true
}

function take(scan: Scan, form: RegExp): string {
  form.lastIndex = scan.at
  const [found] = form.exec(scan.text) ?? []
  if (found === undefined) throw MALFORMED
  scan.at += found.length
  return found
}
