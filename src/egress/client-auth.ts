/**
 * How the agent shows an authorization server which client it is: a signed assertion (RFC 7523), a JWT-SVID
 * (draft-ietf-oauth-spiffe-client-auth), or an X.509-SVID whose key it holds (RFC 8705 s.2.1). Each try has its own.
 */
import type { ClientAuth as OauthClientAuth } from 'oauth4webapi'
import type { Instance } from '../attest/workload.ts'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Authority } from '../issue/authority.ts'
import { makeTlsContext } from '../keys/tls.ts'
import type { Entry } from '../policy/entry.ts'
import type { Server } from '../policy/grant.ts'
import { newJti } from '../proof/jwt.ts'
import { makeJws } from '../spiffe/jws.ts'
import type { ClientKeys, KeyClient } from './client-key.ts'
import type { TlsClient, TrustBase } from './trust.ts'

/** Who asks the server, on whose behalf. */
export interface ClientAsk {
  readonly server: Server
  readonly entry: Entry
  readonly instance: Instance
}

/** What goes into one request; `auth` makes a fresh assertion each time it is called. */
export interface Authentication {
  readonly clientId: string
  readonly auth: OauthClientAuth
  readonly tls: TlsClient | undefined
}

export interface ClientAuthsOptions {
  readonly keys: ClientKeys
  readonly authority: Pick<Authority, 'issueJwt' | 'issueX509'>
  readonly clock: Clock
  /** Whether JWT-SVIDs may be issued: several nodes must share their key. */
  readonly jwt: boolean
}

const ASSERTION_LIFE: Seconds = 60
const TYPE = 'urn:ietf:params:oauth:client-assertion-type'
const JWT_BEARER = `${TYPE}:jwt-bearer`
const JWT_SPIFFE = `${TYPE}:jwt-spiffe`

/** Authenticates clients. */
export class ClientAuths {
  readonly #options: ClientAuthsOptions
  readonly #certificates = new Map<string, HeldCertificate>()

  constructor(options: ClientAuthsOptions) {
    this.#options = options
  }

  /** Throws token_required when policy names no client, authority_not_shared, and what keys and authority throw. */
  authenticate(ask: ClientAsk): Authentication {
    const { client, issuer } = ask.server
    const { spiffeId } = ask.entry
    if (!client) throw new Fault('token_required', `policy states no client for the server ${issuer}`)
    const clientId = client.clientId ?? spiffeId
    switch (client.method) {
      case 'private_key_jwt':
        return {
          clientId,
          tls: undefined,
          auth: assertion(clientId, JWT_BEARER, () => this.#signed(client, ask)),
        }
      case 'jwt_spiffe':
      case 'jwt_bearer': {
        const type = client.method === 'jwt_spiffe' ? JWT_SPIFFE : JWT_BEARER
        return { clientId, tls: undefined, auth: assertion(clientId, type, () => this.#svid(ask)) }
      }
      case 'attest_jwt_client_auth_dpop':
        throw new Fault('unimplemented', 'client attestation is off')
      case 'tls_client_auth':
        return { clientId, tls: this.#certificateOf(ask), auth: named(clientId) }
    }
  }

  /** RFC 7523 s.3 with `aud` as draft-ietf-oauth-rfc7523bis s.4 wants it: the issuer alone. */
  #signed(client: KeyClient, { server }: ClientAsk): string {
    const signer = this.#options.keys.signerFor(client, server)
    const now = nowSeconds(this.#options.clock)
    const { clientId: iss } = client
    const claims = { iss, sub: iss, aud: server.issuer, jti: newJti(), iat: now, exp: now + ASSERTION_LIFE }
    return makeJws({ alg: signer.alg, kid: signer.jkt, typ: 'JWT' }, claims, signer)
  }

  /** For the issuer alone, and only as long as a request may take: nobody is handed it. */
  #svid({ server, entry }: ClientAsk): string {
    if (!this.#options.jwt) throw new Fault('authority_not_shared')
    const { spiffeId } = entry
    const ask = { spiffeId, audience: [server.issuer], ttl: ASSERTION_LIFE }
    return this.#options.authority.issueJwt(ask).token
  }

  #certificateOf({ server, entry, instance }: ClientAsk): HeldCertificate {
    const key = JSON.stringify([instance.key, entry.spiffeId, entry.x509Ttl, server.issuer])
    const known = this.#certificates.get(key)
    if (known) return known
    const made = new HeldCertificate(entry, this.#options)
    // After the lease there is one request left: to give its token back.
    if (instance.signal.aborted) return made
    this.#certificates.set(key, made)
    instance.signal.addEventListener('abort', () => this.#certificates.delete(key), { once: true })
    return made
  }
}

/** An X.509-SVID that is shown and never delivered; each set of roots has its own, renewed at half its life. */
class HeldCertificate implements TlsClient {
  readonly #entry: Entry
  readonly #options: ClientAuthsOptions
  #made = new WeakMap<
    TrustBase,
    { readonly context: ReturnType<typeof makeTlsContext>; readonly renewAt: Seconds }
  >()

  constructor(entry: Entry, options: ClientAuthsOptions) {
    this.#entry = entry
    this.#options = options
  }

  contextWith(base: TrustBase): ReturnType<typeof makeTlsContext> {
    const now = nowSeconds(this.#options.clock)
    const known = this.#made.get(base)
    if (known && now < known.renewAt) return known.context
    const { spiffeId, x509Ttl: ttl } = this.#entry
    let ends = now
    const context = makeTlsContext((spki) => {
      const { chain, notAfter } = this.#options.authority.issueX509({ spiffeId, spki, ttl, dnsNames: [] })
      ends = notAfter
      return chain
    }, base)
    this.#made.set(base, { context, renewAt: now + Math.floor((ends - now) / 2) })
    return context
  }
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
