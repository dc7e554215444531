/**
 * Tokens that are given back (RFC 7009): those of leases that ended, those that were issued wrongly, and those that live
 * longer than policy lets them be used. Best effort for the first two: a bounded queue, one try each; what counts is
 * that no token is used again and that it ends soon by itself. The third are tried again.
 */
import { setMaxListeners } from 'node:events'
import { customFetch, revocationRequest } from 'oauth4webapi'
import { type Clock, type Millis, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { Secret } from '../base/secret.ts'
import { Shares } from '../base/shares.ts'
import { generateKey } from '../keys/signer.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Server } from '../policy/grant.ts'
import { makeDpop } from '../proof/dpop.ts'
import { canonicalUrl } from '../proof/target.ts'
import type { ClientAuths } from './client-auth.ts'
import { Gates } from './gate.ts'
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

/** A token on its way back. */
interface Giving {
  readonly need: TokenNeed
  readonly token: Secret<string>
  readonly expires: Seconds
  readonly tries: number
}

/** Half of it for one identity, as of every bound that is shared. */
const LATER_LIMIT = 40_000
const SERVERS_LIMIT = 256
const TRIES = 5
const AGAIN_AFTER: Millis = 30_000
const REFUSAL_KEPT: Millis = 3_600_000
const QUEUE_LIMIT = 2_048
/** At one server: one that hangs must not keep what belongs to another. */
const AT_ONCE = 2
/** What ends before a request would reach the server needs none. */
const WORTH: Seconds = 3

/** Gives tokens back to their servers. */
export class Revoker {
  readonly #options: RevokerOptions
  readonly #gates = new Gates(AT_ONCE)
  /** What is given back at a time or with its lease; calling it leaves the token out. */
  readonly #later = new Map<Secret<string>, () => void>()
  readonly #given = new WeakSet<Secret<string>>()
  /** When a server last refused to revoke. */
  readonly #refusals = new Map<string, Millis>()
  readonly #controller = new AbortController()
  readonly #queued = new Shares('tokens on their way back', QUEUE_LIMIT)
  readonly #laterShares = new Shares('tokens that wait for their revocation', LATER_LIMIT)
  #tellIdle = () => {}

  constructor(options: RevokerOptions) {
    this.#options = options
    setMaxListeners(0, this.#controller.signal)
  }

  /** Gives `token` back some time soon; forgets it when the queue is full or `expires` is near. */
  add(need: TokenNeed, token: Secret<string>, expires: Seconds): void {
    const isTriedAgain = this.#leaveOut(token)
    if (this.#given.has(token)) return
    this.#given.add(token)
    this.#give({ need, token, expires, tries: isTriedAgain ? TRIES : 1 })
  }

  /**
   * Gives `token` back at `at`, or with the lease, or when it is added before: it would live until `ends`. Throws
   * overloaded when too many wait for their time.
   */
  addAt(need: TokenNeed, token: Secret<string>, { at, ends }: { at: Seconds; ends: Seconds }): void {
    const { clock } = this.#options
    if (this.#controller.signal.aborted) throw new Fault('draining')
    const leave = this.#laterShares.take(need.entry.spiffeId)
    const { signal } = need.instance
    const give = () => this.add(need, token, ends)
    const cancel = clock.after((at - nowSeconds(clock)) * 1000, give)
    signal.addEventListener('abort', give, { once: true })
    this.#later.set(token, () => {
      leave()
      cancel()
      signal.removeEventListener('abort', give)
    })
    if (signal.aborted) give()
  }

  /** Whether the server has refused to revoke within the last hour. */
  isRefusedBy({ issuer }: Server): boolean {
    const at = this.#refusals.get(issuer)
    return at !== undefined && this.#options.clock.monotonic() - at < REFUSAL_KEPT
  }

  /** Resolves when everything has been tried, or after `limit`. */
  settled(limit: Millis): Promise<void> {
    if (this.#queued.all === 0) return Promise.resolve()
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(limit, resolve)
      this.#tellIdle = () => {
        cancel()
        resolve()
      }
    })
  }

  stop(): void {
    this.#controller.abort(new Fault('draining'))
    for (const token of [...this.#later.keys()]) this.#leaveOut(token)
  }

  /** Whether it was waiting for its time. */
  #leaveOut(token: Secret<string>): boolean {
    this.#later.get(token)?.()
    return this.#later.delete(token)
  }

  #give(giving: Giving): void {
    const { need, token, expires } = giving
    const { spiffeId } = need.entry
    const { signal } = this.#controller
    if (signal.aborted || expires - nowSeconds(this.#options.clock) < WORTH) return
    if (this.#queued.isFull(spiffeId)) {
      this.#giveAgain(giving)
      return
    }
    const leave = this.#queued.take(spiffeId)
    this.#gates
      .of(need.server.issuer)
      .run({ urgency: 'renewal', signal, who: spiffeId }, () => this.#revoke(need, token, signal))
      .then(
        (isDone) => (isDone ? this.#options.onRevoked(undefined) : undefined),
        (error: unknown) => this.#fail(giving, Fault.from(error, 'issuer_unavailable')),
      )
      .finally(() => {
        leave()
        if (this.#queued.all === 0) this.#tellIdle()
      })
  }

  #fail(giving: Giving, fault: Fault): void {
    this.#options.onRevoked(fault)
    if (fault.reason !== 'issuer_refused') {
      this.#giveAgain(giving)
      return
    }
    if (this.#refusals.size >= SERVERS_LIMIT) this.#refusals.clear()
    this.#refusals.set(giving.need.server.issuer, this.#options.clock.monotonic())
  }

  #giveAgain(giving: Giving): void {
    const tries = giving.tries - 1
    if (tries > 0) this.#options.clock.after(AGAIN_AFTER, () => this.#give({ ...giving, tries }))
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
