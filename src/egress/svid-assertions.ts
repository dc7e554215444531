/**
 * JWT-SVIDs as client assertions (draft-ietf-oauth-spiffe-client-auth): for one authorization server alone, and never
 * delivered to anybody. Made fresh for each request, or one for several where policy says so.
 */
import type { Instance } from '../attest/workload.ts'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import type { Authority, IssuedToken } from '../issue/authority.ts'
import type { Entry } from '../policy/entry.ts'
import type { Server } from '../policy/grant.ts'

/** Whose assertion, for which server. */
export interface AssertionAsk {
  readonly server: Server
  readonly entry: Entry
  readonly instance: Instance
}

export interface SvidAssertionsOptions {
  readonly authority: Pick<Authority, 'issueJwt'>
  readonly clock: Clock
}

interface Reused {
  readonly token: string
  readonly renewAt: Seconds
}

/** As long as one request may take. */
const FRESH_LIFE: Seconds = 60
const KEPT_LIMIT = 20_000

/** Makes assertions and keeps those that are used again. */
export class SvidAssertions {
  readonly #options: SvidAssertionsOptions
  readonly #kept = new Map<string, Reused>()

  constructor(options: SvidAssertionsOptions) {
    this.#options = options
  }

  /** How many are kept. */
  get count(): number {
    return this.#kept.size
  }

  /** One of its own for each request. */
  fresh(ask: AssertionAsk): string {
    return this.#issue(ask, FRESH_LIFE).token
  }

  /** The same one for this identity, instance and server until half of its life is over, or the lease ends. */
  reused(ask: AssertionAsk): string {
    const { entry, instance, server } = ask
    const key = JSON.stringify([instance.key, entry.spiffeId, entry.jwtTtl, server.issuer])
    const now = nowSeconds(this.#options.clock)
    const known = this.#kept.get(key)
    if (known && now < known.renewAt) return known.token
    const { token, expires } = this.#issue(ask, entry.jwtTtl)
    // After the lease there is one request left: to give its token back.
    if (instance.signal.aborted) return token
    if (this.#kept.size >= KEPT_LIMIT) this.#kept.clear()
    if (!known) instance.signal.addEventListener('abort', () => this.#kept.delete(key), { once: true })
    this.#kept.set(key, { token, renewAt: now + Math.floor((expires - now) / 2) })
    return token
  }

  /** RFC 7523bis s.4: the issuer is the only audience. */
  #issue({ entry: { spiffeId }, server }: AssertionAsk, ttl: Seconds): IssuedToken {
    return this.#options.authority.issueJwt({ spiffeId, audience: [server.issuer], ttl })
  }
}
