/**
 * Which header fields pass from a caller to a target and back (RFC 9110 s.7.6.1). What is hop-by-hop goes first, what
 * only the agent or the platform may say never passes, and what the agent says is added last.
 */
import { Fault } from '../base/fault.ts'
import { FRAMING, HOP_BY_HOP, isDenied } from '../policy/header-names.ts'

/** Names and values in turn, as received: `rawHeaders` of Node. */
export type RawHeaders = readonly string[]

/** The fields that the agent adds: name and value. */
export type Injected = readonly (readonly [string, string])[]

export interface PassOptions {
  /** Whether the caller's Txn-Token passes (draft-ietf-oauth-transaction-tokens s.9). */
  readonly transaction: boolean
}

const PAIRS_LIMIT = 128
const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/
// RFC 9110 s.5.5 without line breaks: a folded value would be two lines to some servers (RFC 9112 s.5.2).
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
const LENGTH = /^[0-9]{1,15}$/

const ONCE: ReadonlySet<string> = new Set([
  ...FRAMING,
  'content-type',
  'content-range',
  'upgrade',
  'holdfast-spiffe-id',
  'holdfast-subject',
  'sec-websocket-key',
  'sec-websocket-version',
  'sec-websocket-accept',
  // draft-ietf-oauth-transaction-tokens s.9: exactly one.
  'txn-token',
])

/** Throws header_refused, invalid_request or browser_refused for a head that no two servers would read alike. */
export function checkHeaders(raw: RawHeaders): void {
  if (raw.length > PAIRS_LIMIT * 2) throw new Fault('header_refused', `over ${PAIRS_LIMIT} headers`)
  const seen = new Set<string>()
  for (const [name, value] of pairsOf(raw)) {
    checkField(name, value)
    const plain = plainName(name)
    if (ONCE.has(plain) && seen.has(plain)) throw duplicate(name)
    seen.add(plain)
  }
  checkBrowser(seen)
  checkFraming(raw)
}

function checkField(name: string, value: string): void {
  if (!NAME.test(name)) throw new Fault('header_refused', 'the name of a header is no token')
  if (!VALUE.test(value)) throw new Fault('header_refused', `${name} has a control character or is folded`)
}

function duplicate(name: string): Fault {
  const lower = name.toLowerCase()
  return lower === 'content-length' || lower === 'host' || lower === 'transfer-encoding'
    ? new Fault('invalid_request', `${name} is there twice, wanted at most once`)
    : new Fault('header_refused', `${name} is there twice, wanted at most once`)
}

/** Threats row 21: a page must not reach the agent, whatever name it found for it. */
function checkBrowser(names: ReadonlySet<string>): void {
  const isBrowser = [...names].some((name) => name === 'origin' || name.startsWith('sec-fetch-'))
  if (isBrowser)
    throw new Fault('browser_refused', 'requests from a browser are refused: Origin or Sec-Fetch is present')
}

/** RFC 9112 s.6.1, 6.3: one length, said once. */
function checkFraming(raw: RawHeaders): void {
  const length = firstOf(raw, 'content-length')
  const encoding = firstOf(raw, 'transfer-encoding')
  if (length !== undefined && encoding !== undefined)
    throw new Fault('invalid_request', 'the length of the body is given twice')
  if (length !== undefined && !LENGTH.test(length))
    throw new Fault('invalid_request', 'Content-Length is no number')
  if (encoding !== undefined && encoding.toLowerCase() !== 'chunked')
    throw new Fault('invalid_request', 'the only transfer coding is chunked')
}

/** The caller's fields that pass: without framing, hop-by-hop fields and what a caller may not say. */
export function passRequest(raw: RawHeaders, options: PassOptions): RawHeaders {
  const listed = connectionNames(raw)
  return filter(raw, (name, _value, spelled) => {
    if (HOP_BY_HOP.has(name) || FRAMING.has(name) || listed.has(name)) return false
    return !isDenied(name) && (name !== 'txn-token' || (options.transaction && spelled === name))
  })
}

/** Servers that build variables of names read `_` as `-` (RFC 3875 s.4.1.18): both spellings are one name. */
function plainName(name: string): string {
  return name.toLowerCase().replaceAll('_', '-')
}

/** What leaves: Host, the caller's fields, the framing of this hop, and last what the agent injects, each once. */
export function outgoing(
  host: string,
  passed: RawHeaders,
  framing: RawHeaders,
  injected: Injected,
): RawHeaders {
  const mine = new Set(injected.map(([name]) => name.toLowerCase()))
  const rest = filter(passed, (name) => !mine.has(name))
  return ['Host', host, ...rest, ...framing, ...injected.flat()]
}

/** How the body is framed for the target; a method that expects a body says when there is none. */
export function framingOf(raw: RawHeaders, method: string): RawHeaders {
  const length = firstOf(raw, 'content-length')
  if (length !== undefined) return ['Content-Length', length]
  if (firstOf(raw, 'transfer-encoding') !== undefined) return ['Transfer-Encoding', 'chunked']
  return takesBody(method) ? ['Content-Length', '0'] : []
}

/** Whether a body is expected of the method. */
export function takesBody(method: string): boolean {
  return !BODILESS.has(method)
}

const BODILESS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS'])

/** Whether a body follows the head (RFC 9112 s.6.3). */
export function hasBody(raw: RawHeaders): boolean {
  return firstOf(raw, 'transfer-encoding') !== undefined || Number(firstOf(raw, 'content-length') ?? 0) > 0
}

/** The target's fields that pass: its nonce is the agent's, and no target speaks for the agent. */
export function passResponse(raw: RawHeaders): RawHeaders {
  const listed = connectionNames(raw)
  return filter(raw, (name) => {
    if (HOP_BY_HOP.has(name) || listed.has(name)) return false
    return !name.startsWith('holdfast-') && !name.startsWith('proxy-') && name !== 'dpop-nonce'
  })
}

/** What a relay of the same workload passes on to its agent: all but the fields of one connection and its own secret. */
export function relayRequest(raw: RawHeaders): RawHeaders {
  const listed = connectionNames(raw)
  return filter(raw, (name) => {
    if (HOP_BY_HOP.has(name) || FRAMING.has(name) || listed.has(name)) return false
    return name !== 'holdfast-secret'
  })
}

/** What it passes back: the agent's answer as it is. */
export function relayResponse(raw: RawHeaders): RawHeaders {
  const listed = connectionNames(raw)
  return filter(raw, (name) => !HOP_BY_HOP.has(name) && !listed.has(name))
}

/** Trailer fields that pass; framing, routing and credentials have no place there (RFC 9110 s.6.5.1). */
export function passTrailers(raw: RawHeaders): RawHeaders {
  const fit = raw.length <= PAIRS_LIMIT * 2 ? raw : []
  return filter(fit, (name, value) => {
    if (HOP_BY_HOP.has(name) || FRAMING.has(name) || isDenied(name)) return false
    return name !== 'txn-token' && name !== 'trailer' && VALUE.test(value)
  })
}

/** The names that `Connection` lists, in lower case. */
function connectionNames(raw: RawHeaders): ReadonlySet<string> {
  const names = valuesOf(raw, 'connection').flatMap((value) => value.toLowerCase().split(','))
  return new Set(names.map((name) => name.trim()).filter((name) => !FRAMING.has(name)))
}

/** Every value of the field, in order. */
export function valuesOf(raw: RawHeaders, name: string): readonly string[] {
  const values: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2)
    if (raw[at]?.toLowerCase() === name) values.push(raw[at + 1] ?? '')
  return values
}

/** The first value of the field. */
export function firstOf(raw: RawHeaders, name: string): string | undefined {
  for (let at = 0; at + 1 < raw.length; at += 2) if (raw[at]?.toLowerCase() === name) return raw[at + 1]
  return undefined
}

/** Whether the comma-separated field holds `token`, in any case. */
export function lists(raw: RawHeaders, name: string, token: string): boolean {
  return valuesOf(raw, name).some((value) =>
    value.split(',').some((item) => item.trim().toLowerCase() === token),
  )
}

function filter(
  raw: RawHeaders,
  keep: (name: string, value: string, spelled: string) => boolean,
): RawHeaders {
  const kept: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [name = '', value = ''] = [raw[at], raw[at + 1]]
    if (keep(plainName(name), value, name.toLowerCase())) kept.push(name, value)
  }
  return kept
}

export function pairsOf(raw: RawHeaders): readonly [string, string][] {
  const pairs: [string, string][] = []
  for (let at = 0; at + 1 < raw.length; at += 2) pairs.push([raw[at] ?? '', raw[at + 1] ?? ''])
  return pairs
}

/** The names, as they were spelled, of those that `isWanted` takes. */
export function namesOf(raw: RawHeaders, isWanted: (name: string) => boolean): readonly string[] {
  const names: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2) if (isWanted(raw[at] ?? '')) names.push(raw[at] ?? '')
  return names
}

/** Without the pseudo-header fields of HTTP/2, which are no fields (RFC 9113 s.8.3). */
export function withoutPseudo(raw: RawHeaders): RawHeaders {
  const kept: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2)
    if (!raw[at]?.startsWith(':')) kept.push(raw[at] ?? '', raw[at + 1] ?? '')
  return kept
}
