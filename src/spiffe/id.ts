/** SPIFFE IDs and trust domains: parsed once, then branded (SPIFFE-ID.md s.2). */
import { Fault } from '../base/fault.ts'

declare const brand: unique symbol
/** A valid SPIFFE ID, `spiffe://` + trust domain + optional path. */
export type SpiffeId = string & { readonly [brand]: 'SpiffeId' }
/** A valid trust domain name, without scheme: `example.org`. */
export type TrustDomain = string & { readonly [brand]: 'TrustDomain' }

const SCHEME = 'spiffe://'
const ID_LIMIT = 2048
const TRUST_DOMAIN_LIMIT = 255
const TRUST_DOMAIN = /^[a-z0-9._-]+$/
const SEGMENT = /^[a-zA-Z0-9._-]+$/

/** The trust domain named by `text`; throws spiffe_id_invalid. Upper case is refused, never lowered. */
export function parseTrustDomain(text: string): TrustDomain {
  if (text.length > TRUST_DOMAIN_LIMIT || !TRUST_DOMAIN.test(text)) throw invalid('trust domain', text)
  return text as TrustDomain
}

/** The SPIFFE ID in `text`, which may be a trust domain's own; throws spiffe_id_invalid. */
export function parseSpiffeId(text: string): SpiffeId {
  if (text.length > ID_LIMIT || !text.startsWith(SCHEME)) throw invalid('SPIFFE ID', text)
  const [trustDomain = '', ...segments] = text.slice(SCHEME.length).split('/')
  parseTrustDomain(trustDomain)
  if (!segments.every(isSegment)) throw invalid('SPIFFE ID', text)
  return text as SpiffeId
}

/** A workload's SPIFFE ID: one with a path (X509-SVID.md s.2 forbids a leaf without); throws spiffe_id_invalid. */
export function parseWorkloadId(text: string): SpiffeId {
  const id = parseSpiffeId(text)
  if (pathOf(id) === '') throw invalid('SPIFFE ID of a workload (it needs a path)', text)
  return id
}

function isSegment(segment: string): boolean {
  return SEGMENT.test(segment) && segment !== '.' && segment !== '..'
}

/** `example.org` of `spiffe://example.org/web`. */
export function trustDomainOf(id: SpiffeId): TrustDomain {
  const end = id.indexOf('/', SCHEME.length)
  return (end === -1 ? id.slice(SCHEME.length) : id.slice(SCHEME.length, end)) as TrustDomain
}

/** `/web` of `spiffe://example.org/web`; empty for a trust domain's own ID. */
export function pathOf(id: SpiffeId): string {
  const start = id.indexOf('/', SCHEME.length)
  return start === -1 ? '' : id.slice(start)
}

/** The trust domain's own SPIFFE ID, `spiffe://example.org`: the key of bundle maps. */
export function idOfTrustDomain(trustDomain: TrustDomain): SpiffeId {
  return `${SCHEME}${trustDomain}` as SpiffeId
}

function invalid(kind: string, text: string): Fault {
  return new Fault('spiffe_id_invalid', `not a ${kind}: ${JSON.stringify(text.slice(0, 128))}`)
}
