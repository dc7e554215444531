/** The port between what needs a token and what gets it from an authorization server. */
import type { Workload } from '../attest/workload.ts'
import type { Seconds } from '../base/clock.ts'
import type { Secret } from '../base/secret.ts'
import type { Entry } from '../policy/entry.ts'
import type { Server, Target } from '../policy/grant.ts'
import type { Jkt, Signer } from '../proof/signer.ts'
import type { Certificate } from './certificates.ts'
import type { Subject } from './subjects.ts'

/** For whom and for what a token is wanted. */
export interface TokenAsk {
  readonly workload: Workload
  readonly entry: Entry
  readonly target: Target
  readonly server: Server
  /** The key that the token is to be bound to. */
  readonly signer: Signer
  /** Absent: the workload's own token; else one that is exchanged for the subject's. */
  readonly subject?: Subject | undefined
  /** The certificate that the token is to be bound to instead (RFC 8705), over the key `signer` names. */
  readonly certificate?: Certificate | undefined
}

/** An access token that only its key makes useful. */
export interface BoundToken {
  readonly token: Secret<string>
  readonly jkt: Jkt
  /** Until when it is used, in seconds since 1970. */
  readonly expires: Seconds
  /** When it would end by itself, where policy lets it be used for a shorter time and has it revoked then. */
  readonly ends?: Seconds | undefined
}

/** Gets, keeps and drops tokens. */
export interface Tokens {
  /** The token, where it is at hand with life left. Throws as `get`. */
  held(ask: TokenAsk): BoundToken | undefined
  /** A token with life left; waits for one request at a time per key. Throws the issuer's and issued_* reasons. */
  get(ask: TokenAsk, signal: AbortSignal): Promise<BoundToken>
  /** Forgets matching tokens (and revokes them at the server where it can); absent members match all. */
  drop(filter: {
    readonly spiffeId?: string
    readonly instance?: string
    readonly jkt?: string
    readonly target?: string
    /** The hash of the subject's token; empty for the workload's own. */
    readonly subject?: string
  }): number
  stop(): void
}
