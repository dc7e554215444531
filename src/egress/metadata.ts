/**
 * Where an authorization server takes requests: RFC 8414 metadata, believed only from the issuer's own origin and only
 * for endpoints there, so that no document leads a client's credentials elsewhere (RFC 9700 s.4.4, mix-up).
 */
import {
  type AuthorizationServer,
  customFetch,
  discoveryRequest,
  processDiscoveryResponse,
} from 'oauth4webapi'
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Server } from '../policy/grant.ts'
import { canonicalUrl } from '../proof/target.ts'
import { Documents } from './documents.ts'
import { type IssuerHttp, type IssuerRoute, unavailable } from './issuer-http.ts'

export interface MetadataOptions {
  readonly http: IssuerHttp
  readonly clock: Clock
}

type Endpoint = 'token_endpoint' | 'revocation_endpoint' | 'introspection_endpoint' | 'jwks_uri'

const LIMITS = { maxBytes: 256 * 1024, maxDepth: 8 }

/** Endpoints of the servers that policy names. */
export class Metadata {
  readonly #http: IssuerHttp
  readonly #documents: Documents<AuthorizationServer>

  constructor({ http, clock }: MetadataOptions) {
    this.#http = http
    this.#documents = new Documents(clock)
  }

  /** The token endpoint: as policy states it, else as the server does. Throws issuer_unavailable. */
  async tokenEndpoint(server: Server, route: IssuerRoute): Promise<string> {
    if (server.tokenEndpoint !== undefined) return server.tokenEndpoint
    const stated = endpointOf(await this.#documentOf(server, route), 'token_endpoint', route)
    if (stated === undefined) throw unavailable('names no token endpoint in its metadata')
    if (isAtIssuer(stated, server)) return stated
    throw new Fault('issuer_unavailable', 'the token endpoint is not at the origin of the issuer', {
      action: 'State the endpoint as token_endpoint of the server, when it is the right one.',
    })
  }

  /** The revocation endpoint (RFC 7009), when the server has one at its own origin. Throws issuer_unavailable. */
  async revocationEndpoint(server: Server, route: IssuerRoute): Promise<string | undefined> {
    const stated = endpointOf(await this.#documentOf(server, route), 'revocation_endpoint', route)
    return stated !== undefined && isAtIssuer(stated, server) ? stated : undefined
  }

  /** Whether the server binds tokens to certificates (RFC 8705 s.3.3). Throws issuer_unavailable. */
  async bindsToCertificates(server: Server, route: IssuerRoute): Promise<boolean> {
    const document = await this.#documentOf(server, route)
    return document.tls_client_certificate_bound_access_tokens === true
  }

  /** The introspection endpoint (RFC 7662), when the server has one at its own origin. Throws issuer_unavailable. */
  async introspectionEndpoint(server: Server, route: IssuerRoute): Promise<string | undefined> {
    const stated = endpointOf(await this.#documentOf(server, route), 'introspection_endpoint', route)
    return stated !== undefined && isAtIssuer(stated, server) ? stated : undefined
  }

  /** Where its keys are: as policy states it, else as the server does. Throws issuer_unavailable. */
  async jwksUri(server: Server, route: IssuerRoute): Promise<string> {
    if (server.jwksUri !== undefined) return server.jwksUri
    const stated = endpointOf(await this.#documentOf(server, route), 'jwks_uri', route)
    if (stated === undefined) throw unavailable('names no JWK Set in its metadata')
    if (isAtIssuer(stated, server)) return stated
    throw new Fault('issuer_unavailable', 'the JWK Set is not at the origin of the issuer', {
      action: 'State it as jwks_uri of the server, when it is the right one.',
    })
  }

  /** The certificate of a client is not shown for it. */
  #documentOf({ issuer }: Server, route: IssuerRoute): Promise<AuthorizationServer> {
    return this.#documents.get(issuer, async (signal) => {
      const asked = { ...route, client: undefined, signal }
      const document = (await this.#ask(issuer, 'oauth2', asked)) ?? (await this.#ask(issuer, 'oidc', asked))
      if (!document) throw unavailable('has no metadata')
      return document
    })
  }

  /** RFC 8414 s.3, or OpenID Connect Discovery 1.0 s.4; undefined where nothing is. */
  async #ask(
    issuer: string,
    algorithm: 'oauth2' | 'oidc',
    route: IssuerRoute,
  ): Promise<AuthorizationServer | undefined> {
    let status = 0
    const expected = new URL(issuer)
    const fetching = this.#http.fetchBy(route, (answer) => {
      status = answer.status
      if (status === 200) checkDocument(answer.body, issuer)
    })
    const response = await discoveryRequest(expected, { algorithm, [customFetch]: fetching })
    if (status >= 400 && status < 500 && status !== 429) return undefined
    if (status !== 200) throw unavailable(`answers with status ${status}`)
    return await processDiscoveryResponse(expected, response)
  }
}

/** RFC 8414 s.3.3: the issuer is compared as a string; oauth4webapi compares it as a URL. */
function checkDocument(text: string, issuer: string): void {
  let stated: unknown
  try {
    stated = parseJsonObject(text, LIMITS)['issuer']
  } catch {
    throw unavailable('has metadata that is not one JSON object')
  }
  if (stated !== issuer) throw unavailable('names another issuer in its metadata than policy')
}

/** RFC 8705 s.5: a client that shows a certificate takes the aliases. */
function endpointOf(document: AuthorizationServer, name: Endpoint, route: IssuerRoute): string | undefined {
  const alias = route.client && name !== 'jwks_uri' ? document.mtls_endpoint_aliases?.[name] : undefined
  const endpoint: unknown = alias ?? document[name]
  return typeof endpoint === 'string' ? endpoint : undefined
}

function isAtIssuer(endpoint: string, { issuer }: Server): boolean {
  try {
    const { scheme, origin } = canonicalUrl(endpoint)
    return scheme === 'https' && origin === canonicalUrl(issuer).origin
  } catch {
    return false
  }
}
