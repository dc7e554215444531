/** A request to be verified, as it arrived: raw headers, so that a second line of a kind is seen. */
import { Fault } from '../base/fault.ts'
import type { Route } from '../policy/route.ts'
import type { SpiffeId } from '../spiffe/id.ts'

/** Names and values in turn, as received. */
export type RawHeaders = readonly string[]

/** Who is at the other end of the connection that the request arrived on, as far as that was verified there. */
export interface ChannelPeer {
  /** The certificate it showed in the handshake, in DER. */
  readonly certificate: Buffer | undefined
  /** The SPIFFE ID in it, when it verified against the bundle of its trust domain. */
  readonly spiffeId: SpiffeId | undefined
  readonly address: string | undefined
}

export interface Inbound {
  readonly method: string
  /** Path as it arrived, without query; not canonical yet. */
  readonly path: string
  /** Empty, or `?` and what follows it: signatures cover it, DPoP does not. */
  readonly query?: string
  readonly headers: RawHeaders
  readonly peer: ChannelPeer
  /** The route that the service behind it says it is of. */
  readonly route: Route
}

/** The credentials of a request, one at most of each kind. */
export interface Credentials {
  readonly scheme: 'dpop' | 'bearer' | undefined
  readonly token: string | undefined
  readonly dpop: string | undefined
  readonly wit: string | undefined
  readonly wpt: string | undefined
  readonly txnToken: string | undefined
  readonly isSigned: boolean
}

const HEADERS_LIMIT = 256
const VALUE_LIMIT = 64 * 1024
const SPACE = 0x20
const TOKEN = /^[A-Za-z0-9\-._~+/]+=*$/

/** All values of `name`, in order. */
export function valuesOf(headers: RawHeaders, name: string): readonly string[] {
  const found: string[] = []
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const [key, value] = [headers[at], headers[at + 1]]
    if (key !== undefined && value !== undefined && key.length === name.length && key.toLowerCase() === name)
      found.push(value)
  }
  return found
}

/** The one value of `name`; throws proof_repeated when there are more (RFC 9449 s.4.3 check 1). */
export function only(headers: RawHeaders, name: string): string | undefined {
  let [value, count]: [string | undefined, number] = [undefined, 0]
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const key = headers[at]
    if (key === undefined || key.length !== name.length || key.toLowerCase() !== name) continue
    value = headers[at + 1]
    count += 1
  }
  if (count > 1) throw new Fault('proof_repeated', `${count} ${name} headers, wanted one`)
  if (value !== undefined && value.length > VALUE_LIMIT)
    throw new Fault('invalid_request', `the ${name} header is over ${VALUE_LIMIT} bytes`)
  return value
}

/** Throws proof_repeated, token_malformed, invalid_request. */
export function credentialsIn(headers: RawHeaders): Credentials {
  if (headers.length > 2 * HEADERS_LIMIT) throw new Fault('invalid_request', `over ${HEADERS_LIMIT} headers`)
  // No spread with members after it: V8 makes such an object slowly, and each request makes one (2 µs of 40).
  const { scheme, token } = authorizationIn(headers)
  return {
    scheme,
    token,
    dpop: only(headers, 'dpop'),
    wit: only(headers, 'workload-identity-token'),
    wpt: only(headers, 'workload-proof-token'),
    txnToken: only(headers, 'txn-token'),
    isSigned: valuesOf(headers, 'signature-input').length > 0,
  }
}

function authorizationIn(headers: RawHeaders): Pick<Credentials, 'scheme' | 'token'> {
  const text = only(headers, 'authorization')
  if (text === undefined) return { scheme: undefined, token: undefined }
  const end = text.indexOf(' ')
  const scheme = text.slice(0, Math.max(end, 0)).toLowerCase()
  let start = end
  while (text.charCodeAt(start) === SPACE) start += 1
  const token = text.slice(start)
  if ((scheme !== 'dpop' && scheme !== 'bearer') || !TOKEN.test(token))
    throw new Fault('token_malformed', 'Authorization is neither DPoP nor Bearer with one token', {
      owner: 'caller',
    })
  return { scheme, token }
}
