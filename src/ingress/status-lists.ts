/**
 * Whether tokens still hold, by the status lists they name (draft-ietf-oauth-status-list): each list is fetched once for
 * all who wait, kept as long as its ttl and the settings let it, and used on for a while when it cannot be had.
 */
import { type Clock, type Millis, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { membersOf } from '../base/members.ts'
import type { Server } from '../policy/grant.ts'
import type { RouteIdentity } from '../policy/route.ts'
import type { Claims, Statuses, TokenKeys } from './access-token.ts'
import { readStatusToken, type StatusList, statusAt } from './status-token.ts'

export interface StatusListsOptions {
  readonly clock: Clock
  /** The list at `uri` as text; bounded in time and size. Throws issuer_unavailable. */
  readonly fetch: (server: Server, uri: string) => Promise<string>
  readonly keys: TokenKeys
  /** How long a list is used before it is asked for again, whatever its ttl says. */
  readonly maxAge: Seconds
  /** How much longer while it cannot be had. */
  readonly stale: Seconds
  readonly skew: Seconds
}

interface Kept {
  readonly list: StatusList
  /** Monotonic. */
  readonly freshUntil: Millis
  readonly usableUntil: Millis
}

interface Reference {
  readonly uri: string
  readonly index: number
}

const MILLIS = 1000
/** A list that cannot be had is asked for again after this; one that wants it more often is not. */
const AGAIN: Millis = 1_000
const LISTS_LIMIT = 256
const TOTAL_BYTES = 64 * 1024 * 1024
const URI_LIMIT = 2048

/** The lists of all issuers. */
export class StatusLists implements Statuses {
  readonly #options: StatusListsOptions
  /** The least recently used first. */
  readonly #kept = new Map<string, Kept>()
  readonly #tried = new Map<string, Millis>()
  readonly #pending = new Map<string, Promise<void>>()

  constructor(options: StatusListsOptions) {
    this.#options = options
  }

  check(server: Server, claims: Claims, rule: RouteIdentity['status']): void | Promise<void> {
    const reference = referenceIn(claims, server, rule)
    if (!reference) return
    const key = `${server.issuer} ${reference.uri}`
    const now = this.#options.clock.monotonic()
    const kept = this.#kept.get(key)
    if (kept && this.#isUsable(kept, now) && (now < kept.freshUntil || this.#wasTried(key, now)))
      return this.#judge(key, kept, reference.index)
    if (!this.#pending.has(key) && this.#wasTried(key, now)) throw new Fault('status_unavailable')
    return this.#refresh(key, server, reference.uri).then(() => {
      const found = this.#kept.get(key)
      if (!found || !this.#isUsable(found, this.#options.clock.monotonic()))
        throw new Fault('status_unavailable')
      this.#judge(key, found, reference.index)
    })
  }

  clear(): void {
    this.#kept.clear()
    this.#tried.clear()
  }

  #wasTried(key: string, now: Millis): boolean {
    return now - (this.#tried.get(key) ?? Number.NEGATIVE_INFINITY) < AGAIN && !this.#pending.has(key)
  }

  #isUsable({ list, usableUntil }: Kept, now: Millis): boolean {
    const { clock, skew } = this.#options
    const hasEnded = list.expires !== undefined && list.expires <= nowSeconds(clock) - skew
    return now < usableUntil && !hasEnded
  }

  #judge(key: string, kept: Kept, index: number): void {
    this.#kept.delete(key)
    this.#kept.set(key, kept)
    const status = statusAt(kept.list, index)
    if (status === undefined) throw refused('names a place beyond the end of its status list')
    if (status !== 0)
      throw new Fault('token_revoked', `the status list of its issuer says ${status}: it holds no more`)
  }

  #refresh(key: string, server: Server, uri: string): Promise<void> {
    const pending = this.#pending.get(key)
    if (pending) return pending
    if (this.#tried.size >= LISTS_LIMIT) this.#tried.clear()
    this.#tried.set(key, this.#options.clock.monotonic())
    const refreshing = this.#fetch(key, server, uri).finally(() => this.#pending.delete(key))
    this.#pending.set(key, refreshing)
    return refreshing
  }

  /** The last good list stays while there is no better one; one that is older than it is none. */
  async #fetch(key: string, server: Server, uri: string): Promise<void> {
    const { clock, fetch, keys, maxAge, skew, stale } = this.#options
    try {
      const text = await fetch(server, uri)
      const find = (kid: string) => keys.find(server, kid)
      const check = { uri, issuer: server.issuer, now: nowSeconds(clock), skew, find }
      const list = await readStatusToken(text, check)
      if (list.issuedAt < (this.#kept.get(key)?.list.issuedAt ?? 0)) return
      const freshUntil = clock.monotonic() + Math.min(list.ttl ?? maxAge, maxAge) * MILLIS
      this.#keep(key, { list, freshUntil, usableUntil: freshUntil + stale * MILLIS })
    } catch (error) {
      if (!(error instanceof Fault)) throw error
    }
  }

  #keep(key: string, kept: Kept): void {
    this.#kept.delete(key)
    this.#kept.set(key, kept)
    let bytes = 0
    for (const { list } of this.#kept.values()) bytes += list.bytes.length
    for (const [oldest, { list }] of this.#kept) {
      if (oldest === key || (bytes <= TOTAL_BYTES && this.#kept.size <= LISTS_LIMIT)) return
      this.#kept.delete(oldest)
      bytes -= list.bytes.length
    }
  }
}

/** Where the status of a token is; undefined for one that names none and needs none. Throws token_status. */
function referenceIn(claims: Claims, server: Server, rule: RouteIdentity['status']): Reference | undefined {
  const { status_list: list } = membersOf(claims['status'])
  if (list === undefined) {
    if (rule === 'required') throw refused('names no status list, and the route wants one')
    return undefined
  }
  const { idx: index, uri } = membersOf(list)
  if (typeof index !== 'number' || !Number.isSafeInteger(index) || index < 0)
    throw refused('names no place in its status list')
  if (typeof uri !== 'string' || uri.length > URI_LIMIT || !URL.canParse(uri))
    throw refused('names its status list by no URL')
  const { hash, origin, password, username } = new URL(uri)
  if (hash !== '' || username !== '' || password !== '' || !server.statusLists?.includes(origin))
    throw refused('names a status list at an origin that policy does not list for its issuer')
  return { uri, index }
}

function refused(what: string): Fault {
  return new Fault('token_status', `the token ${what}`)
}
