/** What applications that send requests themselves ask for, parsed once: JSON and protobuf have the same members. */
import { Fault } from '../base/fault.ts'
import type { Target } from '../policy/grant.ts'
import { parseContentDigest } from '../proof/content-digest.ts'
import { type CanonicalUrl, canonicalUrl } from '../proof/target.ts'
import { METHOD, type Members, NONCE, optional, refuseUnknown, required } from '../sign/ask.ts'
import { parseSpiffeId, type SpiffeId } from '../spiffe/id.ts'
import type { RawHeaders } from './headers.ts'

/** The headers of one request. */
export interface HeadersAsk {
  readonly method: string
  readonly url: CanonicalUrl
  /** Empty, or `?` and what follows it: a signature covers it. */
  readonly query: string
  /** Fields that the application sends and wants signed: names in lower case, each once, and values in turn. */
  readonly signedHeaders: RawHeaders
  /** The RFC 9530 digest of the body that the application sends. */
  readonly contentDigest: string | undefined
  readonly spiffeId: SpiffeId | undefined
  /** On whose behalf: a handle. */
  readonly subject: string | undefined
}

/** One request, told of in full by a proxy that is the asking workload and sends it next. */
export interface SentAsk extends Pick<HeadersAsk, 'method' | 'url' | 'query' | 'spiffeId' | 'subject'> {
  /** The target, where the proxy names it: no other is asked. */
  readonly target: Target | undefined
  /** Its header fields as far as they are known, in lower case. */
  readonly fields: RawHeaders
  readonly hasBody: boolean
}

/** What the target answered to a request with such headers. */
export interface ReportAsk extends Heard {
  readonly url: CanonicalUrl
  readonly spiffeId: SpiffeId | undefined
}

/** What an answer says of nonces and tokens. */
export interface Heard {
  readonly status: number
  readonly nonce: string | undefined
  /** The value of `WWW-Authenticate`; empty when there is none. */
  readonly challenge: string
}

/** The token for a target, which its name or a URL of it names. */
export interface ReleaseAsk {
  readonly place: { readonly url: CanonicalUrl } | { readonly target: string }
  readonly spiffeId: SpiffeId | undefined
  readonly subject: string | undefined
}

/** A token for the replay lab, by the proof of its key; without one, what the proof has to say. */
export interface ProbeAsk {
  readonly place: { readonly target: string }
  readonly proof: string | undefined
  readonly spiffeId: SpiffeId | undefined
}

/** The end of a key that the lab has had a token for. */
export interface ProbeEndAsk {
  readonly jkt: string
  readonly spiffeId: SpiffeId | undefined
}

const HEADERS_MEMBERS = new Set(['method', 'url', 'signed_headers', 'content_digest', 'spiffe_id', 'subject'])
const REPORT_MEMBERS = new Set(['url', 'status', 'dpop_nonce', 'www_authenticate', 'spiffe_id'])
const RELEASE_MEMBERS = new Set(['url', 'target', 'spiffe_id', 'subject'])
const PROBE_MEMBERS = new Set(['target', 'proof', 'spiffe_id'])
const PROBE_END_MEMBERS = new Set(['jkt', 'spiffe_id'])
const PROOF = /^[A-Za-z0-9._-]{1,8192}$/
const JKT = /^[A-Za-z0-9_-]{43}$/
// What is no handle is an unknown one.
const HANDLE = /^[\x20-\x7e]{1,256}$/
const TARGET = /^[A-Za-z0-9._-]{1,253}$/
// RFC 9110 s.5.5: a field value as it may stand in one line.
const FIELD = /^[\t\x20-\x7e\x80-\xff]{0,4096}$/

/** Throws invalid_request, url_refused, spiffe_id_invalid, as all here. Unknown members are refused. */
export function parseHeadersAsk(members: Members): HeadersAsk {
  refuseUnknown(members, HEADERS_MEMBERS)
  const url = urlOf(members['url'])
  return {
    method: required(members, 'method', METHOD),
    url,
    query: queryOf(String(members['url'])),
    signedHeaders: signedHeadersOf(members['signed_headers']),
    contentDigest: digestIn(members),
    spiffeId: idOf(members['spiffe_id']),
    subject: optional(members, 'subject', HANDLE),
  }
}

export function parseReportAsk(members: Members): ReportAsk {
  refuseUnknown(members, REPORT_MEMBERS)
  return {
    url: urlOf(members['url']),
    status: statusOf(members['status']),
    nonce: optional(members, 'dpop_nonce', NONCE),
    challenge: optional(members, 'www_authenticate', FIELD) ?? '',
    spiffeId: idOf(members['spiffe_id']),
  }
}

export function parseReleaseAsk(members: Members): ReleaseAsk {
  refuseUnknown(members, RELEASE_MEMBERS)
  const target = optional(members, 'target', TARGET)
  const url = members['url']
  if ((target === undefined) === (url === undefined))
    throw new Fault('invalid_request', 'wanted is either url or target')
  return {
    place: target === undefined ? { url: urlOf(url) } : { target },
    spiffeId: idOf(members['spiffe_id']),
    subject: optional(members, 'subject', HANDLE),
  }
}

export function parseProbeAsk(members: Members): ProbeAsk {
  refuseUnknown(members, PROBE_MEMBERS)
  return {
    place: { target: required(members, 'target', TARGET) },
    proof: optional(members, 'proof', PROOF),
    spiffeId: idOf(members['spiffe_id']),
  }
}

export function parseProbeEndAsk(members: Members): ProbeEndAsk {
  refuseUnknown(members, PROBE_END_MEMBERS)
  return { jkt: required(members, 'jkt', JKT), spiffeId: idOf(members['spiffe_id']) }
}

function urlOf(url: unknown): CanonicalUrl {
  if (typeof url !== 'string') throw new Fault('invalid_request', 'url is missing or not a string')
  return canonicalUrl(url)
}

/** Of a URL that is canonical, so that it has no fragment. */
function queryOf(url: string): string {
  const at = url.indexOf('?')
  return at < 0 ? '' : url.slice(at)
}

const SIGNED_LIMIT = 32
const HEADER = /^[a-z][a-z0-9-]{0,63}$/
// Blanks at the ends would be gone when the field arrives (RFC 9110 s.5.5); nothing but ASCII can be signed as it is.
const SIGNED_VALUE = /^(?:[!-~](?:[\t -~]{0,4094}[!-~])?)?$/

/** JSON objects and protobuf maps hold each name once; two spellings of one name are refused with upper case. */
function signedHeadersOf(given: unknown): RawHeaders {
  if (given === undefined) return []
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new Fault('invalid_request', 'signed_headers is not an object')
  const entries = Object.entries(given)
  if (entries.length > SIGNED_LIMIT)
    throw new Fault('invalid_request', `signed_headers has over ${SIGNED_LIMIT} members`)
  return entries.flatMap(([name, value]: [string, unknown]) => {
    if (!HEADER.test(name))
      throw new Fault('invalid_request', 'a name in signed_headers is not a header name in lower case')
    if (typeof value !== 'string' || !SIGNED_VALUE.test(value))
      throw new Fault('invalid_request', `signed_headers.${name} is not a value that can be signed`)
    return [name, value]
  })
}

function digestIn(members: Members): string | undefined {
  const value = optional(members, 'content_digest', FIELD)
  if (value !== undefined && !parseContentDigest(value))
    throw new Fault('invalid_request', 'content_digest is no list of sha-256 and sha-512 digests (RFC 9530)')
  return value
}

/** The SPIFFE ID of a member that may be missing or empty; throws invalid_request, spiffe_id_invalid. */
export function idOf(id: unknown): SpiffeId | undefined {
  if (id === undefined || id === '') return undefined
  if (typeof id !== 'string') throw new Fault('invalid_request', 'spiffe_id is not a string')
  return parseSpiffeId(id)
}

function statusOf(status: unknown): number {
  if (typeof status === 'number' && Number.isInteger(status) && status >= 100 && status <= 599) return status
  throw new Fault('invalid_request', 'status is not one of HTTP')
}
