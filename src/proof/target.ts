/**
 * The canonical URL of a request: what is checked is what is signed is what is sent (RFC 9449 s.4.2 `htu`, RFC 3986
 * s.3). Ambiguous spellings are refused, never repaired, and no URL parser sees the text before this scanner.
 */
import { isIPv6 } from 'node:net'
import { Fault } from '../base/fault.ts'

/** A URL in the one form that is compared, signed and sent; its query is gone. */
export type CanonicalUrl = {
  /** `origin` + `path`: the `htu` of a DPoP proof, the `aud` of a WPT. */
  readonly htu: string
  /** Scheme, host and any port that is not the scheme's own: `https://orders.example.org`. */
  readonly origin: string
  readonly scheme: 'http' | 'https'
  /** Lower case, without port; IPv6 in brackets. */
  readonly host: string
  /** Begins with `/`; escapes as sent, in upper-case hex. */
  readonly path: string
  /** The host is an IP literal: allowed only where a target lists it. */
  readonly ip: boolean
}

const URL_LIMIT = 8192
const HOST_LIMIT = 253

// Escapes but for those of unreserved characters, slash, backslash and controls: %2E and %2F are second spellings.
const ESCAPE = '%(?:2[0-9A-Ca-c]|3[A-Fa-f]|40|5[BDEbde]|60|7[B-Db-d]|[89A-Fa-f][0-9A-Fa-f])'
// `..;x` is a dot segment to servers that strip path parameters.
const SEGMENT = `/(?!\\.{1,2}(?:[/;?]|$))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|${ESCAPE})*`
const AUTHORITY = '([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:]+\\])(?::([1-9][0-9]{0,4}))?'
const URL_FORM = new RegExp(`^(https?)://${AUTHORITY}((?:${SEGMENT})*)(?:\\?[!-"$-\\[\\]-~]*)?$`, 'i')

const NAME = /^[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*$/
// Parsers read any host whose last label is a number as IPv4, also `2130706433`, `0x7f.1` and `0177.1`.
const NUMERIC = /(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$/
const OCTET = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`)

/** The canonical form of an absolute http or https URL; throws url_refused. Whether http is allowed is policy's matter. */
export function canonicalUrl(text: string): CanonicalUrl {
  const match = text.length <= URL_LIMIT ? URL_FORM.exec(text) : null
  if (match === null) throw refused(causeOf(text))
  const scheme = (match[1] ?? '').toLowerCase() === 'https' ? 'https' : 'http'
  const host = (match[2] ?? '').toLowerCase()
  const ip = isIpLiteral(host)
  const origin = `${scheme}://${host}${portText(scheme, match[3])}`
  const path = canonicalPath(match[4] ?? '')
  return { htu: origin + path, origin, scheme, host, path, ip }
}

function isIpLiteral(host: string): boolean {
  if (host.startsWith('[')) {
    if (!isIPv6(host.slice(1, -1)) || new URL(`http://${host}`).hostname !== host) {
      throw refused('the IPv6 address is not in its shortest form (RFC 5952)')
    }
    return true
  }
  if (NUMERIC.test(host)) {
    if (!IPV4.test(host)) throw refused('the host is a number but not four decimal octets')
    return true
  }
  if (host.length > HOST_LIMIT || !NAME.test(host)) throw refused('the host has an empty or too long label')
  return false
}

function portText(scheme: string, port: string | undefined): string {
  if (port === undefined) return ''
  if (Number(port) > 65_535) throw refused('the port is over 65535')
  return port === (scheme === 'https' ? '443' : '80') ? '' : `:${port}`
}

function canonicalPath(path: string): string {
  if (path === '') return '/'
  if (!path.includes('%')) return path
  try {
    // Overlong forms such as %C0%AE are dots and slashes to lenient decoders.
    decodeURIComponent(path)
  } catch {
    throw refused('the escapes in the path are not UTF-8')
  }
  return path.replace(/%[0-9a-f]{2}/gi, (hex) => hex.toUpperCase())
}

/** Ordered: the first that holds is the message. Each runs in linear time: callers choose the text (threats row 10). */
const CAUSES: readonly (readonly [RegExp, string])[] = [
  [/[^!-~]/, 'it has a space, control or non-ASCII character'],
  [/\\/, 'it has a backslash'],
  [/#/, 'it has a fragment'],
  [/^(?!https?:\/\/)/i, 'it does not begin with https:// or http://'],
  [/^[^:]*:\/\/[^/?]*@/, 'it has userinfo'],
  [/^[^:]*:\/\/[^/?]*%/, 'its host has an escape'],
  [/^[^?]*\/(?:\.|%2e){1,2}(?:[/;?]|%2f|%5c|$)/i, 'it has a dot segment'],
  [/^[^?]*%(?:2f|5c)/i, 'it has an encoded slash or backslash'],
  [/^[^?]*%(?:[01][0-9a-f]|7f)/i, 'it has an encoded control character'],
  [/^[^?]*%(?![0-9a-f]{2})/i, 'it has an incomplete escape'],
  [/^[^?]*%(?:2[de]|3[0-9]|[46][1-9a-f]|5[0-9af]|7[0-9ae])/i, 'it escapes a character that needs no escape'],
  [
    /^[^:]*:\/\/[^/?]*:(?![1-9][0-9]{0,4}(?:[/?]|$))[^/?\]:]*(?:[/?]|$)/,
    'its port is not a number from 1 to 65535',
  ],
  [
    /^[^:]*:\/\/(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?(?:[/?]|$)/,
    'its path has a character that must be escaped',
  ],
]

function causeOf(text: string): string {
  if (text.length > URL_LIMIT) return `it is over ${URL_LIMIT} characters`
  return CAUSES.find(([form]) => form.test(text))?.[1] ?? 'its host is not a name or an address'
}

/** The URL itself stays out of the message: queries carry secrets. */
function refused(cause: string): Fault {
  return new Fault('url_refused', `the URL cannot be signed: ${cause}`)
}
