/**
 * What a target says of itself before its first token (RFC 9728): it confirms what policy states, and chooses nothing.
 * Asked for at the target's own first origin, as the target is reached; no host that it names is ever asked.
 */
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Server, Target, TargetIdentity } from '../policy/grant.ts'
import type { Signer } from '../proof/signer.ts'
import { canonicalUrl } from '../proof/target.ts'
import { Documents } from './documents.ts'
import { valuesOf } from './headers.ts'
import type { IssuerAnswer, IssuerHttp } from './issuer-http.ts'
import { originOf, statementsOf } from './permit.ts'
import type { TlsClient } from './trust.ts'

/** For what a token is wanted. */
export interface ResourceAsk {
  readonly target: Target
  readonly server: Server
  /** Makes the proofs that the target will see. */
  readonly signer: Signer
  /** Shown to a target that takes no other connections. */
  readonly certificate?: TlsClient | undefined
}

export interface ResourceMetadataOptions {
  /** Speaks of the target, and of discovery_failed. */
  readonly http: IssuerHttp
  readonly clock: Clock
}

type Document = Readonly<Record<string, unknown>>

const WELL_KNOWN = '/.well-known/oauth-protected-resource'
const LIMITS = { maxBytes: 256 * 1024, maxDepth: 8 }
const RESOURCE_LIMIT = 2048
const QUOTE_LIMIT = 200

/** Metadata of the targets that policy names. */
export class ResourceMetadata {
  readonly #http: IssuerHttp
  readonly #documents: Documents<Document>

  constructor({ http, clock }: ResourceMetadataOptions) {
    this.#http = http
    this.#documents = new Documents(clock)
  }

  /** The resource that tokens of the target are for. Throws discovery_failed, and what policy leaves unsaid. */
  async resourceOf(ask: ResourceAsk): Promise<string> {
    const { identity, platform } = statementsOf(ask.target)
    const origin = originOf(ask.target, platform)
    const { tls, addresses } = platform
    const url = placeOf(origin, identity)
    const document = await this.#documents.get(JSON.stringify([url, tls, addresses]), async (signal) => {
      const route = { platform: { tls, addresses }, client: ask.certificate, signal }
      const headers = { accept: 'application/json' }
      return documentIn(await this.#http.call(url, { method: 'GET', headers, body: undefined }, route))
    })
    checkServer(document, ask.server)
    checkProofs(document, identity, ask.signer)
    return resourceIn(document, identity, origin)
  }
}

/** RFC 9728 s.3.1: between the host and the path of the resource, where that is at the target. */
function placeOf(origin: string, { resource }: TargetIdentity): string {
  if (resource === undefined || !isAt(resource, origin)) return origin + WELL_KNOWN
  const { pathname, search } = new URL(resource)
  return `${origin}${WELL_KNOWN}${pathname === '/' ? '' : pathname}${search}`
}

function documentIn({ status, raw, body }: IssuerAnswer): Document {
  if (status !== 200) throw failed(`the target answers with status ${status}, wanted its metadata`)
  if (!/^application\/json *(?:;|$)/i.test(valuesOf(raw, 'content-type')[0] ?? ''))
    throw failed('the metadata of the target is not application/json')
  try {
    return parseJsonObject(body, LIMITS)
  } catch {
    throw failed('the metadata of the target is not one JSON object')
  }
}

/** RFC 9728 s.3.3: compared as a string. */
function resourceIn({ resource }: Document, identity: TargetIdentity, origin: string): string {
  const wanted = identity.resource
  const isRight = wanted === undefined ? isAt(resource, origin) : resource === wanted
  if (typeof resource === 'string' && isRight) return resource
  throw differs('resource', quoted(resource), wanted ?? `one at ${origin}`)
}

function checkServer({ authorization_servers: stated }: Document, { issuer }: Server): void {
  if (Array.isArray(stated) && stated.includes(issuer)) return
  const seen = Array.isArray(stated) ? `${stated.length} others, first ${quoted(stated[0])}` : quoted(stated)
  throw differs('authorization_servers', seen, issuer)
}

/** RFC 9728 s.2: what it says of DPoP holds, where it says anything. */
function checkProofs(document: Document, { binding }: TargetIdentity, { alg }: Signer): void {
  const required = document['dpop_bound_access_tokens_required']
  const isBound = binding.includes('dpop')
  if (required !== undefined && typeof required !== 'boolean')
    throw differs('dpop_bound_access_tokens_required', quoted(required), 'true or false')
  if (required === true && !isBound)
    throw differs(
      'dpop_bound_access_tokens_required',
      'true',
      `false, as the binding is ${binding.join(', ')}`,
    )
  const algs: unknown = document['dpop_signing_alg_values_supported']
  if (algs === undefined || !isBound || (Array.isArray(algs) && algs.includes(alg))) return
  throw differs('dpop_signing_alg_values_supported', quoted(algs), `a list with ${alg}`)
}

/** Whether it is a URL at `origin` that can be sent as a resource (RFC 8707 s.2). */
function isAt(resource: unknown, origin: string): resource is string {
  if (typeof resource !== 'string' || resource.length > RESOURCE_LIMIT) return false
  try {
    return canonicalUrl(resource).origin === origin
  } catch {
    return false
  }
}

function differs(member: string, seen: string, wanted: string): Fault {
  return failed(`the metadata of the target has ${member}: ${seen}; wanted ${wanted}`)
}

/** Public text of somebody else: printable ASCII, and not much of it. */
function quoted(value: unknown): string {
  if (value === undefined) return 'none'
  const text = JSON.stringify(value) ?? 'none'
  return text.slice(0, QUOTE_LIMIT).replace(/[^ -~]/g, '?')
}

function failed(message: string): Fault {
  return new Fault('discovery_failed', message)
}
