/** A real authorization server on loopback: oidc-provider over TLS, with DPoP, nonces, mutual TLS and revocation. */
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:https'
import type { TLSSocket } from 'node:tls'
import Provider, { type Context } from 'oidc-provider'
import type { PublicJwk } from '../../src/spiffe/jwk.ts'
import { makeTestCa, type TestCa } from './tls.ts'
import { type Acts, EXCHANGE, type ExchangeOptions, JWT_BEARER, registerExchange } from './token-exchange.ts'

/** A client that the server knows. */
export interface IssuerClient {
  readonly clientId: string
  /** Client metadata to register as it stands, whatever else is said here. */
  readonly metadata?: object
  /** Its keys for `private_key_jwt`. */
  readonly jwks?: readonly (PublicJwk & { readonly kid?: string })[]
  /** The SPIFFE ID of its certificate for `tls_client_auth`. */
  readonly sanUri?: string
  /** Whether it shows a client attestation, with its DPoP proof as proof of possession. */
  readonly attested?: boolean
  readonly scopes?: readonly string[]
  /** Whether its tokens are bound to the certificate it shows (RFC 8705 s.3). */
  readonly certificateBound?: boolean
  /** Whether it may have bearer tokens too. */
  readonly bearer?: boolean
}

/** A resource that tokens are for (RFC 8707). */
export interface IssuerResource {
  readonly scopes: readonly string[]
  readonly ttlSeconds?: number
  readonly format?: 'jwt' | 'opaque'
  /** What `aud` says instead of the resource. */
  readonly audience?: string
}

export interface IssuerOptions {
  readonly clients: readonly IssuerClient[]
  /** By resource indicator, which is a URI. */
  readonly resources?: Readonly<Record<string, IssuerResource>>
  /** Whether each proof needs a nonce. */
  readonly nonces?: boolean
  /** Signs the server's certificate; one of its own when absent. */
  readonly ca?: TestCa
  /** Roots of client certificates in PEM. */
  readonly clientRoots?: readonly string[]
  readonly port?: number
  /** Where it is; `localhost` at 127.0.0.1 when absent. */
  readonly at?: { readonly name: string; readonly address: string }
  /** The key of an attester, by the header of an attestation; client attestation is on when it is there. */
  readonly attesterKey?: (header: { readonly kid?: string }) => KeyObject | undefined
  /** Token exchange and the JWT bearer grant; absent: neither. */
  readonly exchange?: ExchangeOptions
}

/** One request that the server answered. */
export interface IssuerRequest {
  readonly method: string
  readonly path: string
  readonly status: number
}

export interface TestIssuer {
  /** `https://NAME:PORT`. */
  readonly issuer: string
  readonly ca: TestCa
  readonly requests: readonly IssuerRequest[]
  /** Vouches for the grants that it makes for other servers; undefined without `exchange`. */
  readonly grantKey: KeyObject | undefined
  /** Whether the server still takes this opaque token. */
  isLive(token: string): Promise<boolean>
  /** Ends an opaque token at once. */
  revoke(token: string): Promise<void>
  /** New roots of client certificates. */
  trustClients(...pems: readonly string[]): void
  stop(): Promise<void>
}

const TTL_SECONDS = 120

/** Starts it; the caller stops it. */
export async function startIssuer(options: IssuerOptions): Promise<TestIssuer> {
  const ca = options.ca ?? makeTestCa()
  const { name, address } = options.at ?? { name: 'localhost', address: '127.0.0.1' }
  const tls = { ...ca.serverFiles({ dns: name, ip: address }), requestCert: true, rejectUnauthorized: false }
  const server = createServer({ ...tls, ca: [...(options.clientRoots ?? [])] })
  const issuer = `https://${name}:${await listen(server, options.port ?? 0, address)}`
  const requests: IssuerRequest[] = []
  const acts: Acts = new WeakMap()
  const provider = new Provider(issuer, configurationOf(options, acts))
  const grantKey = options.exchange && registerExchange(provider, options.exchange, acts)
  provider.use(async (context: Context, next: () => Promise<void>) => {
    await next()
    requests.push({ method: context.method, path: context.path, status: context.status })
  })
  server.on('request', provider.callback())
  return {
    issuer,
    ca,
    requests,
    grantKey,
    isLive: async (token) =>
      (await provider.ClientCredentials.find(token)) !== undefined ||
      (await provider.AccessToken.find(token)) !== undefined,
    revoke: async (token) => (await provider.ClientCredentials.find(token))?.destroy(),
    trustClients: (...pems) => server.setSecureContext({ ...tls, ca: [...pems] }),
    stop: () => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
}

function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve) => {
    server.listen(port, host, () => {
      const address = server.address()
      resolve(typeof address === 'object' && address ? address.port : 0)
    })
  })
}

function configurationOf(
  { clients, resources = {}, nonces = false, attesterKey, exchange }: IssuerOptions,
  acts: Acts,
): Record<string, unknown> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    clients: clients.map((client) => clientOf(client, exchange !== undefined)),
    extraTokenClaims: (_context: Context, token: object) =>
      acts.has(token) ? { act: acts.get(token) } : undefined,
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
    scopes: [...new Set(Object.values(resources).flatMap(({ scopes }) => scopes))],
    clientAuthMethods: [
      'private_key_jwt',
      'tls_client_auth',
      ...(attesterKey ? ['attest_jwt_client_auth_dpop'] : []),
    ],
    ttl: {
      ClientCredentials: (_context: Context, token: { resourceServer?: { accessTokenTTL?: number } }) =>
        token.resourceServer?.accessTokenTTL ?? TTL_SECONDS,
    },
    fetch: fetchOnLoopback,
    enabledJWA: { dPoPSigningAlgValues: ['ES256'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => nonces },
      mTLS: mutualTls(),
      ...(attesterKey ? { attestClientAuth: attestation(attesterKey) } : {}),
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context: Context, resource: string) =>
          resourceOf(resources[resource], resource),
      },
    },
  }
}

/** The library's own dispatcher refuses loopback, where every `jwks_uri` of a test is. */
function fetchOnLoopback(url: string, options: RequestInit & { readonly dispatcher?: unknown }) {
  const { dispatcher: _unused, ...rest } = options
  return fetch(url, rest)
}

function clientOf(client: IssuerClient, exchanges: boolean): Record<string, unknown> {
  if (client.metadata) return { id_token_signed_response_alg: 'ES256', ...client.metadata }
  const { clientId, scopes = [], bearer = false, certificateBound = false } = client
  return {
    client_id: clientId,
    grant_types: ['client_credentials', ...(exchanges ? [EXCHANGE, JWT_BEARER] : [])],
    response_types: [],
    redirect_uris: [],
    id_token_signed_response_alg: 'ES256',
    dpop_bound_access_tokens: !bearer && !certificateBound,
    tls_client_certificate_bound_access_tokens: certificateBound,
    ...(scopes.length > 0 ? { scope: scopes.join(' ') } : {}),
    ...methodOf(client),
  }
}

function methodOf({ jwks, attested, sanUri }: IssuerClient): Record<string, unknown> {
  if (attested) return { token_endpoint_auth_method: 'attest_jwt_client_auth_dpop' }
  if (!jwks) return { token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_san_uri: sanUri }
  const alg = { token_endpoint_auth_signing_alg: 'ES256' }
  return { token_endpoint_auth_method: 'private_key_jwt', ...alg, jwks: { keys: jwks } }
}

function attestation(attesterKey: NonNullable<IssuerOptions['attesterKey']>): Record<string, unknown> {
  return {
    enabled: true,
    ack: 'draft-12',
    challengeSecret: randomBytes(32),
    getAttestationSignaturePublicKey: (_context: Context, header: { readonly kid?: string }) =>
      attesterKey(header),
    assertAttestationJwtAndPop: () => {},
  }
}

function resourceOf(resource: IssuerResource | undefined, name: string): Record<string, unknown> {
  const { scopes = [], ttlSeconds = TTL_SECONDS, format = 'jwt', audience = name } = resource ?? {}
  return {
    scope: scopes.join(' '),
    audience,
    accessTokenTTL: ttlSeconds,
    accessTokenFormat: format,
    ...(format === 'jwt' ? { jwt: { sign: { alg: 'ES256' } } } : {}),
  }
}

function mutualTls(): Record<string, unknown> {
  const certificate = (context: Context) => (context.socket as TLSSocket).getPeerX509Certificate()
  return {
    enabled: true,
    tlsClientAuth: true,
    certificateBoundAccessTokens: true,
    getCertificate: certificate,
    certificateAuthorized: (context: Context) => context.socket.authorized,
    certificateSubjectMatches: (context: Context, property: string, expected: string) =>
      property === 'tls_client_auth_san_uri' &&
      certificate(context)?.subjectAltName?.split(', ').includes(`URI:${expected}`) === true,
  }
}
