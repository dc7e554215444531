/** The texts of policy files: selectors, origins, paths, callers, servers and dates, each in one form only. */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { meant } from '../base/nearest.ts'
import { canonicalUrl } from '../proof/target.ts'
import { parseSpiffeId, pathOf } from '../spiffe/id.ts'
import { parseSelector, type Selector } from '../spiffe/selector.ts'
import { isPrefix, stemOf } from './pattern.ts'
import { kindOf } from './selector-kind.ts'

/** Loopback names: the only hosts that may speak plain HTTP, and stand for all their ports. */
export const LOOPBACK_HOSTS: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]'])

const NUMBER = /^(?:0|[1-9][0-9]{0,9})$/
const SHA256 = /^[0-9a-f]{64}$/
const ANY = /./su
const ABSOLUTE = /^\/./su

/** Every kind that an attestor of this release makes, and the form of its values. */
const KINDS: Readonly<Record<string, RegExp>> = {
  'unix:uid': NUMBER,
  'unix:user': ANY,
  'unix:gid': NUMBER,
  'unix:group': ANY,
  'unix:supplementary_gid': NUMBER,
  'unix:supplementary_group': ANY,
  'unix:path': ABSOLUTE,
  'unix:sha256': SHA256,
  'systemd:id': /^.+\.(?:service|scope)$/su,
  'k8s:ns': ANY,
  'k8s:sa': ANY,
  'k8s:node-name': ANY,
  'k8s:pod-name': ANY,
  'k8s:pod-uid': ANY,
  'k8s:pod-label': /^[^:]+:/su,
  'k8s:pod-owner': /^[^:]+:./su,
  'k8s:pod-owner-uid': /^[^:]+:./su,
  'k8s:pod-image': ANY,
  'k8s:pod-image-count': NUMBER,
  'k8s:pod-init-image': ANY,
  'k8s:pod-init-image-count': NUMBER,
  'k8s:container-name': ANY,
  'k8s:container-image': ANY,
}

/** A selector of a known kind: one that nobody makes is a slip, and its entry would never match. */
export function parseSubject(text: string): Selector {
  const selector = parseSelector(text)
  const kind = kindOf(selector)
  const form = KINDS[kind]
  if (!form) throw invalid(`no attestor makes ${JSON.stringify(kind)}${meant(kind, Object.keys(KINDS))}`)
  if (!form.test(selector.slice(kind.length + 1))) throw invalid(`${JSON.stringify(text)} can never hold`)
  return selector
}

/** A canonical origin; `:*` after a loopback host means any port. */
export function parseOrigin(text: string): string {
  const isAnyPort = text.endsWith(':*')
  const url = canonicalUrl(isAnyPort ? text.slice(0, -2) : text)
  const canonical = isAnyPort ? `${url.scheme}://${url.host}:*` : url.origin
  if (canonical !== text) throw invalid(`${JSON.stringify(text)} is not an origin: wanted ${canonical}`)
  if (isAnyPort && !LOOPBACK_HOSTS.has(url.host)) {
    throw invalid(`${JSON.stringify(text)}: only a loopback host may stand for all its ports`)
  }
  return canonical
}

/** Whether an origin may speak plain HTTP without being called insecure. */
export function isSafeOrigin(origin: string): boolean {
  if (origin.startsWith('https://')) return true
  return LOOPBACK_HOSTS.has(origin.slice('http://'.length).replace(/:(?:\*|[0-9]+)$/, ''))
}

/** A canonical path, or a prefix of one that ends in slash and two stars. */
export function parsePath(text: string): string {
  const stem = stemOf(text)
  if (stem.includes('*')) throw invalid(`${JSON.stringify(text)}: a star stands only at the end, as /**`)
  if (stem === '' && isPrefix(text)) return text
  if (!stem.startsWith('/')) throw invalid(`${JSON.stringify(text)} is not a path: it begins with /`)
  if (/[?#]/.test(stem)) throw invalid(`${JSON.stringify(text)}: a path has no query and no fragment`)
  const { path } = canonicalUrl(`https://host${stem}`)
  if (path !== stem) throw invalid(`${JSON.stringify(text)} is not canonical: wanted ${path}`)
  if (isPrefix(text) && stem.endsWith('/')) throw invalid(`${JSON.stringify(text)}: one slash too many`)
  return text
}

/** A SPIFFE ID with a path, or a prefix that ends in slash and two stars. */
export function parseCaller(text: string): string {
  const id = parseSpiffeId(stemOf(text))
  if (!isPrefix(text) && pathOf(id) === '')
    throw invalid(`${JSON.stringify(text)} is a trust domain: wanted a path or /**`)
  return text
}

/** An https URL of an authorization server, or http on loopback; kept exactly as written. */
export function parseServerUrl(text: string): string {
  const url = canonicalUrl(text)
  if (text.includes('?')) throw invalid(`${JSON.stringify(text)} has a query`)
  if (!isSafeOrigin(url.origin))
    throw invalid(`${JSON.stringify(text)}: an authorization server speaks https`)
  return text
}

const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const DNS_NAME = new RegExp(`^(?=.{1,253}$)${LABEL}(?:\\.${LABEL})*$`)

/** A DNS name in lower case; no wildcards: a workload is one thing. */
export function parseDnsName(text: string): string {
  if (!DNS_NAME.test(text)) throw invalid(`${JSON.stringify(text)} is not a DNS name in lower case`)
  return text
}

// Parsers take a name whose last label is a number for an IPv4 address.
const NUMERIC = /(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$/

/** Whether `text` can stand as a Host: DNS labels in lower case that no parser takes for an address. */
export function isHostName(text: string): boolean {
  return DNS_NAME.test(text) && !NUMERIC.test(text)
}

/** A host name, as SNI carries it (RFC 6066 s.3). */
export function parseHostName(text: string): string {
  if (!isHostName(text)) throw invalid(`${JSON.stringify(text)} is not a host name in lower case`)
  return text
}

const RESOURCE = /^[A-Za-z][A-Za-z0-9+.-]*:[!$-;=?-Z_a-z~[\]]+$/

/** A resource indicator (RFC 8707 s.2): an absolute URI without fragment; kept exactly as written. */
export function parseResource(text: string): string {
  if (!RESOURCE.test(text) || !URL.canParse(text)) {
    throw invalid(`${JSON.stringify(text)} is not a resource: wanted an absolute URI without fragment`)
  }
  return text
}

const DATE = /^[0-9]{4}-[0-9]{2}-[0-9]{2}$/
const TIME = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[+-][0-9]{2}:[0-9]{2})$/
const DAY: Seconds = 86_400

/** Seconds since 1970: a date (RFC 3339) counts to its end in UTC, a time to itself. */
export function parseDate(text: string): Seconds {
  const isDate = DATE.test(text)
  const millis = isDate || TIME.test(text) ? Date.parse(text) : Number.NaN
  // Date.parse takes 30 February for 2 March.
  const isReal = !Number.isNaN(millis) && (!isDate || new Date(millis).toISOString().startsWith(text))
  if (!isReal)
    throw invalid(`${JSON.stringify(text)} is not a date: wanted 2030-12-31 or 2030-12-31T18:00:00Z`)
  return millis / 1000 + (isDate ? DAY : 0)
}

function invalid(message: string): Fault {
  return new Fault('policy_invalid', message)
}
