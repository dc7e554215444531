/** DPoP proofs (RFC 9449 s.4.2): built from checked parts and signed; never from bytes a caller composed. */
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { makeProof, newJti } from './jwt.ts'
import type { Signer } from './signer.ts'

/** What one proof covers. `ath` is base64url SHA-256 of the access token. */
export interface DpopClaims {
  readonly htm: string
  readonly htu: string
  readonly ath?: string | undefined
  readonly nonce?: string | undefined
}

export interface DpopProof {
  readonly proof: string
  readonly jti: string
  readonly iat: Seconds
}

/** A fresh proof; throws key_lost when the signer's key is gone. */
export function makeDpop(signer: Signer, claims: DpopClaims, clock: Clock): DpopProof {
  const jti = newJti()
  const iat = nowSeconds(clock)
  // JSON.stringify leaves out undefined members.
  const payload = JSON.stringify({
    jti,
    htm: claims.htm,
    htu: claims.htu,
    iat,
    ath: claims.ath,
    nonce: claims.nonce,
  })
  return { proof: makeProof('dpop+jwt', signer, payload), jti, iat }
}
