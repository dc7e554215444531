/** The tokens that the lab plays with, and where they are from. Each is bound to a key of the lab. */

import type { Seconds } from '../base/clock.ts'
import { isJwsAlg, parseJws } from '../spiffe/jws.ts'
import type { LabKey } from './key.ts'

/** A token with the key it is bound to. The text goes into requests to the probed hosts and nowhere else. */
export interface Credential {
  readonly token: string
  readonly key: LabKey
}

/** Says why a kind of token is not to be had here. */
export interface Missing {
  readonly why: string
}

export interface Wallet {
  readonly bound: Credential
  /** One that has ended. */
  readonly expired: Credential | Missing
  /** One for another audience. */
  otherAudience(): Promise<Credential | Missing>
  /** One that was revoked, or that can be. */
  revocable(): Promise<Revocable | Missing>
}

export interface Revocable {
  readonly credential: Credential
  /** Absent where it was revoked before the run. */
  readonly revoke?: () => Promise<void>
}

/** When a token was made and when it ends, where it says so itself. */
export interface Life {
  readonly from: Seconds
  readonly to: Seconds
}

/** Of a JWT with `exp`; without `iat` it was made now. Nothing of it is believed but for a wait or a finding. */
export function lifeOf(token: string, now: Seconds): Life | undefined {
  const jws = parseJws(token)
  if (!jws || !isJwsAlg(jws.header['alg'])) return undefined
  const { exp, iat } = jws.payload
  if (typeof exp !== 'number' || !Number.isFinite(exp)) return undefined
  return { from: typeof iat === 'number' ? iat : now, to: exp }
}
