/** The fields of a request's head, checked as RFC 9113 s.8.2 and s.8.3 want them before anybody reads one. */
import type { Fields } from './hpack-table.ts'

/** What a request says of itself, and its other fields in order. */
export interface RequestHead {
  readonly method: string
  readonly path: string
  /** `content-length`, where it is said. */
  readonly length: number | undefined
  /** Pseudo-fields first, as they came. */
  readonly fields: Fields
}

const PSEUDO: ReadonlySet<string> = new Set([':method', ':scheme', ':authority', ':path'])
/** Fields of one connection, which HTTP/2 has not (s.8.2.2). */
const HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])
const LENGTH = /^[0-9]{1,15}$/
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/
const VALUE = /^(?![ \t])[^\0\r\n]*(?<![ \t])$/

/** Undefined for a malformed request (s.8.1.1), CONNECT among them: nobody is connected to anything here. */
export function requestHead(fields: Fields): RequestHead | undefined {
  const pseudo = new Map<string, string>()
  let isBehind = false
  let length: string | undefined
  for (const [name, value] of fields) {
    if (!VALUE.test(value)) return undefined
    if (name.startsWith(':')) {
      if (isBehind || !PSEUDO.has(name) || pseudo.has(name)) return undefined
      pseudo.set(name, value)
      continue
    }
    isBehind = true
    if (!isField(name, value)) return undefined
    if (name === 'content-length') length ??= value
  }
  const [method, path] = [pseudo.get(':method'), pseudo.get(':path')]
  if (!method || !path || !pseudo.get(':scheme')) return undefined
  if (length === undefined) return { method, path, length, fields }
  return LENGTH.test(length) ? { method, path, length: Number(length), fields } : undefined
}

/** Of the fields that end a request (s.8.1): none is a pseudo-field. */
export function areTrailers(fields: Fields): boolean {
  return fields.every(([name, value]) => VALUE.test(value) && isField(name, value))
}

function isField(name: string, value: string): boolean {
  if (!NAME.test(name) || HOP.has(name)) return false
  return name !== 'te' || value === 'trailers'
}
