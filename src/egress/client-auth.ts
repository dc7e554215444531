/**
 * How the agent shows an authorization server which client it is: a signed assertion (RFC 7523), a JWT-SVID
 * (draft-ietf-oauth-spiffe-client-auth), an X.509-SVID whose key it holds (RFC 8705 s.2.1), or a WIT-SVID over the key
 * of the DPoP proof (draft-ietf-oauth-attestation-based-client-auth, combined mode).
 */
import type { ClientAuth as OauthClientAuth } from 'oauth4webapi'
import type { Instance } from '../attest/workload.ts'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Authority } from '../issue/authority.ts'
import type { Entry } from '../policy/entry.ts'
import type { Server } from '../policy/grant.ts'
import { newJti } from '../proof/jwt.ts'
import type { Signer } from '../proof/signer.ts'
import { makeJws } from '../spiffe/jws.ts'
import type { Certificates } from './certificates.ts'
import type { ClientKeys, KeyClient } from './client-key.ts'
import { SvidAssertions } from './svid-assertions.ts'
import type { TlsClient } from './trust.ts'

/** Who asks the server, on whose behalf. */
export interface ClientAsk {
  readonly server: Server
  readonly entry: Entry
  readonly instance: Instance
  /** The key of the request's DPoP proof: a client attestation is over it. */
  readonly signer: Signer
  readonly certificate?: TlsClient | undefined
}

/** What goes into one request; `auth` makes an assertion, as policy says, each time it is called. */
export interface Authentication {
  readonly clientId: string
  readonly auth: OauthClientAuth
  /** Header fields beside the proof. */
  readonly headers: Readonly<Record<string, string>>
  readonly tls: TlsClient | undefined
}

export interface ClientAuthsOptions {
  readonly keys: ClientKeys
  readonly authority: Pick<Authority, 'issueJwt'>
  readonly certificates: Pick<Certificates, 'current'>
  readonly clock: Clock
  /** Whether JWT-SVIDs may be issued: several nodes must share their key. */
  readonly jwt: boolean
  /** The WIT-SVID over a held key; absent when client attestation is off. */
  readonly attest: ((entry: Entry, signer: Signer) => string) | undefined
}

const ASSERTION_LIFE: Seconds = 60
const TYPE = 'urn:ietf:params:oauth:client-assertion-type'
const JWT_BEARER = `${TYPE}:jwt-bearer`
const JWT_SPIFFE = `${TYPE}:jwt-spiffe`
const ATTESTATION = 'oauth-client-attestation'
const ATTESTATION_CURE =
  'Set tokens.client_attestation: on and wit: on in the configuration, or let the server have another auth.'

/** Authenticates clients. */
export class ClientAuths {
  readonly #options: ClientAuthsOptions
  readonly #assertions: SvidAssertions

  constructor(options: ClientAuthsOptions) {
    this.#options = options
    this.#assertions = new SvidAssertions(options)
  }

  /** Throws token_required when policy names no client, authority_not_shared, and what keys and authority throw. */
  authenticate(ask: ClientAsk): Authentication {
    const { client, issuer } = ask.server
    const { spiffeId } = ask.entry
    if (!client) throw new Fault('token_required', `policy states no client for the server ${issuer}`)
    const clientId = client.clientId ?? spiffeId
    const none = { clientId, tls: undefined, headers: {} }
    switch (client.method) {
      case 'private_key_jwt':
        return {
          ...none,
          auth: assertion(clientId, JWT_BEARER, () => signed(this.#options, client, ask.server)),
        }
      case 'jwt_spiffe':
      case 'jwt_bearer': {
        const type = client.method === 'jwt_spiffe' ? JWT_SPIFFE : JWT_BEARER
        return { ...none, auth: assertion(clientId, type, () => this.#svid(client.assertion, ask)) }
      }
      case 'attest_jwt_client_auth_dpop':
        return { ...none, headers: { [ATTESTATION]: this.#attestation(ask) }, auth: named(clientId) }
      case 'tls_client_auth':
        return { ...none, tls: this.#certificateFor(ask), auth: named(clientId) }
    }
  }

  /** A JWT-SVID as actor token (RFC 8693 s.2.1): for the server alone, anew for each request. Throws authority_not_shared. */
  actorToken(ask: ClientAsk): string {
    return this.#svid('fresh', ask)
  }

  /** The one that the token is bound to, where a certificate binds it: a connection shows one. */
  #certificateFor({ server, entry, instance, certificate }: ClientAsk): TlsClient {
    const purpose = `client:${server.issuer}`
    return certificate ?? this.#options.certificates.current({ entry, instance, purpose })
  }

  #svid(kind: 'fresh' | 'reused', ask: ClientAsk): string {
    if (!this.#options.jwt) throw new Fault('authority_not_shared')
    return kind === 'reused' ? this.#assertions.reused(ask) : this.#assertions.fresh(ask)
  }

  /** One key for the client and for the token: whoever has no proof of it is neither. */
  #attestation({ entry, signer }: ClientAsk): string {
    const { attest } = this.#options
    if (!attest) throw new Fault('unimplemented', 'client attestation is off', { action: ATTESTATION_CURE })
    return attest(entry, signer)
  }
}

/** As the agent itself, on behalf of no workload: only a key of the client's own can show that. Throws token_required. */
export function authenticateAgent(
  options: Pick<ClientAuthsOptions, 'keys' | 'clock'>,
  server: Server,
): Pick<Authentication, 'clientId' | 'auth'> {
  const { client, issuer } = server
  if (client?.method !== 'private_key_jwt')
    throw new Fault(
      'token_required',
      `policy states no client with a key of its own for the server ${issuer}`,
    )
  const { clientId } = client
  return { clientId, auth: assertion(clientId, JWT_BEARER, () => signed(options, client, server)) }
}

/** RFC 7523 s.3 with `aud` as draft-ietf-oauth-rfc7523bis s.4 wants it: the issuer alone. */
function signed(
  { clock, keys }: Pick<ClientAuthsOptions, 'keys' | 'clock'>,
  client: KeyClient,
  server: Server,
): string {
  const signer = keys.signerFor(client, server)
  const now = nowSeconds(clock)
  const { clientId: iss } = client
  const claims = { iss, sub: iss, aud: server.issuer, jti: newJti(), iat: now, exp: now + ASSERTION_LIFE }
  return makeJws({ alg: signer.alg, kid: signer.jkt, typ: 'JWT' }, claims, signer)
}

/** RFC 6749 s.2.2: the client id says who shows the certificate. */
function named(clientId: string): OauthClientAuth {
  return (_server, _client, body) => body.set('client_id', clientId)
}

function assertion(clientId: string, type: string, make: () => string): OauthClientAuth {
  return (_server, _client, body) => {
    body.set('client_id', clientId)
    body.set('client_assertion_type', type)
    body.set('client_assertion', make())
  }
}
