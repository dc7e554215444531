/** Workload Proof Tokens (draft-ietf-wimse-wpt-02): proof that the sender holds the key of its WIT. */
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { hashOf, makeProof, newJti } from './jwt.ts'
import type { Signer } from './signer.ts'

/** What one WPT covers: the target URI, the WIT and, if they are sent, the access and transaction tokens. */
export interface WptClaims {
  readonly aud: string
  readonly wit: string
  readonly ath?: string | undefined
  readonly tth?: string | undefined
}

export interface WptProof {
  readonly proof: string
  readonly jti: string
  readonly exp: Seconds
}

/** Long enough for clocks that differ a little, short enough to be worth nothing in a log. */
const LIFETIME: Seconds = 60

/** A fresh proof; throws key_lost when the signer's key is gone. */
export function makeWpt(signer: Signer, claims: WptClaims, clock: Clock): WptProof {
  const jti = newJti()
  const exp = nowSeconds(clock) + LIFETIME
  const payload = JSON.stringify({
    aud: claims.aud,
    exp,
    jti,
    wth: hashOf(claims.wit),
    ath: claims.ath,
    tth: claims.tth,
  })
  return { proof: makeProof('wpt+jwt', signer, payload), jti, exp }
}
