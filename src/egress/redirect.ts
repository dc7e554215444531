/**
 * Redirects that policy lets egress follow (RFC 9110 s.15.4): where an answer points, as a request of its own. Nothing
 * here lets it go anywhere; that is for policy to say anew.
 */
import { Fault } from '../base/fault.ts'
import type { RuleBook } from '../policy/book.ts'
import { isHostName } from '../policy/parse.ts'
import { type CanonicalUrl, canonicalUrl } from '../proof/target.ts'
import type { Answer } from './attempt.ts'
import { pairsOf, type RawHeaders, valuesOf } from './headers.ts'
import { originOf, type Permit } from './permit.ts'

/** Where a redirect leads. */
export interface Redirect {
  readonly method: string
  readonly url: CanonicalUrl
  /** Empty, or `?` and what follows it. */
  readonly query: string
  /** Whether the body goes along. */
  readonly keepsBody: boolean
}

/** How many redirects one request follows. */
export const REDIRECTS_LIMIT = 3

const KEPT: ReadonlySet<number> = new Set([307, 308])
const SEE_OTHER = 303
const MOVED: ReadonlySet<number> = new Set([301, 302])

/** Where `answer` points; undefined when it is no redirect that is followed. Throws redirect_refused. */
export function redirectOf({ method, platform, url }: Permit, answer: Answer): Redirect | undefined {
  if (!platform.followsRedirects) return undefined
  const next = nextMethod(method, answer.status)
  const [location, ...more] = valuesOf(answer.headers, 'location')
  if (next === undefined || location === undefined) return undefined
  if (more.length > 0) throw refused('several places at once')
  const text = absolute(url, location)
  const to = placeOf(text)
  if (url.scheme === 'https' && to.scheme !== 'https') throw refused('http, which the request has left')
  const at = text.indexOf('?')
  return { method: next, url: to, query: at < 0 ? '' : text.slice(at), keepsBody: KEPT.has(answer.status) }
}

/** Clients rewrite POST differently on 301 and 302 (RFC 9110 s.15.4.2): the caller then gets the answer itself. */
function nextMethod(method: string, status: number): string | undefined {
  const isSafe = method === 'GET' || method === 'HEAD'
  if (KEPT.has(status) || (MOVED.has(status) && isSafe)) return method
  if (status === SEE_OTHER) return method === 'HEAD' ? 'HEAD' : 'GET'
  return undefined
}

/** RFC 3986 s.5.2 without its repair of dot segments, which no target needs and canonicalUrl refuses. */
function absolute(from: CanonicalUrl, location: string): string {
  // RFC 9110 s.10.2.2: a fragment is for the reader of the page.
  const [text = ''] = location.split('#', 1)
  if (/^[a-z][a-z0-9+.-]*:/i.test(text)) return text
  if (text.startsWith('//')) return `${from.scheme}:${text}`
  if (text.startsWith('/')) return from.origin + text
  if (text === '' || text.startsWith('?')) return from.htu + text
  return from.origin + from.path.slice(0, from.path.lastIndexOf('/') + 1) + text
}

/** The URL stays out of the message: the target chose it. */
function placeOf(text: string): CanonicalUrl {
  try {
    return canonicalUrl(text)
  } catch (caught) {
    throw refused(`a URL that cannot be signed (${Fault.from(caught).message})`)
  }
}

/** The targets that egress would reach at the place, `first` before the others; throws redirect_refused for none. */
export function targetsAt(book: RuleBook, { url }: Redirect, first: string): readonly string[] {
  const names = book
    .targetsFor(url)
    .filter((target) => target.platform && isHostName(target.name) && leads(target, url.origin))
    .map(({ name }) => name)
  if (names.length === 0) throw refused(`${url.origin}, which is no origin that egress has a target for`)
  return names.includes(first) ? [first, ...names.filter((name) => name !== first)] : names
}

function leads(target: Parameters<typeof originOf>[0], origin: string): boolean {
  return target.platform?.origins[0] === origin && originOf(target, target.platform) === origin
}

const OF_BODY =
  /^(?:content-(?:length|type|encoding|language|location|range|digest)|repr-digest|transfer-encoding|expect|trailer)$/i

/** The head as it goes on: without its body where that stays, and without cookies where another origin would get them. */
export function headFor(raw: RawHeaders, { keepsBody, url }: Redirect, from: CanonicalUrl): string[] {
  return pairsOf(raw)
    .filter(([name]) => keepsBody || !OF_BODY.test(name))
    .filter(([name]) => url.origin === from.origin || name.toLowerCase() !== 'cookie')
    .flat()
}

export function refused(where: string): Fault {
  return new Fault('redirect_refused', `the target redirects to ${where}`)
}
