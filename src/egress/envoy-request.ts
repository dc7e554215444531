/**
 * A request as an Envoy tells of it, for an Envoy that is itself the asking workload: what its configuration names is a
 * choice among what policy lets that Envoy have, and nothing here widens it.
 */
import { Fault } from '../base/fault.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Target } from '../policy/grant.ts'
import { isCredential } from '../policy/header-names.ts'
import { type CanonicalUrl, canonicalUrl } from '../proof/target.ts'
import { METHOD, required } from '../sign/ask.ts'
import { parseWorkloadId, type SpiffeId } from '../spiffe/id.ts'
import { firstOf, namesOf, type RawHeaders, valuesOf } from './headers.ts'
import { originOf, statementsOf, unknownTarget } from './permit.ts'
import type { SentAsk } from './release-ask.ts'

/** What the operator of the Envoy says of requests that take this filter. */
export interface EnvoyChoice {
  /** The target, where `:authority` does not say it. */
  readonly target: string | undefined
  /** Which of the Envoy's own identities. */
  readonly spiffeId: SpiffeId | undefined
}

/** What Envoy says of one request; pseudo-headers are no headers. */
export interface EnvoyRequest {
  readonly method: string
  readonly scheme: string
  readonly authority: string
  /** With the query. */
  readonly path: string
  readonly fields: RawHeaders
  readonly hasBody: boolean
}

/** Header lines that one request may have; Envoy's own limit is 100. */
const LINES_LIMIT = 256
const HANDLE = /^[\x20-\x7e]{1,256}$/
const TARGET = /^[A-Za-z0-9._-]{1,253}$/
const AUTHORITY = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$/

/** Throws invalid_request, spiffe_id_invalid for a name or an ID that cannot be one. */
export function parseChoice(target: unknown, spiffeId: unknown): EnvoyChoice {
  return {
    target: nameIn(target),
    spiffeId:
      spiffeId === undefined || spiffeId === ''
        ? undefined
        : parseWorkloadId(String(spiffeId).slice(0, 2048)),
  }
}

function nameIn(target: unknown): string | undefined {
  if (target === undefined || target === '') return undefined
  if (typeof target === 'string' && TARGET.test(target)) return target
  throw new Fault('invalid_request', 'the target that Envoy names is not a name')
}

/** Throws header_refused for more lines than any request has. */
export function checkLines(count: number): void {
  if (count > LINES_LIMIT) throw new Fault('header_refused', `over ${LINES_LIMIT} headers`)
}

/** What is to be signed. Throws invalid_request, url_refused, target_unknown, policy_denied. */
export function askOf(book: RuleBook, request: EnvoyRequest, choice: EnvoyChoice): SentAsk {
  const target = choice.target === undefined ? undefined : targetNamed(book, choice.target)
  const { fields, hasBody, method, path } = request
  checkTransaction(fields)
  const subject = firstOf(fields, 'holdfast-subject')
  if (subject !== undefined && !HANDLE.test(subject)) throw new Fault('subject_unknown')
  const at = path.indexOf('?')
  return {
    method: required({ method }, 'method', METHOD),
    url: urlOf(book, request, target),
    query: at < 0 ? '' : path.slice(at),
    target,
    fields,
    hasBody,
    spiffeId: choice.spiffeId,
    subject,
  }
}

/** draft-ietf-oauth-transaction-tokens s.9: exactly one, or a proof would cover one and the target read another. */
function checkTransaction(fields: RawHeaders): void {
  const [token, ...more] = valuesOf(fields, TRANSACTION)
  if (more.length > 0 || token?.includes(','))
    throw new Fault('header_refused', `${TRANSACTION} is there twice, wanted at most once`)
}

function targetNamed(book: RuleBook, name: string): Target {
  const target = book.targetNamed(name.toLowerCase())
  if (!target) throw unknownTarget(name)
  return target
}

/**
 * Envoy's `:scheme` is the one that the caller used, which behind a cluster that begins TLS says http for https: the
 * origins of targets decide. Of a named target its own, whatever the request says.
 */
function urlOf(book: RuleBook, request: EnvoyRequest, target: Target | undefined): CanonicalUrl {
  const { path } = request
  if (!path.startsWith('/')) throw new Fault('url_refused', 'the URL cannot be signed: it has no path')
  const isTargets = (url: CanonicalUrl) => {
    const found = book.targetsFor(url)
    return target ? found.includes(target) : found.length > 0
  }
  let first: CanonicalUrl | undefined
  for (const said of urlsIn(request)) {
    const url = canonicalUrl(said)
    if (isTargets(url)) return url
    first ??= url
  }
  if (target) return canonicalUrl(originOf(target, statementsOf(target).platform) + path)
  if (first) return first
  throw new Fault('url_refused', 'the URL cannot be signed: its authority is not a host')
}

/** By https first: a request that was asked for by http may leave by TLS, and no target is asked twice. */
function urlsIn({ scheme, authority, path }: EnvoyRequest): readonly string[] {
  if (!AUTHORITY.test(authority)) return []
  if (scheme !== 'http') return [`https://${authority}${path}`]
  return [`https://${authority.replace(/:80$/, '')}${path}`, `http://${authority}${path}`]
}

const TRANSACTION = 'txn-token'
const ALWAYS = [
  'authorization',
  'dpop',
  'holdfast-spiffe-id',
  'holdfast-subject',
  'oauth-client-attestation',
  'oauth-client-attestation-pop',
  'proxy-authorization',
  'signature',
  'signature-input',
  'workload-identity-token',
  'workload-proof-token',
]

/** Names that must not go on beside `added`, as they were spelled, whether or not Envoy showed them here. */
export function spent(fields: RawHeaders, added: ReadonlySet<string>, isTransaction: boolean): string[] {
  const isSpent = (name: string) => {
    const same = plain(name)
    if (same !== TRANSACTION) return isCredential(same)
    return !isTransaction || name.toLowerCase() !== TRANSACTION
  }
  const names = [...namesOf(fields, isSpent), ...ALWAYS, ...(isTransaction ? [] : [TRANSACTION])]
  return [...new Set(names)].filter((name) => !added.has(name))
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll('_', '-')
}
