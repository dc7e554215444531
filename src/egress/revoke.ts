/**
 * Tokens that are given back (RFC 7009): those of leases that ended and those that were issued wrongly. Best effort:
 * a bounded queue, one try each; what counts is that no token is used again and that it ends soon by itself.
 */
import { setMaxListeners } from 'node:events'
import { customFetch, revocationRequest } from 'oauth4webapi'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { Secret } from '../base/secret.ts'
import { generateKey } from '../keys/signer.ts'
import type { RuleBook } from '../policy/book.ts'
import { makeDpop } from '../proof/dpop.ts'
import { canonicalUrl } from '../proof/target.ts'
import type { ClientAuths } from './client-auth.ts'
import { Gate } from './gate.ts'
import { refusalOf } from './issuer-error.ts'
import type { IssuerAnswer, IssuerHttp, IssuerRoute } from './issuer-http.ts'
import { type IssuerNonces, isAttested } from './issuer-nonces.ts'
import type { Metadata } from './metadata.ts'
import type { TokenNeed } from './token-request.ts'

export interface RevokerOptions {
  readonly http: IssuerHttp
  readonly metadata: Metadata
  readonly clients: ClientAuths
  readonly nonces: IssuerNonces
  readonly book: Live<RuleBook>
  readonly clock: Clock
  /** Hears of each try. */
  readonly onRevoked: (fault: Fault | undefined) => void
}

/** Where the request goes. */
interface Place {
  readonly route: IssuerRoute
  readonly endpoint: string
}

const QUEUE_LIMIT = 1_024
const AT_ONCE = 2
/** What ends before a request would reach the server needs none. */
const WORTH: Seconds = 3

/** Gives tokens back to their servers. */
export class Revoker {
  readonly #options: RevokerOptions
  readonly #gate = new Gate(AT_ONCE)
  readonly #controller = new AbortController()
  #queued = 0

  constructor(options: RevokerOptions) {
    this.#options = options
    setMaxListeners(0, this.#controller.signal)
  }

  /** Gives `token` back some time soon; forgets it when the queue is full or `expires` is near. */
  add(need: TokenNeed, token: Secret<string>, expires: Seconds): void {
    const { signal } = this.#controller
    if (signal.aborted || this.#queued >= QUEUE_LIMIT) return
    if (expires - nowSeconds(this.#options.clock) < WORTH) return
    this.#queued += 1
    this.#gate
      .run('renewal', signal, () => this.#revoke(need, token, signal))
      .then(
        (isDone) => (isDone ? this.#options.onRevoked(undefined) : undefined),
        (error: unknown) => this.#options.onRevoked(Fault.from(error, 'issuer_unavailable')),
      )
      .finally(() => {
        this.#queued -= 1
      })
  }

  stop(): void {
    this.#controller.abort(new Fault('draining'))
  }

  /**
   * Whether the server has an endpoint for it and took it back. The key of the token is gone with its lease, and the
   * client is the same whichever key it attests: one for this request alone.
   */
  async #revoke(need: TokenNeed, token: Secret<string>, signal: AbortSignal): Promise<boolean> {
    const { metadata, clients, nonces, book, clock } = this.#options
    const { server } = need
    const key = isAttested(server) ? generateKey('ES256') : undefined
    try {
      const by = key ? { ...need, signer: key } : need
      const { tls } = clients.authenticate(by)
      const route = { platform: book.get().serverTls(server.issuer), client: tls, signal }
      const endpoint = await metadata.revocationEndpoint(server, route)
      if (endpoint === undefined) return false
      const first = await this.#try(by, token, { route, endpoint })
      const isAsked = key && nonces.isAskedFor(server, first)
      const answer = isAsked ? await this.#try(by, token, { route, endpoint }) : first
      if (answer.status !== 200) throw refusalOf(answer, nowSeconds(clock))
      return true
    } finally {
      key?.destroy()
    }
  }

  async #try(need: TokenNeed, token: Secret<string>, { route, endpoint }: Place): Promise<IssuerAnswer> {
    const { http, clients, nonces } = this.#options
    const { server } = need
    const { clientId, auth, headers } = clients.authenticate(need)
    let answer: IssuerAnswer | undefined
    const as = { issuer: server.issuer, revocation_endpoint: endpoint }
    await revocationRequest(as, { client_id: clientId }, auth, token.reveal(), {
      additionalParameters: { token_type_hint: 'access_token' },
      headers: { ...headers, ...this.#proofFor(need, endpoint) },
      [customFetch]: http.fetchBy(route, (seen) => {
        answer = seen
      }),
    })
    if (!answer) throw new Fault('bug')
    nonces.learn(endpoint, server, answer)
    return answer
  }

  /** Only a client attestation needs one. */
  #proofFor({ server, signer }: TokenNeed, endpoint: string): Record<string, string> {
    if (!isAttested(server)) return {}
    const { clock, nonces } = this.#options
    const claims = { htm: 'POST', htu: canonicalUrl(endpoint).htu, nonce: nonces.of(endpoint) }
    return { dpop: makeDpop(signer, claims, clock).proof }
  }
}
