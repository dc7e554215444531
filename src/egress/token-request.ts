/**
 * One token from an authorization server: client_credentials (RFC 6749 s.4.4) with a DPoP proof (RFC 9449 s.5) and a
 * resource (RFC 8707). Each try has a proof and an assertion of its own; a nonce challenge is answered once.
 */
import {
  type AuthorizationServer,
  type Client,
  clientCredentialsGrantRequest,
  customFetch,
  processClientCredentialsResponse,
} from 'oauth4webapi'
import type { Instance } from '../attest/workload.ts'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Live } from '../base/live.ts'
import { Secret } from '../base/secret.ts'
import type { RuleBook } from '../policy/book.ts'
import type { TargetIdentity } from '../policy/grant.ts'
import { makeDpop } from '../proof/dpop.ts'
import { canonicalUrl } from '../proof/target.ts'
import type { ClientAuths } from './client-auth.ts'
import { checkIssued, type Issued } from './issued.ts'
import { refusalOf } from './issuer-error.ts'
import { type IssuerAnswer, type IssuerHttp, type IssuerRoute, unavailable } from './issuer-http.ts'
import type { IssuerNonces } from './issuer-nonces.ts'
import type { Metadata } from './metadata.ts'
import type { BoundToken, TokenAsk } from './tokens.ts'

/** What a request needs; it outlives the connection that the caller asked over. */
export interface TokenNeed extends Omit<TokenAsk, 'workload'> {
  readonly instance: Instance
}

export interface TokenRequestsOptions {
  readonly http: IssuerHttp
  readonly metadata: Metadata
  readonly clients: ClientAuths
  readonly nonces: IssuerNonces
  readonly book: Live<RuleBook>
  readonly clock: Clock
  /** How far the clock of a server may be off. */
  readonly skew: Seconds
  /** Takes a token that was issued and is not used, so that it can be revoked. */
  readonly discard: (need: TokenNeed, token: Secret<string>, expires: Seconds) => void
}

/** How one ask is carried out. */
interface Plan {
  readonly need: TokenNeed
  readonly identity: TargetIdentity
  readonly route: IssuerRoute
  readonly endpoint: string
  readonly isBearer: boolean
}

const BODY = { maxBytes: 64 * 1024, maxDepth: 8 }

/** Asks token endpoints. */
export class TokenRequests {
  readonly #options: TokenRequestsOptions

  constructor(options: TokenRequestsOptions) {
    this.#options = options
  }

  /** A token for `need`. Throws issuer_unavailable, issuer_refused, issued_*, and what client authentication throws. */
  async request(need: TokenNeed, signal: AbortSignal): Promise<BoundToken> {
    const plan = await this.#plan(need, signal)
    const first = await this.#try(plan)
    const answer = this.#asksForMore(plan, first) ? await this.#try(plan) : first
    if (answer.status !== 200) throw refusalOf(answer, nowSeconds(this.#options.clock))
    return this.#accept(plan, await issuedIn(answer, plan.need))
  }

  async #plan(need: TokenNeed, signal: AbortSignal): Promise<Plan> {
    const { server, target } = need
    const { identity } = target
    if (!identity)
      throw new Fault('policy_denied', `identity states nothing for ${target.name}`, { owner: 'identity' })
    const { clients, metadata, book } = this.#options
    const { tls } = clients.authenticate(need)
    const route = { platform: book.get().serverTls(server.issuer), client: tls, signal }
    const endpoint = await metadata.tokenEndpoint(server, route)
    return { need, identity, route, endpoint, isBearer: identity.binding.includes('bearer') }
  }

  async #try(plan: Plan): Promise<IssuerAnswer> {
    const { need, identity, route, endpoint } = plan
    const { http, clients, nonces } = this.#options
    const { clientId, auth, headers } = clients.authenticate(need)
    const parameters = new URLSearchParams()
    if (identity.scopes.length > 0) parameters.set('scope', identity.scopes.join(' '))
    if (identity.resource !== undefined) parameters.set('resource', identity.resource)
    let answer: IssuerAnswer | undefined
    const as: AuthorizationServer = { issuer: need.server.issuer, token_endpoint: endpoint }
    const client: Client = { client_id: clientId }
    await clientCredentialsGrantRequest(as, client, auth, parameters, {
      headers: { ...headers, ...this.#proofFor(plan) },
      [customFetch]: http.fetchBy(route, (seen) => {
        answer = seen
      }),
    })
    if (!answer) throw new Fault('bug')
    nonces.learn(endpoint, need.server, answer)
    return answer
  }

  #proofFor({ need, endpoint, isBearer }: Plan): Record<string, string> {
    if (isBearer) return {}
    const { htu } = canonicalUrl(endpoint)
    const claims = { htm: 'POST', htu, nonce: this.#options.nonces.of(endpoint) }
    return { dpop: makeDpop(need.signer, claims, this.#options.clock).proof }
  }

  /** RFC 9449 s.8: the same once more, with a nonce; a bearer token has no proof to hold one. */
  #asksForMore({ need, isBearer }: Plan, answer: IssuerAnswer): boolean {
    return !isBearer && this.#options.nonces.isAskedFor(need.server, answer)
  }

  #accept(plan: Plan, issued: Issued): BoundToken {
    const { need, identity, isBearer } = plan
    const { book, clock, skew, discard } = this.#options
    const token = new Secret(issued.accessToken)
    const exception = isBearer ? book.get().exceptionOf(need.target.name) : undefined
    try {
      if (isBearer && !exception)
        throw new Fault(
          'issued_unbound',
          `security states no exception for bearer tokens of ${need.target.name}`,
        )
      const expires = checkIssued(issued, {
        issuer: need.server.issuer,
        jkt: isBearer ? undefined : need.signer.jkt,
        maxTtl: Math.min(identity.maxTtl, exception?.maxTtl ?? Number.POSITIVE_INFINITY),
        scopes: identity.scopes,
        resource: identity.resource,
        now: nowSeconds(clock),
        skew,
      })
      return { token, jkt: need.signer.jkt, expires }
    } catch (error) {
      discard(need, token, Number.POSITIVE_INFINITY)
      throw error
    }
  }
}

/** The answer as RFC 6749 s.5.1 has it; throws issued_unbound, issuer_unavailable. */
async function issuedIn(answer: IssuerAnswer, { server, entry }: TokenNeed): Promise<Issued> {
  try {
    // Stricter than the library: no member twice, a bounded depth. An ID token has no business here and is not read.
    const { id_token: _unused, ...members } = parseJsonObject(answer.body, BODY)
    const response = new Response(JSON.stringify(members), {
      headers: { 'content-type': 'application/json' },
    })
    const read = await processClientCredentialsResponse(
      { issuer: server.issuer },
      { client_id: entry.spiffeId },
      response,
    )
    const { access_token: accessToken, token_type: tokenType, expires_in: expiresIn, scope } = read
    return { accessToken, tokenType, expiresIn, scope }
  } catch (error) {
    // The library's errors hold the answer, token included: nothing of them goes on.
    if (isOtherType(error)) throw new Fault('issued_unbound', 'the issued token has an unknown token_type')
    throw unavailable('gives an answer that is no token response')
  }
}

function isOtherType(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'OAUTH_UNSUPPORTED_OPERATION'
}
