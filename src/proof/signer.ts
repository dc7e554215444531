/** What a proof needs of a key: its public half and a signature. The vault implements it; keys never come here. */

import type { PublicJwk } from '../spiffe/jwk.ts'

export type { PublicJwk } from '../spiffe/jwk.ts'

declare const brand: unique symbol
/** An RFC 7638 SHA-256 thumbprint in base64url: the `jkt` of a binding. */
export type Jkt = string & { readonly [brand]: 'Jkt' }

/** JWS algorithms that SPIFFE and DPoP both know. */
export type Alg = 'ES256' | 'ES384' | 'RS256' | 'PS256'

/** A held key that signs JWS signing input; valid until its owner's lease ends, then `sign` throws key_lost. */
export interface Signer {
  readonly alg: Alg
  readonly publicJwk: PublicJwk
  readonly jkt: Jkt
  /** The JWS signature of `input` (r||s for EC, RFC 7518 s.3.4). */
  sign(input: Uint8Array): Buffer
}
