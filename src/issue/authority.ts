/** The port to what signs SVIDs: the embedded authority today, an unmodified SPIRE server for a fleet. */
import type { Seconds } from '../base/clock.ts'
import type { Live } from '../base/live.ts'
import type { Alg, PublicJwk } from '../proof/signer.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import type { SpiffeId } from '../spiffe/id.ts'

/** What an X.509-SVID is asked for; `spki` is the subject's public key in DER. */
export interface X509Ask {
  readonly spiffeId: SpiffeId
  readonly spki: Buffer
  readonly ttl: Seconds
  readonly dnsNames: readonly string[]
}

/** An X.509-SVID without its key: leaf first, then intermediates, each in DER. */
export interface IssuedX509 {
  readonly chain: readonly Buffer[]
  readonly notBefore: Seconds
  readonly notAfter: Seconds
}

/** A signed token and its `exp`. */
export interface IssuedToken {
  readonly token: string
  readonly expires: Seconds
}

/** Signs what it is asked for: who may have it has been decided before. Throws authority_unavailable. */
export interface Authority {
  /** The trust domain's bundle; a key is in it before it signs and until nothing that it signed is valid. */
  readonly bundle: Live<Bundle>
  /** The life of the CA that signs X.509-SVIDs now; none that it signs is valid after it. One object for each CA. */
  caLife(): { readonly notBefore: Seconds; readonly notAfter: Seconds }
  issueX509(ask: X509Ask): IssuedX509
  issueJwt(ask: {
    readonly spiffeId: SpiffeId
    readonly audience: readonly string[]
    readonly ttl: Seconds
  }): IssuedToken
  issueWit(ask: {
    readonly spiffeId: SpiffeId
    readonly publicJwk: PublicJwk
    readonly alg: Alg
    readonly ttl: Seconds
  }): IssuedToken
  stop(): void
}
