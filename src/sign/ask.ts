/** A request for a proof, parsed once: the same members arrive as JSON and as a protobuf message. */
import { Fault } from '../base/fault.ts'
import { Secret } from '../base/secret.ts'
import type { Jkt } from '../proof/signer.ts'
import { type CanonicalUrl, canonicalUrl } from '../proof/target.ts'
import { parseSpiffeId, type SpiffeId } from '../spiffe/id.ts'

/** The access token that goes with the request: whole, as its RFC 9449 `ath`, or none. */
export type TokenPart =
  | { readonly form: 'full'; readonly token: Secret<string> }
  | { readonly form: 'hash'; readonly ath: string }
  | { readonly form: 'none' }

interface Common {
  readonly url: CanonicalUrl
  readonly token: TokenPart
  readonly spiffeId: SpiffeId | undefined
}

/** RFC 9449: one proof for one request. */
export interface DpopAsk extends Common {
  readonly kind: 'dpop'
  readonly method: string
  readonly nonce: string | undefined
  readonly jkt: Jkt | undefined
}

/** draft-ietf-wimse-wpt: a proof for the agent-held WIT; it covers no method. */
export interface WptAsk extends Common {
  readonly kind: 'wpt'
  /** base64url SHA-256 of the Txn-Token, given as such or made from the token. */
  readonly transaction: { readonly token: Secret<string> } | { readonly tth: string } | undefined
}

export type Ask = DpopAsk | WptAsk

export const METHOD = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$/
const HASH = /^[A-Za-z0-9_-]{43}$/
// RFC 9449 s.8.1: a nonce is NQCHAR.
export const NONCE = /^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/
// RFC 6750 s.2.1 b64token, long enough for JWTs with many claims.
export const TOKEN = /^[A-Za-z0-9._~+/-]{1,16384}=*$/

const DPOP_MEMBERS = new Set(['method', 'url', 'access_token', 'ath', 'nonce', 'jkt', 'spiffe_id'])
const WPT_MEMBERS = new Set(['url', 'access_token', 'ath', 'txn_token', 'tth', 'spiffe_id'])

export type Members = Readonly<Record<string, unknown>>

/** The DPoP request in `members`; throws invalid_request, url_refused, spiffe_id_invalid. Unknown members are refused. */
export function parseDpopAsk(members: Members): DpopAsk {
  refuseUnknown(members, DPOP_MEMBERS)
  return {
    kind: 'dpop',
    method: required(members, 'method', METHOD),
    nonce: optional(members, 'nonce', NONCE),
    jkt: optional(members, 'jkt', HASH) as Jkt | undefined,
    ...parseCommon(members),
  }
}

/** The WPT request in `members`; throws as parseDpopAsk. */
export function parseWptAsk(members: Members): WptAsk {
  refuseUnknown(members, WPT_MEMBERS)
  const token = optional(members, 'txn_token', TOKEN)
  const tth = optional(members, 'tth', HASH)
  if (token && tth) throw new Fault('invalid_request', 'txn_token and tth exclude each other')
  const transaction = token ? { token: new Secret(token) } : tth ? { tth } : undefined
  return { kind: 'wpt', transaction, ...parseCommon(members) }
}

function parseCommon(members: Members): Common {
  const url = members['url']
  if (typeof url !== 'string') throw new Fault('invalid_request', 'url is missing or not a string')
  const id = members['spiffe_id']
  if (id !== undefined && typeof id !== 'string') throw wrong('spiffe_id')
  return {
    url: canonicalUrl(url),
    token: parseToken(members),
    spiffeId: id === undefined || id === '' ? undefined : parseSpiffeId(id),
  }
}

function parseToken(members: Members): TokenPart {
  const token = optional(members, 'access_token', TOKEN)
  const ath = optional(members, 'ath', HASH)
  if (token && ath) throw new Fault('invalid_request', 'access_token and ath exclude each other')
  if (token) return { form: 'full', token: new Secret(token) }
  return ath ? { form: 'hash', ath } : { form: 'none' }
}

/** Throws invalid_request for a member that is not `known`. */
export function refuseUnknown(members: Members, known: ReadonlySet<string>): void {
  for (const name in members) {
    if (!known.has(name))
      throw new Fault('invalid_request', `unknown member ${JSON.stringify(name.slice(0, 64))}`)
  }
}

/** The member `name` of that shape; throws invalid_request, which never shows its value. */
export function required(members: Members, name: string, shape: RegExp): string {
  const value = optional(members, name, shape)
  if (value === undefined) throw new Fault('invalid_request', `${name} is missing`)
  return value
}

/** As required, for a member that may be missing. */
export function optional(members: Members, name: string, shape: RegExp): string | undefined {
  const value = members[name]
  if (value === undefined) return undefined
  if (typeof value !== 'string' || !shape.test(value)) throw wrong(name)
  return value
}

/** Names the member, never its value: it may be a token. */
function wrong(name: string): Fault {
  return new Fault('invalid_request', `${name} is not of the form it must have`)
}
