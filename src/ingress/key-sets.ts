/**
 * The keys that authorization servers sign tokens with (RFC 7517), kept for a while: fetched once for all who wait, at
 * most every half minute however many unknown keys are named, and used on for an hour while they cannot be had.
 */
import type { KeyObject } from 'node:crypto'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import type { Server } from '../policy/grant.ts'
import { importPublicJwk } from '../spiffe/jwk.ts'
import { isJwsAlg } from '../spiffe/jws.ts'
import type { TokenKeys } from './access-token.ts'

export interface KeySetsOptions {
  readonly clock: Clock
  /** The JWK Set of a server as text; bounded in time and size. Throws issuer_unavailable. */
  readonly fetch: (server: Server) => Promise<string>
}

type Members = Readonly<Record<string, unknown>>

/** One server's keys; a JWK becomes a key when a token names it. */
interface KeySet {
  readonly jwks: ReadonlyMap<string, Members>
  readonly keys: Map<string, KeyObject | undefined>
  readonly fetched: Millis
}

const FRESH: Millis = 600_000
const STALE: Millis = 3_600_000
/** A kid that is not there may be new; whoever makes kids up must not make us fetch. */
const AGAIN: Millis = 30_000
const KEYS_LIMIT = 256
const LIMITS = { maxBytes: 256 * 1024, maxDepth: 8 }

/** Keys by server and kid. */
export class KeySets implements TokenKeys {
  readonly #options: KeySetsOptions
  readonly #sets = new Map<string, KeySet>()
  readonly #tried = new Map<string, Millis>()
  readonly #pending = new Map<string, Promise<void>>()
  /** Why the last fetch came to nothing. */
  readonly #why = new Map<string, Fault>()

  constructor(options: KeySetsOptions) {
    this.#options = options
  }

  find(server: Server, kid: string): KeyObject | undefined | Promise<KeyObject | undefined> {
    const { issuer } = server
    const now = this.#options.clock.monotonic()
    const set = this.#sets.get(issuer)
    const age = set ? now - set.fetched : Number.POSITIVE_INFINITY
    if (set?.jwks.has(kid) && age < FRESH) return keyIn(set, kid)
    if (now - (this.#tried.get(issuer) ?? Number.NEGATIVE_INFINITY) < AGAIN && !this.#pending.has(issuer))
      return this.#known(issuer, kid)
    return this.#refresh(server).then(() => this.#known(issuer, kid))
  }

  /** What is known of the server, as long as it may be used. */
  #known(issuer: string, kid: string): KeyObject | undefined {
    const set = this.#sets.get(issuer)
    if (!set || this.#options.clock.monotonic() - set.fetched >= STALE) throw missing(this.#why.get(issuer))
    return keyIn(set, kid)
  }

  #refresh(server: Server): Promise<void> {
    const { issuer } = server
    const pending = this.#pending.get(issuer)
    if (pending) return pending
    this.#tried.set(issuer, this.#options.clock.monotonic())
    const refreshing = this.#fetch(server).finally(() => this.#pending.delete(issuer))
    this.#pending.set(issuer, refreshing)
    return refreshing
  }

  /** The last good set stays while there is no better one. */
  async #fetch(server: Server): Promise<void> {
    try {
      const jwks = parseKeySet(await this.#options.fetch(server))
      this.#sets.set(server.issuer, { jwks, keys: new Map(), fetched: this.#options.clock.monotonic() })
      this.#why.delete(server.issuer)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      this.#why.set(server.issuer, error)
    }
  }
}

function missing(why: Fault | undefined): Fault {
  return why
    ? new Fault('verifier_keys', `the keys of the issuer cannot be had: ${why.message}`, { cause: why })
    : new Fault('verifier_keys')
}

function keyIn({ jwks, keys }: KeySet, kid: string): KeyObject | undefined {
  if (keys.has(kid)) return keys.get(kid)
  const jwk = jwks.get(kid)
  const key = jwk && importPublicJwk(jwk)
  if (jwk) keys.set(kid, key)
  return key
}

/** RFC 7517 s.4.2 to s.4.4: a key says what it is for, or nothing. */
function isForVerifying({ alg, key_ops: operations, use }: Members): boolean {
  if (use !== undefined && use !== 'sig') return false
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) return false
  return alg === undefined || isJwsAlg(alg)
}

/** Signing keys by kid; two of one kid, or too many, make the set useless. Throws issuer_unavailable. */
function parseKeySet(text: string): ReadonlyMap<string, Members> {
  const { keys } = parseJsonObject(text, LIMITS)
  if (!Array.isArray(keys) || keys.length > KEYS_LIMIT)
    throw new Fault(
      'issuer_unavailable',
      `the JWK Set of the server ${Array.isArray(keys) ? `has ${keys.length} keys, wanted ${KEYS_LIMIT} at most` : 'is none'}`,
    )
  const jwks = new Map<string, Members>()
  for (const key of keys as readonly unknown[]) {
    if (typeof key !== 'object' || key === null) continue
    const { kid } = key as Members
    if (typeof kid !== 'string' || !isForVerifying(key as Members)) continue
    if (jwks.has(kid))
      throw new Fault('issuer_unavailable', 'the JWK Set of the server has two keys of one kid')
    jwks.set(kid, key as Members)
  }
  return jwks
}
