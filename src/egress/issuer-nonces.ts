/**
 * Nonces of authorization servers, one an endpoint, the newest (RFC 9449 s.8). Where a client attests itself in the
 * combined mode of draft-ietf-oauth-attestation-based-client-auth, a challenge is the nonce of the DPoP proof.
 */
import type { Server } from '../policy/grant.ts'
import { nonceIn } from './challenge.ts'
import { errorOf } from './issuer-error.ts'
import { type IssuerAnswer, unavailable } from './issuer-http.ts'

const ENDPOINTS_LIMIT = 256
const CHALLENGE = 'oauth-client-attestation-challenge'

/** Keeps them. */
export class IssuerNonces {
  readonly #nonces = new Map<string, string>()

  /** What the next proof for `endpoint` has to hold. */
  of(endpoint: string): string | undefined {
    return this.#nonces.get(endpoint)
  }

  /** Takes the nonce of an answer, whatever its status (RFC 9449 s.8.2). */
  learn(endpoint: string, server: Server, { raw }: IssuerAnswer): void {
    const challenge = isAttested(server) ? nonceIn(raw, CHALLENGE) : undefined
    const nonce = challenge ?? nonceIn(raw)
    if (nonce === undefined) return
    if (this.#nonces.size >= ENDPOINTS_LIMIT) this.#nonces.clear()
    this.#nonces.set(endpoint, nonce)
  }

  /**
   * Whether the answer asks for the same request with a nonce or challenge that it gives. Throws issuer_unavailable
   * when it gives none that can be used.
   */
  isAskedFor(server: Server, answer: IssuerAnswer): boolean {
    const { status, raw } = answer
    if (status !== 400 && status !== 401) return false
    const error = errorOf(answer)
    if (error === 'use_dpop_nonce' && status === 400) return given(nonceIn(raw), 'a nonce')
    if (error !== 'use_attestation_challenge' || !isAttested(server)) return false
    return given(nonceIn(raw, CHALLENGE), 'an attestation challenge')
  }
}

/** Whether the client shows a WIT-SVID over the key of its proofs. */
export function isAttested({ client }: Server): boolean {
  return client?.method === 'attest_jwt_client_auth_dpop'
}

function given(value: string | undefined, what: string): true {
  if (value === undefined) throw unavailable(`wants ${what} and gives none that can be used`)
  return true
}
