/**
 * The SVIDs of this node, made once and kept until a jittered half of their life: callers of one entry share them,
 * and an answer is serialised once.
 */
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type DeliveredKey, makeDeliveredKey } from '../keys/deliver.ts'
import type { Entry } from '../policy/entry.ts'
import type { Signer } from '../proof/signer.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Authority, IssuedToken } from './authority.ts'

/** A deliverable X.509-SVID; `key` belongs to the cache and must not be changed. */
export interface X509Svid {
  readonly spiffeId: SpiffeId
  readonly hint: string
  /** Leaf, then intermediates: concatenated DER. */
  readonly chain: Buffer
  /** PKCS#8 in DER; overwritten when the SVID is replaced and its readers have had it. */
  readonly key: Buffer
  readonly notAfter: Seconds
  readonly renewAt: Seconds
}

/** A deliverable WIT-SVID with its key. */
export interface WitSvid {
  readonly spiffeId: SpiffeId
  readonly hint: string
  readonly token: string
  readonly key: DeliveredKey
  readonly renewAt: Seconds
}

interface Token extends IssuedToken {
  readonly renewAt: Seconds
}

const TOKENS_LIMIT = 20_000

export interface SvidsOptions {
  readonly authority: Authority
  readonly clock: Clock
  readonly random?: () => number
}

/** Caches in front of an authority. */
export class Svids {
  readonly #authority: Authority
  readonly #clock: Clock
  readonly #random: () => number
  #x509 = new Map<Entry, X509Svid>()
  #wit = new Map<Entry, WitSvid>()
  #tokens = new Map<string, Token>()
  #held = new WeakMap<Signer, Map<string, Token>>()

  constructor(options: SvidsOptions) {
    this.#authority = options.authority
    this.#clock = options.clock
    this.#random = options.random ?? Math.random
  }

  /** The entry's X.509-SVID, the same one until it is due for renewal. */
  x509(entry: Entry): X509Svid {
    const known = this.#x509.get(entry)
    const now = nowSeconds(this.#clock)
    if (known && now < known.renewAt) return known
    const key = makeDeliveredKey()
    const { spiffeId, x509Ttl: ttl, dnsNames, hint } = entry
    const { chain, notAfter } = this.#authority.issueX509({ spiffeId, spki: key.spki, ttl, dnsNames })
    const renewAt = this.#renewAt(now, notAfter)
    const svid = { spiffeId, hint, chain: Buffer.concat(chain), key: key.pkcs8(), notAfter, renewAt }
    key.wipe()
    this.#x509.set(entry, svid)
    return svid
  }

  /** A JWT-SVID for these audiences, the same one until half its life has passed. */
  jwt(entry: Entry, audience: readonly string[]): string {
    const { spiffeId, jwtTtl: ttl } = entry
    const key = `${spiffeId}\0${ttl}\0${audience.join('\0')}`
    const now = nowSeconds(this.#clock)
    const known = this.#tokens.get(key)
    if (known && now < known.renewAt) return known.token
    const issued = this.#authority.issueJwt({ spiffeId, audience, ttl })
    if (this.#tokens.size >= TOKENS_LIMIT) this.#forgetTokens(now)
    this.#tokens.set(key, { ...issued, renewAt: this.#renewAt(now, issued.expires) })
    return issued.token
  }

  /** The WIT-SVID that the Workload API hands out, with a key of its own. */
  deliveredWit(entry: Entry): WitSvid {
    const known = this.#wit.get(entry)
    const now = nowSeconds(this.#clock)
    if (known && now < known.renewAt) return known
    const key = makeDeliveredKey()
    const { spiffeId, x509Ttl: ttl, hint } = entry
    const { token, expires } = this.#authority.issueWit({
      spiffeId,
      publicJwk: key.publicJwk,
      alg: 'ES256',
      ttl,
    })
    const svid = { spiffeId, hint, token, key, renewAt: this.#renewAt(now, expires) }
    known?.key.wipe()
    this.#wit.set(entry, svid)
    return svid
  }

  /** The WIT-SVID over a key that stays in the agent; it signs WPTs. */
  heldWit(entry: Entry, signer: Signer): string {
    const tokens = this.#held.get(signer) ?? new Map<string, Token>()
    this.#held.set(signer, tokens)
    const now = nowSeconds(this.#clock)
    const known = tokens.get(entry.spiffeId)
    if (known && now < known.renewAt) return known.token
    const { spiffeId, x509Ttl: ttl } = entry
    const issued = this.#authority.issueWit({ spiffeId, publicJwk: signer.publicJwk, alg: signer.alg, ttl })
    tokens.set(spiffeId, { ...issued, renewAt: this.#renewAt(now, issued.expires) })
    return issued.token
  }

  /** The entries whose delivered SVIDs are due; the rotator pushes them. */
  due(): readonly Entry[] {
    const now = nowSeconds(this.#clock)
    const isDue = ([, svid]: readonly [Entry, { readonly renewAt: Seconds }]) => now >= svid.renewAt
    return [
      ...new Set([...[...this.#x509].filter(isDue), ...[...this.#wit].filter(isDue)].map(([entry]) => entry)),
    ]
  }

  /** Drops what belongs to entries that are no longer there, and all tokens: audiences may have become reserved. */
  keepOnly(entries: ReadonlySet<Entry>): void {
    for (const [entry, svid] of this.#x509) {
      if (entries.has(entry)) continue
      svid.key.fill(0)
      this.#x509.delete(entry)
    }
    for (const [entry, svid] of this.#wit) {
      if (entries.has(entry)) continue
      svid.key.wipe()
      this.#wit.delete(entry)
    }
    this.#tokens.clear()
  }

  /** Between 45 and 55 % of the life, so that a node's SVIDs do not all renew in one second. */
  #renewAt(now: Seconds, expires: Seconds): Seconds {
    if (expires <= now)
      throw new Fault('authority_unavailable', 'the authority signed something that is already over')
    return now + Math.floor((expires - now) * (0.45 + 0.1 * this.#random()))
  }

  #forgetTokens(now: Seconds): void {
    for (const [key, token] of this.#tokens) if (now >= token.renewAt) this.#tokens.delete(key)
    if (this.#tokens.size >= TOKENS_LIMIT) this.#tokens.clear()
  }
}
