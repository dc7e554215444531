/**
 * The tokens that workloads were called with, each behind a handle that is of use to one workload instance only. A
 * handle ends with its token, with the lease and with the agent; only its hash is kept where it could be read.
 */
import { randomBytes } from 'node:crypto'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { Secret } from '../base/secret.ts'
import { Shares } from '../base/shares.ts'
import { type KeyOwner, ownerKey } from '../keys/vault.ts'
import { hashOf } from '../proof/jwt.ts'
import { readSubject, type SubjectClaims } from './subject-token.ts'

export interface SubjectsOptions {
  readonly clock: Clock
  /** Most handles of one identity in one instance. */
  readonly perInstance: number
  /** Most handles in all; no identity holds more of them than are left for all others. */
  readonly limit: number
}

/** A token behind a handle; `signal` aborts when the handle ends, and what was got with it ends then. */
export interface Subject {
  readonly token: Secret<string>
  /** base64url SHA-256 of the token. */
  readonly hash: string
  /** The first 16 characters of the hash of the handle: what records call it. */
  readonly id: string
  /** Absent: the token is opaque. */
  readonly claims: SubjectClaims | undefined
  readonly expires: Seconds
  readonly signal: AbortSignal
}

/** What a workload gets for a token. */
export interface Handle {
  readonly handle: string
  /** Seconds since 1970. */
  readonly expires: Seconds
}

interface Held extends Subject {
  readonly owner: Owned
  /** Its key in `owner.held`. */
  readonly key: string
  readonly handle: Secret<string>
  readonly handleHash: string
  readonly ending: AbortController
  readonly cancel: () => void
  /** Gives its place among all handles back. */
  readonly leave: () => void
}

/** The handles of one owner, by the hash of their token and the transaction. */
interface Owned {
  readonly key: string
  readonly spiffeId: string
  readonly held: Map<string, Held>
  forget(): void
}

const HANDLE_BYTES = 32
/** Of a token that does not say when it ends. */
const DEFAULT_LIFE: Seconds = 300
const LIFE_LIMIT: Seconds = 86_400

/** Keeps subject tokens. */
export class Subjects {
  readonly #options: SubjectsOptions
  readonly #byHandle = new Map<string, Held>()
  readonly #owners = new Map<string, Owned>()
  readonly #shares: Shares

  constructor(options: SubjectsOptions) {
    this.#options = options
    this.#shares = new Shares('subject tokens', options.limit)
  }

  get count(): number {
    return this.#byHandle.size
  }

  /**
   * The handle of `token` for `owner` in `transaction`, a verified one; the same one while it lives. Throws
   * token_malformed, token_expired, lease_ended, rate_limited at the limit of the owner, overloaded at that of all.
   */
  add(owner: KeyOwner, token: Secret<string>, transaction?: string): Handle & { readonly subject: Subject } {
    if (owner.instance.signal.aborted) throw new Fault('lease_ended')
    const now = nowSeconds(this.#options.clock)
    const text = token.reveal()
    const said = readSubject(text)
    const claims = said && transaction !== undefined ? { ...said, txn: transaction } : said
    const expires = Math.min(claims?.expires ?? now + DEFAULT_LIFE, now + LIFE_LIMIT)
    if (expires <= now) throw new Fault('token_expired', 'the subject token has expired')
    const hash = hashOf(text)
    const key = transaction === undefined ? hash : `${hash} ${hashOf(transaction)}`
    const subject =
      this.#owners.get(ownerKey(owner))?.held.get(key) ??
      this.#keep(owner, { token, claims, expires, hash, key })
    return { handle: subject.handle.reveal(), expires: subject.expires, subject }
  }

  /** The token behind `handle`; throws subject_unknown, which is the same for a handle of somebody else. */
  find(owner: KeyOwner, handle: string): Subject {
    const held = this.#byHandle.get(hashOf(handle))
    if (!held || held.owner.key !== ownerKey(owner) || held.expires <= nowSeconds(this.#options.clock))
      throw new Fault('subject_unknown')
    return held
  }

  /** Ends the handles of an identity, or all; how many. */
  end(filter: { readonly spiffeId?: string }): number {
    const { spiffeId } = filter
    const ending = [...this.#byHandle.values()].filter(
      ({ owner }) => spiffeId === undefined || spiffeId === owner.spiffeId,
    )
    for (const held of ending) this.#end(held)
    return ending.length
  }

  #keep(owner: KeyOwner, facts: Pick<Held, 'token' | 'claims' | 'expires' | 'hash' | 'key'>): Held {
    const { clock } = this.#options
    const leave = this.#takePlace(owner)
    const owned = this.#ownedBy(owner)
    const handle = randomBytes(HANDLE_BYTES).toString('base64url')
    const handleHash = hashOf(handle)
    const ending = new AbortController()
    const held: Held = {
      ...facts,
      id: handleHash.slice(0, 16),
      signal: ending.signal,
      owner: owned,
      handle: new Secret(handle),
      handleHash,
      ending,
      cancel: clock.after((facts.expires - nowSeconds(clock)) * 1_000, () => this.#end(held)),
      leave,
    }
    owned.held.set(facts.key, held)
    this.#byHandle.set(handleHash, held)
    return held
  }

  /** Refused, not made: an older handle belongs to a request that may be under way. */
  #takePlace(owner: KeyOwner): () => void {
    const { perInstance } = this.#options
    const own = this.#owners.get(ownerKey(owner))?.held.size ?? 0
    if (own >= perInstance)
      throw new Fault('rate_limited', `this workload holds ${own} subject tokens, its limit`)
    return this.#shares.take(owner.spiffeId)
  }

  #ownedBy(owner: KeyOwner): Owned {
    const key = ownerKey(owner)
    const known = this.#owners.get(key)
    if (known) return known
    const { signal } = owner.instance
    const end = () => {
      for (const held of [...owned.held.values()]) this.#end(held)
    }
    const owned: Owned = {
      key,
      spiffeId: owner.spiffeId,
      held: new Map(),
      forget: () => signal.removeEventListener('abort', end),
    }
    signal.addEventListener('abort', end, { once: true })
    this.#owners.set(key, owned)
    return owned
  }

  #end({ owner, key, handleHash, cancel, ending, leave }: Held): void {
    cancel()
    leave()
    this.#byHandle.delete(handleHash)
    owner.held.delete(key)
    if (owner.held.size === 0) {
      owner.forget()
      this.#owners.delete(owner.key)
    }
    ending.abort(new Fault('subject_unknown'))
  }
}
