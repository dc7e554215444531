/** What a service asks about a request that it received: parsed once, the same from JSON and from a protobuf message. */
import { isIP } from 'node:net'
import { Fault } from '../base/fault.ts'
import { METHOD, type Members, optional, refuseUnknown, required } from '../sign/ask.ts'
import { parseSpiffeId, type SpiffeId } from '../spiffe/id.ts'
import type { RawHeaders } from './inbound.ts'
import type { AskedBody } from './signed-body.ts'

/** One request as it arrived, and who was at the other end. */
export interface Question {
  /** As the service names it; found by the path when absent. */
  readonly route: string | undefined
  readonly method: string
  /** Without query. */
  readonly path: string
  /** Empty, or `?` and what follows it. */
  readonly query: string
  readonly headers: RawHeaders
  readonly peer: AskedPeer
  /** Whose handle is wanted; that of the first identity when absent. */
  readonly spiffeId: SpiffeId | undefined
  /** Where the asking proxy shows bodies. */
  readonly body?: AskedBody
}

/** The peer as the service saw it: its certificate is verified here. */
export interface AskedPeer {
  /** Of the handshake, leaf first, in DER; empty: none was shown. */
  readonly chain: readonly Buffer[]
  readonly address: string | undefined
}

export const NOBODY: AskedPeer = { chain: [], address: undefined }

const MEMBERS = new Set(['route', 'method', 'path', 'url', 'headers', 'peer', 'spiffe_id'])
const PEER_MEMBERS = new Set(['certificate', 'intermediates', 'address'])
const ROUTE = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/
const HEADERS_LIMIT = 256
const TARGET_LIMIT = 8_192
const CERTIFICATE_LIMIT = 64 * 1024
const INTERMEDIATES_LIMIT = 7
/** CGI, and what stands on it, takes `_` and `-` for one: such a copy of a header of ours passes proxies that overwrite ours. */
const LOOK_ALIKE = /^x[-_]holdfast[-_]/i
const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/
// RFC 9110 s.5.5: a line end or NUL in a value is how one header becomes two.
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
const BROKEN = /[\u0000\r\n]/

/** Throws invalid_request, spiffe_id_invalid; no value is in a message. */
export function parseQuestion(members: Members): Question {
  refuseUnknown(members, MEMBERS)
  const id = members['spiffe_id']
  if (id !== undefined && typeof id !== 'string') throw wrong('spiffe_id')
  return {
    route: optional(members, 'route', ROUTE),
    method: required(members, 'method', METHOD),
    ...targetIn(members),
    headers: headersIn(members['headers']),
    peer: peerIn(members['peer']),
    spiffeId: id === undefined || id === '' ? undefined : parseSpiffeId(id),
  }
}

/** The name of a route; throws invalid_request. */
export function parseRoute(text: string): string {
  if (ROUTE.test(text)) return text
  throw wrong('route')
}

/** A request target in origin form: its path and its query. Throws invalid_request. */
export function splitTarget(target: string): Pick<Question, 'path' | 'query'> {
  if (!target.startsWith('/') || target.length > TARGET_LIMIT) throw wrong('path')
  const end = target.indexOf('?')
  return end < 0 ? { path: target, query: '' } : { path: target.slice(0, end), query: target.slice(end) }
}

function targetIn({ path, url }: Members): Pick<Question, 'path' | 'query'> {
  if (typeof path === 'string' && url === undefined) return splitTarget(path)
  if (typeof url !== 'string' || path !== undefined)
    throw new Fault('invalid_request', 'one of path and url is wanted')
  // Whom the URL names does not count: the public origins of the route do.
  const rest = /^https?:\/\/[^/?#\\]+(.*)$/s.exec(url)?.[1]
  if (rest === undefined) throw wrong('url')
  return splitTarget(rest.startsWith('/') ? rest : `/${rest}`)
}

/** Pairs of JSON, or the messages of gRPC. */
function headersIn(given: unknown): RawHeaders {
  const list: readonly unknown[] = Array.isArray(given) ? given : []
  if (given !== undefined && !Array.isArray(given)) throw wrong('headers')
  if (list.length > HEADERS_LIMIT) throw new Fault('invalid_request', `over ${HEADERS_LIMIT} headers`)
  return list.flatMap((item) => {
    const [name, value, ...rest] = pairOf(item)
    if (rest.length > 0 || typeof name !== 'string' || typeof value !== 'string') throw wrong('headers')
    if (!NAME.test(name) || BROKEN.test(value)) throw wrong('headers')
    if (name.includes('_') && LOOK_ALIKE.test(name))
      throw new Fault('invalid_request', 'a header has the name of one of ours, with "_" for "-"')
    return [name, value]
  })
}

function pairOf(item: unknown): readonly unknown[] {
  if (Array.isArray(item)) return item
  if (typeof item !== 'object' || item === null) throw wrong('headers')
  const { name, value = '' } = item as Members
  return [name, value]
}

function peerIn(given: unknown): AskedPeer {
  if (given === undefined) return NOBODY
  if (typeof given !== 'object' || given === null || Array.isArray(given)) throw wrong('peer')
  const members = given as Members
  refuseUnknown(members, PEER_MEMBERS)
  const { address, certificate, intermediates = [] } = members
  if (address !== undefined && (typeof address !== 'string' || isIP(address) === 0)) throw wrong('address')
  if (!Array.isArray(intermediates) || intermediates.length > INTERMEDIATES_LIMIT)
    throw wrong('intermediates')
  if (certificate === undefined && intermediates.length > 0) throw wrong('certificate')
  const chain = certificate === undefined ? [] : [certificate, ...intermediates].map(certificateIn)
  return { chain, address }
}

/** Bytes of gRPC, or base64 of JSON in its one spelling. */
function certificateIn(given: unknown): Buffer {
  const bytes = typeof given === 'string' ? Buffer.from(given, 'base64') : given
  const isOther = typeof given === 'string' && (bytes as Buffer).toString('base64') !== given
  if (!Buffer.isBuffer(bytes) || isOther || bytes.length === 0 || bytes.length > CERTIFICATE_LIMIT)
    throw wrong('certificate')
  return bytes
}

function wrong(name: string): Fault {
  return new Fault('invalid_request', `${name} is not of the form it must have`)
}
