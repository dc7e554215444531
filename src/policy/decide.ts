/** Whether policy allows one proof: identity, platform and application must each have spoken (design: who owns what). */
import type { Owner, Reason } from '../base/fault.ts'
import type { CanonicalUrl } from '../proof/target.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { RuleBook } from './book.ts'
import type { Entry, Place } from './entry.ts'
import type { ProofKind, Target, TargetIdentity } from './grant.ts'

/** What is asked. Pure facts: the same question gets the same answer. */
export interface Question {
  readonly kind: ProofKind
  readonly spiffeId: SpiffeId
  readonly entry: Entry
  /** Absent for WPT, which covers no method: a grant must then allow every method. */
  readonly method: string | undefined
  readonly url: CanonicalUrl
  /** How much of the access token is shown. */
  readonly token: 'full' | 'hash' | 'none'
  readonly selectors: readonly Selector[]
}

export interface Allowed {
  readonly allowed: true
  readonly target: Target
  readonly identity: TargetIdentity
  /** The grant that allowed it. */
  readonly rule: Place
}

export interface Denied {
  readonly allowed: false
  readonly reason: Reason
  readonly owner: Owner
  readonly message: string
  /** The smallest change that would allow it. */
  readonly action: string
  readonly target?: Target
  /** The nearest statement. */
  readonly nearest?: Place
}

export type Decision = Allowed | Denied

/** Answers `question` by `book`; never throws. */
export type Decide = (book: RuleBook, question: Question) => Decision
