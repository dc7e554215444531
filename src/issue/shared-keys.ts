/**
 * Signing keys that several nodes share, from a mounted private JWK Set (RFC 7517 s.5): the first key of a kind signs, all
 * are published. A first key that is new here does not sign before every node has had time to publish it.
 */
import { createPrivateKey } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import { readTrusted } from '../base/trusted.ts'
import { type HeldKey, holdKey } from '../keys/signer.ts'
import type { Alg } from '../proof/signer.ts'
import type { KeyAuthority } from '../spiffe/bundle.ts'
import type { Slot } from './rotation.ts'

/** A key that signs tokens. */
export interface TokenKey extends KeyAuthority {
  readonly kid: string
  readonly held: HeldKey
}

/** The keys of a set by what they sign, in its order. */
export interface SharedKeySet {
  readonly jwt: readonly TokenKey[]
  readonly wit: readonly TokenKey[]
}

const FILE_LIMIT = 256 * 1024
const KEYS_LIMIT = 16
/** Nothing here knows when such a key ends: its owner takes it out of the set. */
const NEVER: Seconds = Number.MAX_SAFE_INTEGER
const KID = /^[A-Za-z0-9._~-]{1,128}$/
const CURVES: Readonly<Record<string, Alg>> = { 'P-256': 'ES256', 'P-384': 'ES384' }

/** The keys in `file`; throws config_invalid, or policy_writable when others can read or change it. */
export function readSharedKeys(file: string, wantsWit: boolean): SharedKeySet {
  const bytes = readTrusted(file, { maxBytes: FILE_LIMIT, secret: true })
  let keys: unknown
  try {
    keys = (JSON.parse(bytes.toString('utf8')) as { readonly keys?: unknown } | null)?.keys
  } catch {
    // What a parser says quotes the file.
  } finally {
    bytes.fill(0)
  }
  if (!Array.isArray(keys) || keys.length > KEYS_LIMIT)
    throw refused(file, `no JWK Set of at most ${KEYS_LIMIT} keys`)
  const read = keys.map((jwk) => readKey(file, jwk as Readonly<Record<string, unknown>> | null))
  const of = (use: string) => read.filter((each) => each.use === use).map(({ key }) => key)
  const [jwt, wit] = [of('jwt-svid'), of('wit-svid')]
  if (new Set(read.map(({ key }) => key.kid)).size !== read.length)
    throw refused(file, 'two keys have one kid')
  if (new Set(read.map(({ key }) => key.held.jkt)).size !== read.length)
    throw refused(file, 'one key is there twice: a key has one purpose')
  if (jwt.length === 0) throw refused(file, 'no key with use jwt-svid')
  if (wantsWit && wit.length === 0) throw refused(file, 'no key with use wit-svid, and wit is on')
  return { jwt, wit }
}

function readKey(
  file: string,
  jwk: Readonly<Record<string, unknown>> | null,
): { readonly use: unknown; readonly key: TokenKey } {
  const { kid, use, kty, crv } = jwk ?? {}
  if (typeof kid !== 'string' || !KID.test(kid)) throw refused(file, 'a key without a kid')
  if (use !== 'jwt-svid' && use !== 'wit-svid') throw refused(file, `${kid}: wanted use jwt-svid or wit-svid`)
  const alg = kty === 'RSA' ? 'RS256' : CURVES[String(crv)]
  if (!alg || !jwk) throw refused(file, `${kid}: wanted P-256, P-384 or RSA`)
  let held: HeldKey
  try {
    held = holdKey(createPrivateKey({ key: jwk, format: 'jwk' }), alg)
  } catch {
    throw refused(file, `${kid}: no private key`)
  }
  return { use, key: { kid, held, key: held.publicKey, jwk: held.publicJwk } }
}

function refused(file: string, what: string): Fault {
  return new Fault('config_invalid', `authority.jwt_keys_file: ${file}: ${what}`)
}

/** The keys of one kind, as rotations of an authority's own keys look. */
export class SharedKeys {
  readonly #lead: Seconds
  readonly #since = new Map<string, Seconds>()
  #keys: readonly TokenKey[] = []
  #signing: TokenKey | undefined
  #isChanged = false

  constructor(set: Live<SharedKeySet>, kind: 'jwt' | 'wit', lead: Seconds) {
    this.#lead = lead
    this.#take(set.get()[kind])
    set.watch((next) => this.#take(next[kind]))
    for (const { kid } of this.#keys) this.#since.set(kid, Number.NEGATIVE_INFINITY)
    this.#signing = this.#keys[0]
  }

  get signing(): Slot<TokenKey> {
    const key = this.#signing
    if (!key) throw new Fault('authority_unavailable', 'the shared key set has no key for this kind of token')
    return { key, published: 0, ends: NEVER }
  }

  get published(): readonly Slot<TokenKey>[] {
    return this.#keys.map((key) => ({ key, published: 0, ends: NEVER }))
  }

  /** Brings the keys to `now`; whether what is published changed. */
  advance(now: Seconds): boolean {
    for (const { kid } of this.#keys) if (!this.#since.has(kid)) this.#since.set(kid, now)
    const isKnown = ({ kid }: TokenKey) => now >= (this.#since.get(kid) ?? now) + this.#lead
    // Where the old keys are gone, a new one that nobody knows yet is better than none.
    this.#signing = this.#keys.find(isKnown) ?? this.#keys[0]
    const isChanged = this.#isChanged
    this.#isChanged = false
    return isChanged
  }

  #take(keys: readonly TokenKey[]): void {
    const kids = new Set(keys.map(({ kid }) => kid))
    for (const kid of this.#since.keys()) if (!kids.has(kid)) this.#since.delete(kid)
    this.#keys = keys
    this.#isChanged = true
    // A key that was taken out signs no more, at once.
    if (!this.#signing || !kids.has(this.#signing.kid)) this.#signing = keys[0]
  }
}
