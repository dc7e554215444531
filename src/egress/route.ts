/**
 * Which target a request means: its one Host, and nothing else. An absolute request target must say the same (RFC 9112
 * s.3.2.2), so that no second reader of the request finds another target in it.
 */
import { Fault } from '../base/fault.ts'
import { isHostName } from '../policy/parse.ts'
import { parseWorkloadId, type SpiffeId } from '../spiffe/id.ts'
import { checkHeaders, firstOf, type RawHeaders, valuesOf } from './headers.ts'

/** What the head of a request says of where it is to go. */
export interface Route {
  /** The name of the target, in lower case. */
  readonly target: string
  /** The path as sent. */
  readonly path: string
  /** Empty, or `?` and what follows it. */
  readonly query: string
  /** Which of its identities the caller chose. */
  readonly spiffeId: SpiffeId | undefined
  /** On whose behalf: a handle as the caller got it. */
  readonly subject: string | undefined
}

/** The head of a request as Node read it. */
export interface Head {
  /** The request target of the first line. */
  readonly url: string
  readonly raw: RawHeaders
}

/** Reads where `head` goes; throws header_refused, invalid_request, browser_refused, url_refused, spiffe_id_invalid. */
export function parseRoute(head: Head): Route {
  checkHeaders(head.raw)
  const target = hostOf(head.raw)
  const local = localPart(head.url, target)
  const at = local.indexOf('?')
  const id = firstOf(head.raw, 'holdfast-spiffe-id')
  return {
    target,
    path: at < 0 ? local : local.slice(0, at),
    query: at < 0 ? '' : local.slice(at),
    spiffeId: id === undefined ? undefined : parseWorkloadId(id),
    subject: firstOf(head.raw, 'holdfast-subject'),
  }
}

function hostOf(raw: RawHeaders): string {
  const hosts = valuesOf(raw, 'host')
  const [host = ''] = hosts
  if (hosts.length !== 1)
    throw new Fault('invalid_request', `${hosts.length} Host headers, wanted exactly one`)
  const name = host.toLowerCase()
  if (!isHostName(name))
    throw new Fault('invalid_request', 'Host is not the name of a target: wanted a name without port')
  return name
}

const ABSOLUTE = /^http:\/\/([^/?#]*)(.*)$/is

/** The path and query: of an absolute form only when it names the very target. */
function localPart(url: string, target: string): string {
  if (url.startsWith('/')) return url
  const match = ABSOLUTE.exec(url)
  if (!match) throw new Fault('invalid_request', 'the request target is neither a path nor http://TARGET/')
  if (match[1]?.toLowerCase() !== target)
    throw new Fault('invalid_request', 'the request target and Host name different targets')
  const local = match[2] ?? ''
  return local.startsWith('/') ? local : `/${local}`
}
