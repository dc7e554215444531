/** WPTs of others, checked (draft-ietf-wimse-wpt-02 s.2.2): the proof of a WIT's key, against one request. */
import type { KeyObject } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { isJwsAlg, type JwsAlg, parseJws, verifyJws } from '../spiffe/jws.ts'
import { canonicalUrl } from './target.ts'

/** What a WPT has to be about. Hashes are `hashOf` of what came along; absent: it did not. */
export interface ExpectedWpt {
  readonly key: KeyObject
  /** What the WIT says its key signs with; exactly it. */
  readonly alg: JwsAlg
  readonly urls: readonly string[]
  readonly wth: string
  readonly ath: string | undefined
  readonly tth: string | undefined
  readonly now: Seconds
  /** How long a proof may have left to live. */
  readonly window: Seconds
  readonly skew: Seconds
}

/** A genuine WPT of this request. */
export interface CheckedWpt {
  readonly jti: string
  readonly exp: Seconds
}

const PROOF_LIMIT = 8 * 1024
const JTI_LIMIT = 256

/** Throws proof_malformed, proof_forged, proof_url, proof_token, proof_time. */
export function checkWpt(proof: string, expected: ExpectedWpt): CheckedWpt {
  const jws = proof.length > PROOF_LIMIT ? undefined : parseJws(proof)
  if (!jws) throw malformed('it is not a compact JWS')
  const { typ, alg, crit } = jws.header
  if (typ !== 'wpt+jwt' || crit !== undefined) throw malformed('its header is not that of a WPT')
  if (!isJwsAlg(alg) || alg !== expected.alg) throw malformed('its alg is not the one of its WIT')
  const { aud, exp, jti, wth, ath, tth, oth } = jws.payload
  if (typeof jti !== 'string' || jti === '' || jti.length > JTI_LIMIT) throw malformed('it has no usable jti')
  // Other tokens are none that this verifier knows: a hash of one cannot be checked (s.2.2).
  if (oth !== undefined) throw malformed('it names other tokens')
  if (typeof aud !== 'string' || !expected.urls.includes(urlOf(aud))) throw new Fault('proof_url')
  if (wth !== expected.wth) throw new Fault('proof_token', 'the proof is for another WIT')
  if (ath !== expected.ath) throw new Fault('proof_token', 'the proof does not cover the access token')
  if (tth !== expected.tth) throw new Fault('proof_token', 'the proof does not cover the transaction token')
  checkEnd(exp, expected)
  if (!verifyJws(jws, expected.key, alg)) throw new Fault('proof_forged')
  return { jti, exp: Number(exp) }
}

/** A WPT has no `iat`: how far its end may lie ahead is what bounds it. */
function checkEnd(exp: unknown, { now, window, skew }: ExpectedWpt): void {
  if (typeof exp !== 'number' || !Number.isFinite(exp)) throw malformed('its exp is not a date')
  if (exp <= now - skew) throw new Fault('proof_time', `the proof ended ${Math.ceil(now - exp)} s ago`)
  if (exp > now + window + skew)
    throw new Fault('proof_time', `the proof lives ${Math.ceil(exp - now)} s more, over ${window} s`)
}

function urlOf(aud: string): string {
  try {
    return canonicalUrl(aud).htu
  } catch {
    throw new Fault('proof_url', 'the aud of the proof is not a canonical URL')
  }
}

function malformed(what: string): Fault {
  return new Fault('proof_malformed', `the proof is not one: ${what}`)
}
