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

// Strings and brackets are all that matters: JSON.parse has already accepted the grammar.
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g

/** Walks the tokens of well-formed JSON and keeps the names of each open object. */
function scan(text: string, maxDepth: number): void {
  const open: (Set<string> | undefined)[] = []
  let last = ''
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (token === '{') open.push(new Set())
    else if (token === '[') open.push(undefined)
    else if (token === '}' || token === ']') open.pop()
    else if (token === ':') addName(open.at(-1), last, index)
    if (open.length > maxDepth)
      throw new Fault('invalid_request', `the JSON is nested over ${maxDepth} deep at position ${index}`)
    last = token
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
