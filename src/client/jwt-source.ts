/** JWT-SVIDs for audiences, and the bundles and verdicts that check those of others (SPIFFE_Workload_API.md s.6). */
import type { Clock, Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type Agent, type AgentOptions, openAgent } from './agent.ts'
import type { Message } from './grpc.ts'
import { type OpenOptions, Source } from './source.ts'
import { awaitedClock } from './timer.ts'
import { trustDomainOf } from './x509-svid.ts'

export interface JwtSourceOptions extends AgentOptions, OpenOptions {}

/** A bearer credential: whoever holds `token` is taken for this process, so that it belongs in no log. */
export interface JwtSvid {
  readonly spiffeId: string
  readonly token: string
  readonly audience: readonly string[]
  /** Seconds since 1970. */
  readonly expiresAt: Seconds
  /** What the operator says this identity is for; empty when nothing. */
  readonly hint: string
}

export interface FetchJwtOptions {
  /** Which of this process's identities; its first one when absent. */
  readonly spiffeId?: string | undefined
  /** How long to wait for the agent; 5 s when absent. */
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** What the agent says of a JWT-SVID that somebody else sent. */
export interface JwtVerdict {
  readonly spiffeId: string
  readonly claims: Readonly<Record<string, unknown>>
}

/** Fetches JWT-SVIDs; its stream of bundles holds the process open until `close()`. */
export interface JwtSource extends AsyncDisposable {
  /**
   * A JWT-SVID for exactly `audience`. Rejects with the agent's refusal: audience_reserved, delivery_denied, no_identity.
   *
   * @example
   * const { token } = await source.fetchJwt('spiffe://example.org/orders')
   */
  fetchJwt(audience: string | readonly string[], options?: FetchJwtOptions): Promise<JwtSvid>
  /**
   * Has the agent verify a JWT-SVID for exactly `audience`. Rejects with svid_invalid, svid_expired, svid_audience.
   *
   * @example
   * const { spiffeId } = await source.validate(token, 'spiffe://example.org/orders')
   */
  validate(token: string, audience: string, options?: Omit<FetchJwtOptions, 'spiffeId'>): Promise<JwtVerdict>
  /** The JWK Set of a trust domain, as JSON; throws bundle_missing. */
  bundle(trustDomain: string): string
  /** Calls `listener` after each change of the bundles; the returned function ends it. */
  onUpdated(listener: () => void): () => void
  /** Why no newer bundle comes; undefined while all is well. */
  readonly problem: Fault | undefined
  /** Ends the stream; may be called again. */
  close(): void
}

const TIMEOUT = 5_000

/**
 * Opens a source; resolves with the first bundles, however long that takes. Throws what the agent refuses for good,
 * and what it last said when `signal` aborts first.
 *
 * @example
 * await using source = await openJwtSource()
 * const { token } = await source.fetchJwt('spiffe://example.org/orders')
 */
export async function openJwtSource(options: JwtSourceOptions = {}): Promise<JwtSource> {
  return await jwtSource(openAgent(options), options, awaitedClock)
}

/** The source over an agent that is open already. */
export async function jwtSource(agent: Agent, options: OpenOptions, clock: Clock): Promise<JwtSource> {
  const method = 'SpiffeWorkloadAPI/FetchJWTBundles'
  const source = new Source({ agent, clock, method, parse: parseBundles })
  await source.ready(options)
  const close = () => {
    source.close()
    agent.close()
  }
  return {
    fetchJwt: (audience, each = {}) => fetchJwt(agent, audience, each),
    validate: (token, audience, each = {}) => validate(agent, token, audience, each),
    bundle: (trustDomain) => {
      const keys = source.get().get(trustDomainOf(trustDomain))
      if (keys === undefined) throw new Fault('bundle_missing')
      return keys
    },
    onUpdated: (listener) => source.onUpdated(listener),
    get problem() {
      return source.problem
    },
    close,
    [Symbol.asyncDispose]: async () => close(),
  }
}

function parseBundles(message: Message): ReadonlyMap<string, string> {
  const bundles = (message['bundles'] ?? {}) as Readonly<Record<string, Buffer>>
  return new Map(
    Object.entries(bundles).map(([id, keys]) => [trustDomainOf(id), Buffer.from(keys).toString('utf8')]),
  )
}

async function fetchJwt(
  agent: Agent,
  audience: string | readonly string[],
  { spiffeId = '', timeoutMs = TIMEOUT, signal }: FetchJwtOptions,
): Promise<JwtSvid> {
  const request = { audience: [audience].flat(), spiffe_id: spiffeId }
  const answer = await agent.ask('SpiffeWorkloadAPI/FetchJWTSVID', request, { timeout: timeoutMs, signal })
  const [svid] = (answer['svids'] ?? []) as readonly Message[]
  return parseJwtSvid(svid ?? {}, request.audience)
}

function parseJwtSvid(svid: Message, audience: readonly string[]): JwtSvid {
  const token = String(svid['svid'] ?? '')
  return {
    spiffeId: String(svid['spiffe_id'] ?? ''),
    token,
    audience,
    expiresAt: expiryOf(token),
    hint: String(svid['hint'] ?? ''),
  }
}

/** Read, not verified: the agent has just signed it. The token itself stays out of the message. */
function expiryOf(token: string): Seconds {
  try {
    const { exp } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'))
    if (typeof exp === 'number') return exp
  } catch {
    // Falls through: what is no JWT has no expiry.
  }
  throw new Fault('svid_invalid', 'the agent sent no JWT-SVID that can be read')
}

async function validate(
  agent: Agent,
  token: string,
  audience: string,
  { timeoutMs = TIMEOUT, signal }: Omit<FetchJwtOptions, 'spiffeId'>,
): Promise<JwtVerdict> {
  const request = { svid: token, audience }
  const answer = await agent.ask('SpiffeWorkloadAPI/ValidateJWTSVID', request, { timeout: timeoutMs, signal })
  return { spiffeId: String(answer['spiffe_id'] ?? ''), claims: objectOf(answer['claims']) }
}

/** A `google.protobuf.Struct` as a plain object; depth is bounded by the wire library. */
function objectOf(struct: unknown): Readonly<Record<string, unknown>> {
  const { fields = {} } = (struct ?? {}) as { fields?: Readonly<Record<string, Message>> }
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, plainOf(value)]))
}

function plainOf(value: Message): unknown {
  if ('structValue' in value) return objectOf(value['structValue'])
  if ('listValue' in value) {
    const { values = [] } = (value['listValue'] ?? {}) as { values?: readonly Message[] }
    return values.map(plainOf)
  }
  return value['stringValue'] ?? value['numberValue'] ?? value['boolValue'] ?? null
}
