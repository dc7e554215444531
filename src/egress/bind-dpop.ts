/** The DPoP proof of one request (RFC 9449 s.4), with the newest nonce of its target. */
import type { Seconds } from '../base/clock.ts'
import { makeDpop } from '../proof/dpop.ts'
import type { Signer } from '../proof/signer.ts'
import type { BindAsk, BindOptions, Carried, Part } from './bound.ts'

const PROOF_LIFE: Seconds = 60

/** Each try has a proof of its own (RFC 9449 s.7.3). Throws key_lost. */
export function bindDpop(options: BindOptions, ask: BindAsk, signer: Signer, { ath }: Carried): Part {
  const { clock, nonces } = options
  const { method, url } = ask
  const nonce = nonces.of(signer.jkt, url.origin)
  const { proof, jti, iat } = makeDpop(signer, { htm: method, htu: url.htu, ath, nonce }, clock)
  return { headers: [['DPoP', proof]], expires: iat + PROOF_LIFE, jkt: signer.jkt, jti }
}
