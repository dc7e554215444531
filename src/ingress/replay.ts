/** The port to what remembers proofs: each is good once at each hop (RFC 9449 s.11.1). */
import type { Seconds } from '../base/clock.ts'

/** A genuine proof, about to be used up. */
export interface ProofUse {
  /** One hop, shared by its replicas and by no other hop: each hop sees the same proof once. */
  readonly scope: string
  readonly jkt: string
  readonly jti: string
  /** Whose share of the memory it takes. */
  readonly subject: string
  /** When the proof was made: its `iat`, or when its nonce was given, which is part of it either way. */
  readonly made: Seconds
  /** Whether it carries a nonce of this epoch, so that it cannot be older than the memory. */
  readonly hasNonce: boolean
}

/**
 * What became of it: `fresh` once and never again; `replayed`; `floor` when it is older than the memory and nothing
 * shows that it was not used before; `share` when its subject holds all it may.
 */
export type Use = 'fresh' | 'replayed' | 'floor' | 'share'

/** Uses proofs up. An unforgeable check has to come before: only genuine proofs may cost memory. */
export interface ReplayStore {
  /** Throws replay_unavailable. */
  use(proof: ProofUse): Use | Promise<Use>
  stop(): void
}
