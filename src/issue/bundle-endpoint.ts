/**
 * What others verify this trust domain's SVIDs with: the SPIFFE bundle (SPIFFE_Federation.md s.5), OIDC discovery and
 * the JWKS of its JWT keys. Public, read-only, no client is authenticated.
 */
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
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
}

export interface BundleEndpoint {
  readonly port: number
  /** Reads certificate and key again; keeps the last good pair when they do not fit. Throws config_invalid. */
  reload(): void
  stop(): void
}

const LOOPBACK: ReadonlySet<string> = new Set(['127.0.0.1', '::1', 'localhost'])
const LIMITS = { maxHeaderSize: 8192, requestTimeout: 10_000, headersTimeout: 10_000 }
const CONNECTIONS = 256

/** Listens; throws config_invalid for a plain address beyond loopback, or one that cannot be had. */
export async function openBundleEndpoint(options: BundleEndpointOptions): Promise<BundleEndpoint> {
  const { certificateFile, keyFile, host, port } = options
  const isTls = certificateFile !== undefined && keyFile !== undefined
  if (!isTls && !LOOPBACK.has(host)) {
    throw new Fault(
      'config_invalid',
      `bundle_endpoint.listen: plain HTTP on ${host}, wanted loopback or a certificate`,
    )
  }
  const listener = listenerOf(options)
  const secure = isTls
    ? createHttpsServer({ ...LIMITS, minVersion: 'TLSv1.2', ...readPair(options) }, listener)
    : undefined
  const server = secure ?? createHttpServer(LIMITS, listener)
  server.maxConnections = CONNECTIONS
  await listen(server, host, port)
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : port,
    reload: () => secure?.setSecureContext({ minVersion: 'TLSv1.2', ...readPair(options) }),
    stop: () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

function readPair({ certificateFile = '', keyFile = '' }: BundleEndpointOptions): {
  cert: Buffer
  key: Buffer
} {
  try {
    return { cert: readFileSync(certificateFile), key: readFileSync(keyFile) }
  } catch (error) {
    throw new Fault('config_invalid', 'the certificate or key of the bundle endpoint cannot be read', {
      cause: error,
    })
  }
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      reject(
        new Fault('config_invalid', `bundle_endpoint.listen: ${host}:${port} cannot be used`, {
          cause: error,
        }),
      )
    })
    server.listen(port, host, () => resolve())
  })
}

function listenerOf({ bundle, issuer }: BundleEndpointOptions): RequestListener {
  return (request, response) => {
    const path = (request.url ?? '').split('?')[0] ?? ''
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return response.writeHead(405, { Allow: 'GET, HEAD' }).end()
    const document = documentAt(path, bundle.get(), issuer)
    if (document === undefined) return response.writeHead(404).end()
    const maxAge = `public, max-age=${bundle.get().refreshHintSeconds}`
    response.writeHead(200, { 'Content-Type': 'application/json', 'Cache-Control': maxAge })
    return response.end(document)
  }
}

/** The JSON document at `path`; undefined when there is none. */
export function documentAt(path: string, bundle: Bundle, issuer: string | undefined): string | undefined {
  if (path === '/' || path === '/bundle') return formatBundle(bundle)
  if (path === '/keys') return jwks(bundle)
  if (path === '/.well-known/openid-configuration' && issuer) return discovery(issuer)
  return undefined
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
