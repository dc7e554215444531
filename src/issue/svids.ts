/**
 * The SVIDs of this node, made once and kept until a jittered half of their life: callers of one identity share them,
 * and a reload of policy that does not touch an identity does not touch its SVIDs.
 */
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type DeliveredKey, makeDeliveredKey } from '../keys/deliver.ts'
import type { Entry } from '../policy/entry.ts'
import type { Signer } from '../proof/signer.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Authority, IssuedToken } from './authority.ts'

/** What is kept for callers to share: renewed from `renewAt` on, given until `expires` (seconds since 1970). */
interface Kept {
  readonly renewAt: Seconds
  readonly expires: Seconds
}

/** A deliverable X.509-SVID; `key` belongs to the cache and must not be changed. */
export interface X509Svid extends Kept {
  readonly spiffeId: SpiffeId
  /** Leaf, then intermediates: concatenated DER. */
  readonly chain: Buffer
  /** The same, each by itself. */
  readonly certificates: readonly Buffer[]
  /** PKCS#8 in DER; overwritten a while after the SVID was replaced. */
  readonly key: Buffer
  /** What signed it. */
  readonly ca: ReturnType<Authority['caLife']>
}

/** A deliverable WIT-SVID with its key. */
export interface WitSvid extends Kept {
  readonly spiffeId: SpiffeId
  readonly token: string
  readonly key: DeliveredKey
}

interface Token extends Kept {
  readonly token: string
}

const TOKENS_LIMIT = 20_000
// A message on its way may still hold the replaced key's buffer.
const WIPE_AFTER_MS = 60_000

export interface SvidsOptions {
  readonly authority: Authority
  readonly clock: Clock
  readonly random?: () => number
  /** Hears of each SVID that the authority signed. */
  readonly onIssued?: (kind: 'x509' | 'jwt' | 'wit') => void
}

/** Caches in front of an authority. */
export class Svids {
  readonly #authority: Authority
  readonly #clock: Clock
  readonly #random: () => number
  readonly #onIssued: (kind: 'x509' | 'jwt' | 'wit') => void
  readonly #x509 = new Map<string, X509Svid>()
  readonly #wit = new Map<string, WitSvid>()
  readonly #tokens = new Map<string, Token>()
  readonly #held = new WeakMap<Signer, Map<string, Token>>()

  constructor(options: SvidsOptions) {
    this.#authority = options.authority
    this.#clock = options.clock
    this.#random = options.random ?? Math.random
    this.#onIssued = options.onIssued ?? (() => {})
  }

  /**
   * The entry's X.509-SVID, the same one until it is due for renewal or another CA signs. A new CA is no reason to tell open
   * streams, which would all be renewed in one second: they have the new one with their next message.
   */
  x509(entry: Entry): X509Svid {
    const key = keyOf(entry)
    const known = this.#x509.get(key)
    const isCurrent = known?.ca === this.#authority.caLife()
    const svid = this.#fresh(known, (now) => this.#makeX509(entry, now), isCurrent)
    if (svid === known) return svid
    this.#x509.set(key, svid)
    if (known) this.#wipeLater(() => known.key.fill(0))
    return svid
  }

  /** A JWT-SVID for these audiences, the same one until half its life has passed. */
  jwt(entry: Entry, audience: readonly string[]): string {
    const { spiffeId, jwtTtl: ttl } = entry
    const key = JSON.stringify([spiffeId, ttl, ...audience])
    const known = this.#tokens.get(key)
    const token = this.#fresh(known, (now) =>
      this.#keep('jwt', now, this.#authority.issueJwt({ spiffeId, audience, ttl })),
    )
    if (token !== known) {
      if (this.#tokens.size >= TOKENS_LIMIT) this.#forgetTokens()
      this.#tokens.set(key, token)
    }
    return token.token
  }

  /** The WIT-SVID that the Workload API hands out, with a key of its own. */
  deliveredWit(entry: Entry): WitSvid {
    const id = keyOf(entry)
    const known = this.#wit.get(id)
    const svid = this.#fresh(known, (now) => this.#makeWit(entry, now))
    if (svid === known) return svid
    known?.key.wipe()
    this.#wit.set(id, svid)
    return svid
  }

  /** The WIT-SVID over a key that stays in the agent; it signs WPTs. */
  heldWit(entry: Entry, signer: Signer): string {
    const tokens = this.#held.get(signer) ?? new Map<string, Token>()
    this.#held.set(signer, tokens)
    const { spiffeId, x509Ttl: ttl } = entry
    const ask = { spiffeId, publicJwk: signer.publicJwk, alg: signer.alg, ttl }
    const token = this.#fresh(tokens.get(spiffeId), (now) =>
      this.#keep('wit', now, this.#authority.issueWit(ask)),
    )
    tokens.set(spiffeId, token)
    return token.token
  }

  /** Whether a delivered SVID is due for renewal. */
  get isDue(): boolean {
    const now = nowSeconds(this.#clock)
    for (const svid of this.#x509.values()) if (now >= svid.renewAt) return true
    for (const svid of this.#wit.values()) if (now >= svid.renewAt) return true
    return false
  }

  /** When the identity's X.509-SVID expires, if one was made. */
  expiryOf(entry: Entry): Seconds | undefined {
    return this.#x509.get(keyOf(entry))?.expires
  }

  /** Drops what belongs to entries that are no longer there, and all tokens: audiences may have become reserved. */
  keepOnly(entries: readonly Entry[]): void {
    const wanted = new Set(entries.map(keyOf))
    for (const [key, svid] of this.#x509) {
      if (wanted.has(key)) continue
      this.#wipeLater(() => svid.key.fill(0))
      this.#x509.delete(key)
    }
    for (const [key, svid] of this.#wit) {
      if (wanted.has(key)) continue
      svid.key.wipe()
      this.#wit.delete(key)
    }
    this.#tokens.clear()
  }

  /** `known` until it is due; afterwards a new one, or, while the authority cannot sign, the last one until it ends. */
  #fresh<T extends Kept>(known: T | undefined, make: (now: Seconds) => T, isCurrent = true): T {
    const now = nowSeconds(this.#clock)
    if (known && isCurrent && now < known.renewAt) return known
    try {
      return make(now)
    } catch (error) {
      if (known && now < known.expires) return known
      throw error
    }
  }

  #makeX509(entry: Entry, now: Seconds): X509Svid {
    const key = makeDeliveredKey()
    const { spiffeId, x509Ttl: ttl, dnsNames } = entry
    const ca = this.#authority.caLife()
    const { chain, notAfter } = this.#authority.issueX509({ spiffeId, spki: key.spki, ttl, dnsNames })
    this.#onIssued('x509')
    const renewAt = this.#renewAt(now, notAfter)
    const made = { chain: Buffer.concat(chain), certificates: chain, key: key.pkcs8(), ca }
    const svid = { spiffeId, ...made, expires: notAfter, renewAt }
    key.wipe()
    return svid
  }

  #makeWit(entry: Entry, now: Seconds): WitSvid {
    const key = makeDeliveredKey()
    const { spiffeId, x509Ttl: ttl } = entry
    const ask = { spiffeId, publicJwk: key.publicJwk, alg: 'ES256', ttl } as const
    return { ...this.#keep('wit', now, this.#authority.issueWit(ask)), spiffeId, key }
  }

  #keep(kind: 'jwt' | 'wit', now: Seconds, issued: IssuedToken): Token {
    this.#onIssued(kind)
    return { ...issued, renewAt: this.#renewAt(now, issued.expires) }
  }

  #wipeLater(wipe: () => void): void {
    this.#clock.after(WIPE_AFTER_MS, wipe)
  }

  /** Between 45 and 55 % of the life, so that a node's SVIDs do not all renew in one second. */
  #renewAt(now: Seconds, expires: Seconds): Seconds {
    if (expires <= now)
      throw new Fault('authority_unavailable', 'the authority signed something that is already over')
    return now + Math.floor((expires - now) * (0.45 + 0.1 * this.#random()))
  }

  #forgetTokens(): void {
    const now = nowSeconds(this.#clock)
    for (const [key, token] of this.#tokens) if (now >= token.renewAt) this.#tokens.delete(key)
    if (this.#tokens.size >= TOKENS_LIMIT) this.#tokens.clear()
  }
}

const keys = new WeakMap<Entry, string>()

/** What makes two entries share an SVID, across reloads. */
function keyOf(entry: Entry): string {
  const known = keys.get(entry)
  if (known !== undefined) return known
  const key = JSON.stringify([entry.spiffeId, entry.x509Ttl, ...entry.dnsNames])
  keys.set(entry, key)
  return key
}
