/**
 * What authorization servers say of tokens (RFC 7662): asked by the agent as the client that policy states, once for all
 * who wait, and believed for five seconds. Answers are kept by the hash of the token.
 */
import { setMaxListeners } from 'node:events'
import { customFetch, introspectionRequest } from 'oauth4webapi'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Live } from '../base/live.ts'
import { authenticateAgent } from '../egress/client-auth.ts'
import type { ClientKeys } from '../egress/client-key.ts'
import { Gates } from '../egress/gate.ts'
import { type IssuerAnswer, type IssuerHttp, unavailable } from '../egress/issuer-http.ts'
import type { Metadata } from '../egress/metadata.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Server } from '../policy/grant.ts'
import { hashOf } from '../proof/jwt.ts'
import type { Claims, Introspection } from './access-token.ts'

export interface IntrospectorOptions {
  readonly http: IssuerHttp
  readonly metadata: Metadata
  /** The keys of the clients that policy states. */
  readonly keys: ClientKeys
  readonly book: Live<RuleBook>
  readonly clock: Clock
}

interface Kept {
  /** Undefined: the token is not active. */
  readonly claims: Claims | undefined
  readonly until: Millis
}

/** A revocation at the server counts this much later at most. */
const KEEP: Millis = 5_000
const KEPT_LIMIT = 10_000
/** At one server: one that hangs keeps no place at another. */
const AT_ONCE = 16
const LIMITS = { maxBytes: 64 * 1024, maxDepth: 8 }

/** Asks introspection endpoints. */
export class Introspector implements Introspection {
  readonly #options: IntrospectorOptions
  readonly #gates = new Gates(AT_ONCE)
  readonly #kept = new Map<string, Kept>()
  readonly #pending = new Map<string, Promise<Claims | undefined>>()
  readonly #ending = new AbortController()

  constructor(options: IntrospectorOptions) {
    this.#options = options
    setMaxListeners(0, this.#ending.signal)
  }

  async ask(server: Server, token: string, route: string): Promise<Claims | undefined> {
    const key = `${hashOf(token)} ${server.issuer}`
    const kept = this.#kept.get(key)
    if (kept && kept.until > this.#options.clock.monotonic()) return kept.claims
    return await (this.#pending.get(key) ?? this.#askOnce(key, server, token, route))
  }

  stop(): void {
    this.#ending.abort(new Fault('draining'))
    this.#kept.clear()
  }

  /** Who waits for it does not end it by leaving. Strangers may send any number of tokens to one route: others go on. */
  #askOnce(key: string, server: Server, token: string, route: string): Promise<Claims | undefined> {
    const { signal } = this.#ending
    const asking = this.#gates
      .of(server.issuer)
      .run({ urgency: 'caller', signal, who: route }, () => this.#fetch(server, token, signal))
      .then((claims) => {
        this.#keep(key, claims)
        return claims
      })
      .finally(() => this.#pending.delete(key))
    this.#pending.set(key, asking)
    return asking
  }

  #keep(key: string, claims: Claims | undefined): void {
    this.#kept.delete(key)
    const [oldest] = this.#kept.keys()
    if (this.#kept.size >= KEPT_LIMIT && oldest !== undefined) this.#kept.delete(oldest)
    this.#kept.set(key, { claims, until: this.#options.clock.monotonic() + KEEP })
  }

  async #fetch(server: Server, token: string, signal: AbortSignal): Promise<Claims | undefined> {
    const { book, http, metadata } = this.#options
    const { issuer } = server
    const route = { platform: book.get().serverTls(issuer), client: undefined, signal }
    const endpoint = await metadata.introspectionEndpoint(server, route)
    if (endpoint === undefined) throw unavailable('names no introspection endpoint at its own origin')
    const { clientId, auth } = authenticateAgent(this.#options, server)
    let answer: IssuerAnswer | undefined
    const as = { issuer, introspection_endpoint: endpoint }
    await introspectionRequest(as, { client_id: clientId }, auth, token, {
      additionalParameters: { token_type_hint: 'access_token' },
      [customFetch]: http.fetchBy(route, (seen) => {
        answer = seen
      }),
    })
    if (!answer) throw new Fault('bug')
    return claimsIn(answer, server)
  }
}

/** RFC 7662 s.2.2; a server that says another issuer of a token speaks of a token that is not its own. */
function claimsIn({ status, body }: IssuerAnswer, { issuer }: Server): Claims | undefined {
  if (status !== 200) throw unavailable(`answers a question about a token with status ${status}`)
  const claims = parsed(body)
  if (claims['active'] !== true) return undefined
  return claims['iss'] === undefined || claims['iss'] === issuer ? claims : undefined
}

function parsed(body: string): Claims {
  try {
    return parseJsonObject(body, LIMITS)
  } catch {
    throw unavailable('answers a question about a token with what is not one JSON object')
  }
}
