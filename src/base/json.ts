/**
 * JSON from outside: bounded, one object at the top, no member twice (RFC 8259 s.4 leaves that open, and two parsers
 * that choose differently are a way past a check).
 */
import { Fault } from './fault.ts'

export interface JsonLimits {
  readonly maxBytes: number
  /** Nesting of objects and arrays, the top level counted as 1. */
  readonly maxDepth: number
}

/** The object in `text`; throws invalid_request, which names a position and never quotes the text. */
export function parseJsonObject(text: string, limits: JsonLimits): Record<string, unknown> {
  if (Buffer.byteLength(text) > limits.maxBytes)
    throw new Fault('invalid_request', `the JSON is over ${limits.maxBytes} bytes`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new Fault('invalid_request', 'the text is not JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Fault('invalid_request', 'the JSON is not an object')
  }
  scan(text, limits.maxDepth)
  return value as Record<string, unknown>
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COLON = 0x3a
const BRACKET = 0x5b
const BRACKET_END = 0x5d
const BRACE = 0x7b
const BRACE_END = 0x7d

/**
 * Walks well-formed JSON and keeps the names of each open object: strings and brackets are all that matters. By
 * character: an expression that matches tokens takes twice as long.
 */
function scan(text: string, maxDepth: number): void {
  const open: (Set<string> | undefined)[] = []
  let [start, end] = [0, 0]
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) {
      start = at
      at = endOfString(text, at)
      end = at + 1
    } else if (code === BRACE) open.push(new Set())
    else if (code === BRACKET) open.push(undefined)
    else if (code === BRACE_END || code === BRACKET_END) open.pop()
    else if (code === COLON) addName(open.at(-1), text.slice(start, end), at)
    if (open.length > maxDepth)
      throw new Fault('invalid_request', `the JSON is nested over ${maxDepth} deep at position ${at}`)
  }
}

/** Where the string that begins at `start` ends. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; ; at++) {
    const code = text.charCodeAt(at)
    if (code === BACKSLASH) at += 1
    else if (code === QUOTE) return at
  }
}

function addName(names: Set<string> | undefined, token: string, index: number): void {
  // Two spellings of one name are one name: "a" and "\u0061".
  const name = token.includes('\\') ? String(JSON.parse(token)) : token.slice(1, -1)
  if (name === '__proto__')
    throw new Fault('invalid_request', `the member name before position ${index} is refused`)
  if (names?.has(name)) throw new Fault('invalid_request', `a member is there twice at position ${index}`)
  names?.add(name)
}
