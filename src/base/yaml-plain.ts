/**
 * The plain part of YAML that configuration is written in: block lists and mappings, scalars and flow collections on
 * one line. It reads a thousand entries in a tenth of the library's time. Whatever is unusual, wrong or refused is
 * left to the library, and a property test holds the two to one answer.
 */

/** Values, and the line of each item or key of every list and mapping. */
export interface PlainYaml {
  readonly value: unknown
  readonly lines: ReadonlyMap<object, readonly number[]>
}

/** The document in `text`, or undefined when the library has to read it. */
export function parsePlainYaml(text: string): PlainYaml | undefined {
  if (!PLAIN_TEXT.test(text)) return undefined
  const reader = new PlainReader(text)
  try {
    return { value: reader.read(), lines: reader.lines }
  } catch (error) {
    if (error === UNUSUAL) return undefined
    throw error
  }
}

const UNUSUAL = Symbol('not plain')
// Tabs, carriage returns and what is not ASCII have rules of their own.
const PLAIN_TEXT = /^[\n -~]*$/
const DEPTH_LIMIT = 16
const BLANK = /^ *(?:#.*)?$/
const KEY = /^([A-Za-z][A-Za-z0-9_-]*):(?: +|$)/
const DASH = /^- +(?=[^ ])/
// `true`, `False` and `NULL` are no texts in the core schema (YAML 1.2.2 s.10.3.2).
const WORD = /^(?:true|false|null)$/i
const NUMBER = /^(?:0|[1-9][0-9]{0,14})$/
const NUMBER_LIKE =
  /^[-+]?(?:0o[0-7]*|0x[0-9a-f]*|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:e[-+]?[0-9]+)?|\.inf|\.nan)$/i
const BLOCK_TEXT = /^[A-Za-z0-9/.(](?:[^:#]|:(?=[^ ])|(?<=[^ ])#)*$/
const FLOW_TEXT = /[A-Za-z0-9/.](?:[^,[\]{}:#]|:(?=[^ ,[\]{}])|(?<=[^ ])#)*/y
const QUOTED = /"[^"\\]*"|'[^']*'(?!')/y
const FLOW_KEY = /[A-Za-z][A-Za-z0-9_-]*: +/y
const SPACES = / */y

interface Line {
  readonly indent: number
  readonly text: string
  readonly number: number
}

class PlainReader {
  readonly lines = new Map<object, number[]>()
  readonly #content: Line[] = []
  #at = 0

  constructor(text: string) {
    let number = 0
    for (const line of text.split('\n')) {
      number += 1
      if (BLANK.test(line)) continue
      const indent = line.search(/[^ ]/)
      this.#content.push({ indent, text: line.slice(indent), number })
    }
  }

  read(): unknown {
    const value = this.#block(0, 1)
    if (this.#at !== this.#content.length) throw UNUSUAL
    return value
  }

  get #line(): Line | undefined {
    return this.#content[this.#at]
  }

  #block(indent: number, depth: number): unknown {
    const line = this.#line
    if (line?.indent !== indent || depth > DEPTH_LIMIT) throw UNUSUAL
    if (DASH.test(line.text)) return this.#list(indent, depth)
    if (KEY.test(line.text)) return this.#mapping(indent, depth)
    throw UNUSUAL
  }

  #list(indent: number, depth: number): unknown[] {
    const items: unknown[] = []
    const numbers: number[] = []
    for (let line = this.#line; line?.indent === indent; line = this.#line) {
      const dash = DASH.exec(line.text)?.[0]
      if (dash === undefined) break
      numbers.push(line.number)
      items.push(this.#item(line, dash.length, depth))
    }
    if ((this.#line?.indent ?? -1) > indent) throw UNUSUAL
    this.lines.set(items, numbers)
    return items
  }

  #item(line: Line, offset: number, depth: number): unknown {
    const rest = line.text.slice(offset)
    if (!KEY.test(rest)) {
      this.#at += 1
      return this.#scalar(rest, line.number, depth + 1)
    }
    // The mapping begins behind the dash; its further keys stand below the first.
    const indent = line.indent + offset
    this.#content[this.#at] = { indent, text: rest, number: line.number }
    return this.#mapping(indent, depth + 1)
  }

  #mapping(indent: number, depth: number): Record<string, unknown> {
    if (depth > DEPTH_LIMIT) throw UNUSUAL
    const mapping: Record<string, unknown> = {}
    const numbers: number[] = []
    for (let line = this.#line; line?.indent === indent; line = this.#line) {
      const match = KEY.exec(line.text)
      const key = keyOf(match?.[1], mapping)
      this.#at += 1
      numbers.push(line.number)
      const rest = line.text.slice(match?.[0].length)
      const isEmpty = rest === '' || rest.startsWith('#')
      mapping[key] = isEmpty ? this.#below(indent, depth) : this.#scalar(rest, line.number, depth + 1)
    }
    if ((this.#line?.indent ?? -1) > indent) throw UNUSUAL
    this.lines.set(mapping, numbers)
    return mapping
  }

  /** What stands under a key: deeper, or a list in the key's own column. */
  #below(indent: number, depth: number): unknown {
    const next = this.#line
    if (next === undefined || next.indent < indent) return null
    if (next.indent > indent) return this.#block(next.indent, depth + 1)
    return DASH.test(next.text) ? this.#list(indent, depth + 1) : null
  }

  #scalar(text: string, number: number, depth: number): unknown {
    const first = text[0]
    if (first === '[' || first === '{' || first === '"' || first === "'") {
      const flow = new FlowReader(text, number, this.lines)
      return flow.readWhole(depth)
    }
    const comment = text.indexOf(' #')
    return plain((comment === -1 ? text : text.slice(0, comment)).trimEnd(), BLOCK_TEXT)
  }
}

/** One line of flow style, or a quoted text. */
class FlowReader {
  readonly #text: string
  readonly #number: number
  readonly #lines: Map<object, number[]>
  #at = 0

  constructor(text: string, number: number, lines: Map<object, number[]>) {
    this.#text = text
    this.#number = number
    this.#lines = lines
  }

  readWhole(depth: number): unknown {
    const value = this.#value(depth)
    if (!/^(?: +#.*| *)$/.test(this.#text.slice(this.#at))) throw UNUSUAL
    return value
  }

  #value(depth: number): unknown {
    if (depth > DEPTH_LIMIT) throw UNUSUAL
    switch (this.#text[this.#at]) {
      case '[':
        return this.#list(depth)
      case '{':
        return this.#mapping(depth)
      case '"':
      case "'":
        return this.#take(QUOTED).slice(1, -1)
      default:
        return plain(this.#take(FLOW_TEXT).trimEnd())
    }
  }

  #list(depth: number): unknown[] {
    const items: unknown[] = []
    this.#each(']', () => items.push(this.#value(depth + 1)))
    this.#lines.set(
      items,
      items.map(() => this.#number),
    )
    return items
  }

  #mapping(depth: number): Record<string, unknown> {
    const mapping: Record<string, unknown> = {}
    this.#each('}', () => {
      const key = keyOf(this.#take(FLOW_KEY).trimEnd().slice(0, -1), mapping)
      mapping[key] = this.#value(depth + 1)
    })
    this.#lines.set(
      mapping,
      Object.keys(mapping).map(() => this.#number),
    )
    return mapping
  }

  #each(end: string, read: () => void): void {
    this.#at += 1
    this.#take(SPACES)
    if (this.#text[this.#at] === end) {
      this.#at += 1
      return
    }
    for (;;) {
      read()
      this.#take(SPACES)
      const mark = this.#text[this.#at]
      this.#at += 1
      if (mark === end) return
      if (mark !== ',') throw UNUSUAL
      this.#take(SPACES)
    }
  }

  #take(form: RegExp): string {
    form.lastIndex = this.#at
    const match = form.exec(this.#text)
    if (!match) throw UNUSUAL
    this.#at = form.lastIndex
    return match[0]
  }
}

function keyOf(key: string | undefined, mapping: object): string {
  if (key === undefined || WORD.test(key) || Object.hasOwn(mapping, key)) throw UNUSUAL
  return key
}

/** A text without quotes, as the core schema resolves it. */
function plain(text: string, form?: RegExp): unknown {
  if (form && !form.test(text)) throw UNUSUAL
  if (WORD.test(text)) {
    const word = WORDS.get(text)
    if (word === undefined) throw UNUSUAL
    return word
  }
  if (NUMBER.test(text)) return Number(text)
  if (NUMBER_LIKE.test(text)) throw UNUSUAL
  return text
}

const WORDS: ReadonlyMap<string, boolean | null> = new Map([
  ['true', true],
  ['false', false],
  ['null', null],
])
