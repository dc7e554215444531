/** DPoP proofs of others, checked (RFC 9449 s.4.3): all that one proof says, against one request. */
import type { KeyObject } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { importPublicJwk, publicJwkOf, thumbprint } from '../spiffe/jwk.ts'
import { isFit, isJwsAlg, type Jws, type JwsAlg, parseJws, verifyJws } from '../spiffe/jws.ts'
import type { Jkt } from './signer.ts'
import { canonicalUrl } from './target.ts'

/** What a proof has to be about. */
export interface ExpectedProof {
  readonly method: string
  /** The canonical URLs that the request may have been sent to: the public origins of its route with its path. */
  readonly urls: readonly string[]
  /** The hash (`hashOf`) of the access token that came along; absent: there is none. */
  readonly ath: string | undefined
  readonly now: Seconds
  /** How old a proof may be. */
  readonly window: Seconds
  /** How far the clock of the sender may be ahead. */
  readonly skew: Seconds
  /** Algorithms that are taken. */
  readonly algs: ReadonlySet<JwsAlg>
  /** Whose proof it should be, which is for the caller to compare; keys of others are not kept. */
  readonly jkt?: string | undefined
}

/** A genuine proof of this request; whether it was used before is for the replay store to say. */
export interface CheckedProof {
  readonly jkt: Jkt
  readonly jti: string
  readonly iat: Seconds
  /** As sent: whether it is ours and fresh is for the nonces to say. */
  readonly nonce: string | undefined
}

const PROOF_LIMIT = 8 * 1024
const JTI_LIMIT = 256
const NONCE_FORM = /^[!#-[\]-~]{1,256}$/
const METHOD_FORM = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$/
// Senders repeat their header with every proof: importing its key and hashing it costs as much as a verification, and
// parsing it as much as all else of a known proof but its signature.
const HEADERS_LIMIT = 4_096
/** Longer ones are parsed each time: nobody needs them, and they would fill the memory. */
const HEADER_LIMIT = 2_048

interface ProofKey {
  readonly header: Jws['header']
  readonly key: KeyObject
  readonly alg: JwsAlg
  readonly jkt: Jkt
}

/** Checks proofs; keeps the keys of genuine ones. */
export class DpopChecker {
  readonly #keys = new Map<string, ProofKey>()

  /** Headers that are kept. */
  get count(): number {
    return this.#keys.size
  }

  /**
   * The facts of a proof of `expected`. Throws proof_malformed, proof_forged, proof_method, proof_url, proof_token,
   * proof_time; nothing of the proof is in a message.
   */
  check(proof: string, expected: ExpectedProof): CheckedProof {
    if (proof.length > PROOF_LIMIT) throw malformed('it is not a compact JWS')
    const head = proof.slice(0, Math.max(proof.indexOf('.'), 0))
    const known = this.#keys.get(head)
    const jws = parseJws(proof, PROOF_LIMIT, known?.header)
    if (!jws) throw malformed('it is not a compact JWS')
    const key = known && expected.algs.has(known.alg) ? known : keyOf(jws, expected.algs)
    const { jti, iat, nonce, htm, htu, ath } = claimsOf(jws)
    if (htm !== expected.method)
      throw new Fault(
        'proof_method',
        `the proof is for ${methodText(htm)}, the request is ${expected.method}`,
      )
    // What is one of these to the letter is canonical already.
    if (!expected.urls.includes(htu) && !expected.urls.includes(urlOf(htu))) throw new Fault('proof_url')
    checkToken(ath, expected.ath)
    checkTimes(jws, iat, expected)
    // Last, because it costs most: what is cheap to refuse is refused before (threats row 10).
    if (!verifyJws(jws, key.key, key.alg)) throw new Fault('proof_forged')
    if (key !== known) this.#keep(head, key, expected.jkt)
    return { jkt: key.jkt, jti, iat, nonce }
  }

  /** Only keys that have signed, and whose token came along: whoever makes up headers or keys evicts nobody. */
  #keep(head: string, key: ProofKey, wanted: string | undefined): void {
    if (head.length > HEADER_LIMIT || (wanted !== undefined && wanted !== key.jkt)) return
    const [oldest] = this.#keys.keys()
    if (this.#keys.size >= HEADERS_LIMIT && oldest !== undefined) this.#keys.delete(oldest)
    this.#keys.set(head, key)
  }
}

function keyOf({ header }: Jws, algs: ReadonlySet<JwsAlg>): ProofKey {
  const { typ, alg, jwk, crit } = header
  if (typ !== 'dpop+jwt') throw malformed('its typ is not dpop+jwt')
  if (crit !== undefined) throw malformed('its header names critical extensions')
  if (!isJwsAlg(alg) || !algs.has(alg)) throw malformed('its alg is none that is taken')
  if (typeof jwk !== 'object' || jwk === null || Array.isArray(jwk)) throw malformed('it has no jwk')
  const key = importPublicJwk(jwk as Readonly<Record<string, unknown>>)
  if (!key) throw malformed('its jwk is not a public key, or shows its private half')
  if (!isFit(key, alg)) throw malformed('its jwk is not a key of its alg')
  return { header, key, alg, jkt: thumbprint(publicJwkOf(key)) as Jkt }
}

interface Claims {
  readonly jti: string
  readonly iat: Seconds
  readonly htm: string
  readonly htu: string
  readonly ath: string | undefined
  readonly nonce: string | undefined
}

function claimsOf({ payload }: Jws): Claims {
  const { jti, iat, htm, htu, ath, nonce } = payload
  if (typeof jti !== 'string' || jti === '' || jti.length > JTI_LIMIT)
    throw malformed(`its jti is not a text of 1 to ${JTI_LIMIT} characters`)
  if (typeof iat !== 'number' || !Number.isFinite(iat)) throw malformed('its iat is not a date')
  if (typeof htm !== 'string') throw malformed('its htm is not a text')
  if (typeof htu !== 'string') throw malformed('its htu is not a text')
  if (ath !== undefined && typeof ath !== 'string') throw malformed('its ath is not a text')
  if (nonce !== undefined && (typeof nonce !== 'string' || !NONCE_FORM.test(nonce)))
    throw malformed('its nonce is not one')
  return { jti, iat, htm, htu, ath, nonce }
}

/** RFC 9449 s.4.3 check 9: without query and fragment, after normalisation. One that is not canonical matches nothing. */
function urlOf(htu: string): string {
  const end = htu.search(/[?#]/)
  try {
    return canonicalUrl(end < 0 ? htu : htu.slice(0, end)).htu
  } catch {
    throw new Fault('proof_url', 'the htu of the proof is not a canonical URL')
  }
}

/** The sender knows both hashes: there is nothing to learn from how long the comparison takes. */
function checkToken(ath: string | undefined, wanted: string | undefined): void {
  if (wanted === undefined) return
  if (ath === undefined) throw new Fault('proof_token', 'the proof has no ath, and a token came along')
  if (ath !== wanted) throw new Fault('proof_token')
}

function checkTimes({ payload }: Jws, iat: Seconds, { now, window, skew }: ExpectedProof): void {
  if (iat > now + skew) throw new Fault('proof_time', `the proof is from ${Math.ceil(iat - now)} s ahead`)
  if (iat <= now - window - skew)
    throw new Fault('proof_time', `the proof is ${Math.floor(now - iat)} s old, over ${window} s`)
  const { nbf, exp } = payload
  if (nbf !== undefined && !(typeof nbf === 'number' && nbf <= now + skew))
    throw new Fault('proof_time', 'the proof is not good yet')
  if (exp !== undefined && !(typeof exp === 'number' && exp > now - skew))
    throw new Fault('proof_time', 'the proof has expired')
}

function methodText(htm: string): string {
  return METHOD_FORM.test(htm) ? htm : 'another method'
}

function malformed(what: string): Fault {
  return new Fault('proof_malformed', `the proof is not one: ${what}`)
}
