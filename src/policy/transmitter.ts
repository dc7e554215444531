/** Transmitters: who may tell of revoked sessions and credentials (OpenID SSF, CAEP), and of whom. */

import type { Place } from './entry.ts'
import { isMatch } from './pattern.ts'

/** Whom a transmitter may speak of: subjects of an issuer, or workloads. */
export type SubjectPattern =
  | {
      readonly issuer: string
      /** `sub` as a whole, or a prefix that ends in a star. */
      readonly sub: string
    }
  | { readonly spiffeId: string }

/** Security's statement: the security events of this issuer about these subjects are carried out. */
export interface Transmitter {
  /** `iss` of its events. */
  readonly issuer: string
  readonly jwksUri: string
  /** `aud` of its events: this receiver. */
  readonly audience: string
  readonly subjects: readonly SubjectPattern[]
  /** The bearer token that it shows when it pushes (RFC 8935), and that is shown to it at `poll` (RFC 8936). */
  readonly tokenFile: string
  /** Where its events are fetched; it pushes when absent. */
  readonly poll: string | undefined
  readonly place: Place
}

/** Whether `transmitter` may speak of the subject. */
export function speaksOf(
  { subjects }: Transmitter,
  subject: {
    readonly issuer?: string
    readonly sub?: string
    readonly jti?: string
    readonly spiffe_id?: string
  },
): boolean {
  return subjects.some((pattern) => {
    if ('spiffeId' in pattern)
      return subject.spiffe_id !== undefined && isMatch(pattern.spiffeId, subject.spiffe_id)
    if (pattern.issuer !== subject.issuer) return false
    // A token does not say here whose it is.
    if (subject.sub === undefined) return subject.jti !== undefined && pattern.sub === '*'
    const stem = pattern.sub.slice(0, -1)
    return pattern.sub.endsWith('*') ? subject.sub.startsWith(stem) : pattern.sub === subject.sub
  })
}
