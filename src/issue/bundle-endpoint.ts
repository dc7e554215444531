/**
 * What others verify this trust domain's SVIDs with: the SPIFFE bundle (SPIFFE_Federation.md s.5), OIDC discovery and
 * the JWKS of its JWT keys; and the JWKS of each OAuth client. Public, read-only, no client is authenticated.
 */
import type { RequestListener } from 'node:http'
import type { Millis, Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import { openPublicServer, type PublicServer } from '../serve/public-server.ts'
import { type Bundle, formatBundle } from '../spiffe/bundle.ts'

export interface BundleEndpointOptions {
  readonly bundle: Live<Bundle>
  readonly host: string
  readonly port: number
  /** PEM files; both or none. Without them it is plain HTTP, which only loopback may be. */
  readonly certificateFile: string | undefined
  readonly keyFile: string | undefined
  /** The issuer that discovery names; without one there is no discovery. */
  readonly issuer: string | undefined
  readonly clients: ClientSets
}

/** The JWK Sets of OAuth clients (RFC 7591 s.2, `jwks_uri`). */
export interface ClientSets {
  /** The set of the client at the server of that name; undefined when there is none. Throws what keeps it from being had. */
  readonly jwks: (server: string) => string | undefined
  /** How long a copy may be kept. */
  readonly maxAge: Seconds
}

export interface EndpointPlace {
  readonly listen: { readonly host: string } | undefined
  /** The port that is open; none before it is. */
  readonly port: number | undefined
  readonly certificateFile: string | undefined
  readonly issuer: string | undefined
}

const ANY_ADDRESS: ReadonlySet<string> = new Set(['0.0.0.0', '::', '[::]'])

/** Where others reach the endpoint, without a slash at its end; throws config_invalid when nobody does. */
export function endpointUrl({ listen, port, certificateFile, issuer }: EndpointPlace): string {
  if (!listen || port === undefined) {
    throw new Fault('config_invalid', 'bundle_endpoint.listen is off', {
      action: 'Set bundle_endpoint.listen, and bundle_endpoint.issuer to the URL at which others reach it.',
    })
  }
  if (issuer !== undefined) return issuer.replace(/\/$/, '')
  const { host } = listen
  if (ANY_ADDRESS.has(host)) {
    throw new Fault(
      'config_invalid',
      `bundle_endpoint.listen is ${host}, which no other machine can ask for`,
      {
        action: 'Set bundle_endpoint.issuer to the URL at which others reach the endpoint.',
      },
    )
  }
  const name = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host
  return `${certificateFile === undefined ? 'http' : 'https'}://${name}:${port}`
}

const LOOPBACK: ReadonlySet<string> = new Set(['127.0.0.1', '::1', 'localhost'])
const HEADER_BYTES = 8192
const PATIENCE: Millis = 10_000
const CONNECTIONS = 256
const RETRY_AFTER: Seconds = 10

/** Listens; throws config_invalid for a plain address beyond loopback, and as `openPublicServer`. */
export async function openBundleEndpoint(options: BundleEndpointOptions): Promise<PublicServer> {
  const { certificateFile, keyFile, host, port } = options
  const files =
    certificateFile === undefined || keyFile === undefined ? undefined : { certificateFile, keyFile }
  const name = 'bundle_endpoint.listen'
  if (!files && !LOOPBACK.has(host))
    throw new Fault('config_invalid', `${name}: plain HTTP on ${host}, wanted loopback or a certificate`)
  return await openPublicServer({
    name,
    host,
    port,
    files,
    connections: CONNECTIONS,
    maxHeaderSize: HEADER_BYTES,
    patience: PATIENCE,
    listener: listenerOf(options),
  })
}

function listenerOf(options: BundleEndpointOptions): RequestListener {
  return (request, response) => {
    const path = (request.url ?? '').split('?')[0] ?? ''
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return response.writeHead(405, { Allow: 'GET, HEAD' }).end()
    try {
      const found = documentAt(path, options)
      if (!found) return response.writeHead(404).end()
      const maxAge = `public, max-age=${found.maxAge}`
      response.writeHead(200, { 'Content-Type': 'application/json', 'Cache-Control': maxAge })
      return response.end(found.text)
    } catch {
      // What went wrong is nothing for everybody; whoever needs the key hears it.
      return response.writeHead(503, { 'Retry-After': String(RETRY_AFTER) }).end()
    }
  }
}

interface Document {
  readonly text: string
  readonly maxAge: Seconds
}

/** The JSON document at `path`; undefined when there is none. */
function documentAt(path: string, options: BundleEndpointOptions): Document | undefined {
  const { clients } = options
  const text = trustDomainDocument(path, options)
  if (text !== undefined) return { text, maxAge: options.bundle.get().refreshHintSeconds }
  const server = serverIn(path)
  const set = server === undefined ? undefined : clients.jwks(server)
  return set === undefined ? undefined : { text: set, maxAge: clients.maxAge }
}

function trustDomainDocument(path: string, options: BundleEndpointOptions): string | undefined {
  const [bundle, { issuer }] = [options.bundle.get(), options]
  if (path === '/' || path === '/bundle') return formatBundle(bundle)
  if (path === '/keys') return jwks(bundle)
  if (path === '/.well-known/openid-configuration' && issuer) return discovery(issuer)
  return undefined
}

/** Where the JWK Set of the client at `server` is; one segment, whatever the name holds. */
export function clientJwksPath(server: string): string {
  return `/clients/${encodeURIComponent(server)}/jwks.json`
}

function serverIn(path: string): string | undefined {
  const [, segment] = /^\/clients\/([^/]{1,512})\/jwks\.json$/.exec(path) ?? []
  try {
    return segment === undefined ? undefined : decodeURIComponent(segment)
  } catch {
    return undefined
  }
}

/** OpenID Connect Discovery s.3, as far as it says anything about a token issuer that logs nobody in. */
function discovery(issuer: string): string {
  return JSON.stringify({
    issuer,
    jwks_uri: `${issuer.replace(/\/$/, '')}/keys`,
    authorization_endpoint: '',
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256', 'ES384', 'RS256', 'PS256'],
  })
}

/** RFC 7517 for generic OIDC verifiers: `use` is `sig` there. */
function jwks({ jwtAuthorities }: Bundle): string {
  return JSON.stringify({ keys: [...jwtAuthorities].map(([kid, { jwk }]) => ({ ...jwk, use: 'sig', kid })) })
}
