/**
 * One token from an authorization server: with a DPoP proof (RFC 9449 s.5) and a resource (RFC 8707), as client or in
 * exchange for a subject's, where that is chained over two servers. Each try has a proof and an assertion of its own; a nonce challenge is answered once.
 */
import {
  type AuthorizationServer,
  type Client,
  customFetch,
  genericTokenEndpointRequest,
  processGenericTokenEndpointResponse,
  type RecognizedTokenTypes,
} from 'oauth4webapi'
import type { Instance } from '../attest/workload.ts'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Live } from '../base/live.ts'
import { Secret } from '../base/secret.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Server, TargetIdentity } from '../policy/grant.ts'
import { makeDpop } from '../proof/dpop.ts'
import { canonicalUrl } from '../proof/target.ts'
import type { ClientAuths } from './client-auth.ts'
import { checkExchanged, checkGrant, checkIssuedType, type ExchangeWanted } from './exchanged.ts'
import { checkIssued, type Issued, isReadable } from './issued.ts'
import { refusalOf } from './issuer-error.ts'
import { type IssuerAnswer, type IssuerHttp, type IssuerRoute, unavailable } from './issuer-http.ts'
import type { IssuerNonces } from './issuer-nonces.ts'
import type { Metadata } from './metadata.ts'
import type { ResourceMetadata } from './resource-metadata.ts'
import type { Revoker } from './revoke.ts'
import {
  ACCESS_TOKEN,
  clientCredentials,
  type Delegation,
  exchangeForGrant,
  exchangeForToken,
  JWT,
  jwtBearer,
  type TokenGrant,
} from './token-grant.ts'
import type { BoundToken, TokenAsk } from './tokens.ts'

/** What a request needs; it outlives the connection that the caller asked over. */
export interface TokenNeed extends Omit<TokenAsk, 'workload'> {
  readonly instance: Instance
  /** The proof for the token endpoint, where the agent does not hold the key of the token. */
  readonly foreignProof?: string | undefined
}

export interface TokenRequestsOptions {
  readonly http: IssuerHttp
  readonly metadata: Metadata
  readonly resources: Pick<ResourceMetadata, 'resourceOf'>
  readonly clients: ClientAuths
  readonly nonces: IssuerNonces
  readonly book: Live<RuleBook>
  readonly clock: Clock
  /** How far the clock of a server may be off. */
  readonly skew: Seconds
  /** Takes tokens that were issued and are not used, now or from a time on. */
  readonly revoker: Pick<Revoker, 'add' | 'addAt' | 'isRefusedBy'>
}

/** What a proof for the token endpoint has to say. */
export interface TokenChallenge {
  readonly endpoint: string
  readonly nonce: string | undefined
}

/** How one ask is carried out. */
interface Plan {
  readonly need: TokenNeed
  readonly identity: TargetIdentity
  readonly route: IssuerRoute
  readonly endpoint: string
  /** How the token is bound; `bearer` only under an exception of security. */
  readonly binding: 'dpop' | 'mtls' | 'bearer'
  /** What is asked for; each try asks anew. */
  readonly grant: () => Promise<TokenGrant>
}

/** The longest life of a token whose key the agent does not hold. */
const FOREIGN_TTL: Seconds = 600
const BODY = { maxBytes: 64 * 1024, maxDepth: 8 }

/** Asks token endpoints. */
export class TokenRequests {
  readonly #options: TokenRequestsOptions

  constructor(options: TokenRequestsOptions) {
    this.#options = options
  }

  /** A token for `asked`. Throws issuer_unavailable, issuer_refused, issued_*, discovery_failed, and what client authentication throws. */
  async request(asked: TokenNeed, signal: AbortSignal): Promise<BoundToken> {
    const need = await this.#confirmed(asked)
    const identity = identityOf(need)
    const plan = await this.#plan(need, signal, () => this.#grantFor(need, identity, signal))
    return this.#accept(plan, await issuedIn(await this.#ask(plan), need))
  }

  /** Where a proof for such a token goes, and the nonce it has to hold. Throws issuer_unavailable. */
  async challenge(need: TokenNeed, signal: AbortSignal): Promise<TokenChallenge> {
    const { endpoint } = await this.#plan(need, signal, async () => clientCredentials(identityOf(need)))
    return { endpoint: canonicalUrl(endpoint).htu, nonce: this.#options.nonces.of(endpoint) }
  }

  /** The same, with the resource that the target's own metadata confirms, where policy has it asked (RFC 9728). */
  async #confirmed(need: TokenNeed): Promise<TokenNeed> {
    const identity = identityOf(need)
    if (!identity.isDiscovered) return need
    const resource = await this.#options.resources.resourceOf(need)
    return { ...need, target: { ...need.target, identity: { ...identity, resource } } }
  }

  /** The first answer that is a token response; throws what the others say. */
  async #ask(plan: Plan): Promise<IssuerAnswer> {
    const first = await this.#try(plan)
    const isAsked = this.#asksForMore(plan, first)
    if (isAsked && plan.need.foreignProof !== undefined) throw new Fault('proof_nonce')
    const answer = isAsked ? await this.#try(plan) : first
    if (answer.status !== 200) throw refusalOf(answer, nowSeconds(this.#options.clock))
    return answer
  }

  async #grantFor(need: TokenNeed, identity: TargetIdentity, signal: AbortSignal): Promise<TokenGrant> {
    const delegation = this.#delegationOf(need, identity)
    if (!delegation) return clientCredentials(identity)
    const { via } = delegation.rule
    if (!via) return exchangeForToken(identity, delegation)
    return jwtBearer(identity, await this.#chained(need, { via, identity, delegation }, signal))
  }

  /** Whose token is exchanged, and with which actor; absent for the workload's own token. */
  #delegationOf(need: TokenNeed, { exchange: rule }: TargetIdentity) {
    const { subject, server } = need
    if (!subject) return undefined
    if (!rule) throw new Fault('bug')
    const at = { ...need, server: rule.via ?? server }
    const actor = rule.hasActor ? this.#options.clients.actorToken(at) : undefined
    return { subject, rule, actor } satisfies Delegation
  }

  /**
   * The grant of the first server for the target's own: short-lived, for one try, and known to these two servers and the
   * agent only. It follows draft-ietf-oauth-identity-chaining, which may still change.
   */
  async #chained(need: TokenNeed, chain: Chain, signal: AbortSignal): Promise<Secret<string>> {
    const { via, identity, delegation } = chain
    const audience = need.server.issuer
    const first = { ...need, server: via }
    const plan = await this.#plan(first, signal, async () => exchangeForGrant(audience, identity, delegation))
    const issued = await issuedIn(await this.#ask(plan), first, NO_ACCESS_TOKEN)
    checkIssuedType(issued, JWT)
    checkGrant(issued, { issuer: via.issuer, audience }, this.#wantedFor(first, delegation))
    return new Secret(issued.accessToken)
  }

  #wantedFor({ entry }: TokenNeed, { subject, rule }: Pick<Delegation, 'subject' | 'rule'>): ExchangeWanted {
    const { clock, skew } = this.#options
    return { subject, rule, spiffeId: entry.spiffeId, now: nowSeconds(clock), skew }
  }

  async #plan(need: TokenNeed, signal: AbortSignal, grant: Plan['grant']): Promise<Plan> {
    const { server } = need
    const identity = identityOf(need)
    const { clients, metadata, book } = this.#options
    const { tls } = clients.authenticate(need)
    const client = need.certificate ?? tls
    const route = { platform: book.get().serverTls(server.issuer), client, signal }
    const endpoint = await metadata.tokenEndpoint(server, route)
    return { need, identity, route, endpoint, binding: bindingOf(identity, need), grant }
  }

  async #try(plan: Plan): Promise<IssuerAnswer> {
    const { need, route, endpoint } = plan
    const { http, clients, nonces } = this.#options
    const { type, parameters } = await plan.grant()
    const { clientId, auth, headers } = clients.authenticate(need)
    let answer: IssuerAnswer | undefined
    const as: AuthorizationServer = { issuer: need.server.issuer, token_endpoint: endpoint }
    const client: Client = { client_id: clientId }
    await genericTokenEndpointRequest(as, client, auth, type, parameters, {
      headers: { ...headers, ...this.#proofFor(plan) },
      [customFetch]: http.fetchBy(route, (seen) => {
        answer = seen
      }),
    })
    if (!answer) throw new Fault('bug')
    nonces.learn(endpoint, need.server, answer)
    return answer
  }

  #proofFor({ need, endpoint, binding }: Plan): Record<string, string> {
    if (binding !== 'dpop') return {}
    if (need.foreignProof !== undefined) return { dpop: need.foreignProof }
    const { htu } = canonicalUrl(endpoint)
    const claims = { htm: 'POST', htu, nonce: this.#options.nonces.of(endpoint) }
    return { dpop: makeDpop(need.signer, claims, this.#options.clock).proof }
  }

  /** RFC 9449 s.8: the same once more, with a nonce; without a proof there is none to hold it. */
  #asksForMore({ need, binding }: Plan, answer: IssuerAnswer): boolean {
    return binding === 'dpop' && this.#options.nonces.isAskedFor(need.server, answer)
  }

  /** Whether the server says that it binds tokens to certificates (RFC 8705 s.3.3): asked only where none can be seen. */
  async #statesBinding({ need, route, binding }: Plan, { accessToken }: Issued): Promise<boolean> {
    if (binding !== 'mtls' || isReadable(accessToken)) return false
    try {
      return await this.#options.metadata.bindsToCertificates(need.server, route)
    } catch {
      return false
    }
  }

  async #accept(plan: Plan, issued: Issued): Promise<BoundToken> {
    const { need, identity, binding } = plan
    const { signer, certificate } = need
    const isBearer = binding === 'bearer'
    const { book, clock, skew, revoker } = this.#options
    const token = new Secret(issued.accessToken)
    const exception = isBearer ? book.get().exceptionOf(need.target.name) : undefined
    try {
      if (isBearer && !exception)
        throw new Fault(
          'issued_unbound',
          `security states no exception for bearer tokens of ${need.target.name}`,
        )
      const isStated = await this.#statesBinding(plan, issued)
      const checked = checkIssued(issued, {
        issuer: need.server.issuer,
        jkt: binding === 'dpop' ? signer.jkt : undefined,
        certificate: binding === 'mtls' && certificate ? { x5t: certificate.x5t, isStated } : undefined,
        maxTtl: Math.min(
          identity.maxTtl,
          exception?.maxTtl ?? Number.POSITIVE_INFINITY,
          need.foreignProof === undefined ? Number.POSITIVE_INFINITY : FOREIGN_TTL,
        ),
        tooLong: identity.tooLong,
        scopes: identity.scopes,
        resource: identity.resource,
        now: nowSeconds(clock),
        skew,
      })
      const { ends } = checked
      // A certificate takes along what is bound to it.
      const latest = Math.min(checked.expires, certificate?.expires ?? Number.POSITIVE_INFINITY)
      const expires = this.#checkExchange(plan, issued, latest)
      // Whoever has it keeps it: it is given back with the lease.
      if (need.foreignProof !== undefined) revoker.addAt(need, token, { at: expires, ends: expires })
      if (ends !== undefined) {
        await this.#checkTakesBack(plan)
        revoker.addAt(need, token, { at: expires, ends })
      }
      return { token, jkt: signer.jkt, expires, ends }
    } catch (error) {
      revoker.add(need, token, Number.POSITIVE_INFINITY)
      throw error
    }
  }

  /** When it ends, where it was had for a subject's token. */
  #checkExchange({ need, identity }: Plan, issued: Issued, expires: Seconds): Seconds {
    const { subject } = need
    const { exchange: rule } = identity
    if (!subject || !rule) return expires
    if (!rule.via) checkIssuedType(issued, ACCESS_TOKEN)
    return checkExchanged(issued, expires, this.#wantedFor(need, { subject, rule }))
  }

  /** A token is used for a part of its life only where its server ends it then (RFC 7009). */
  async #checkTakesBack({ need, identity, route }: Plan): Promise<void> {
    const { metadata, revoker } = this.#options
    const refuse = (why: string) =>
      new Fault('issued_too_long', `the issued token lives longer than ${identity.maxTtl} s, and ${why}`)
    if ((await metadata.revocationEndpoint(need.server, route)) === undefined)
      throw refuse('its server has no revocation endpoint at the origin of the issuer')
    if (revoker.isRefusedBy(need.server)) throw refuse('its server has refused to revoke such a token')
  }
}

/** Two servers, and whose token is exchanged at the first. */
interface Chain {
  readonly via: Server
  readonly identity: TargetIdentity
  readonly delegation: Delegation
}

/** RFC 8693 s.2.2.1: the `token_type` of what is no access token. */
const NO_ACCESS_TOKEN = { n_a: () => {} }

function identityOf({ target }: TokenNeed): TargetIdentity {
  if (target.identity) return target.identity
  throw new Fault('policy_denied', `identity states nothing for ${target.name}`, { owner: 'identity' })
}

function bindingOf({ binding }: TargetIdentity, { certificate }: TokenNeed): Plan['binding'] {
  if (binding.includes('bearer')) return 'bearer'
  if (!binding.includes('mtls')) return 'dpop'
  if (!certificate) throw new Fault('bug', 'a token is to be bound to a certificate, and there is none')
  return 'mtls'
}

/** The answer as RFC 6749 s.5.1 has it; throws issued_unbound, issuer_unavailable. */
async function issuedIn(
  answer: IssuerAnswer,
  { server, entry }: TokenNeed,
  recognizedTokenTypes: RecognizedTokenTypes = {},
): Promise<Issued> {
  try {
    // Stricter than the library: no member twice, a bounded depth. An ID token has no business here and is not read.
    const { id_token: _unused, ...members } = parseJsonObject(answer.body, BODY)
    const response = new Response(JSON.stringify(members), {
      headers: { 'content-type': 'application/json' },
    })
    const read = await processGenericTokenEndpointResponse(
      { issuer: server.issuer },
      { client_id: entry.spiffeId },
      response,
      { recognizedTokenTypes },
    )
    const { access_token: accessToken, token_type: tokenType, expires_in: expiresIn, scope } = read
    return { accessToken, tokenType, expiresIn, scope, issuedTokenType: members['issued_token_type'] }
  } catch (error) {
    // The library's errors hold the answer, token included: nothing of them goes on.
    if (isOtherType(error)) throw new Fault('issued_unbound', 'the issued token has an unknown token_type')
    throw unavailable('gives an answer that is no token response')
  }
}

function isOtherType(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'OAUTH_UNSUPPORTED_OPERATION'
}
