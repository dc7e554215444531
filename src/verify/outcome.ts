/** What becomes of a request: either claims for the application, or what its caller hears. */
import type { Fault } from '../base/fault.ts'
import type { Answer } from '../ingress/answer.ts'
import type { Challenge } from '../ingress/challenge.ts'
import type { OnRefused, RefusalFacts } from './options.ts'
import type { Received } from './received.ts'

/** Who called, what binds the request, and public claims of the token. */
export type VerifiedRequest = Omit<Answer, 'nonce'>

export type Outcome =
  | {
      readonly verified: VerifiedRequest
      /** For the answer of the application: a fresh `dpop-nonce` where the route wants nonces (RFC 9449 s.8.2). */
      readonly headers: Readonly<Record<string, string>>
    }
  | {
      readonly verified: undefined
      /** The whole answer: a status and headers, which tell the OAuth class and nothing finer. */
      readonly challenge: Challenge
    }

/** Verifies one request; never throws for what is in it. `receive` may. */
export type Ask = (receive: () => Received) => Promise<Outcome>

export function verifiedOf(verified: VerifiedRequest, nonce: string | undefined): Outcome {
  return { verified, headers: nonce === undefined ? {} : { 'dpop-nonce': nonce } }
}

export function tell(onRefused: OnRefused | undefined, fault: Fault, facts: RefusalFacts): void {
  quietly(() => onRefused?.(fault, facts))
}

/** A log that fails is no answer to the caller. */
export function quietly(hear: () => void): void {
  try {
    hear()
  } catch {
    // The application's own; the request is decided either way.
  }
}
