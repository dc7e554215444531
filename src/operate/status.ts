/** What `holdfast status` shows: how the agent is, and a grade for every identity with the reasons for it. */
import type { Seconds } from '../base/clock.ts'
import type { Svids } from '../issue/svids.ts'
import type { Vault } from '../keys/vault.ts'
import type { RuleBook, Weakness } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import type { Revocation } from '../policy/revocations.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import type { Degradation } from '../telemetry/health.ts'

export type Grade = 'strong' | 'weak' | 'insecure'

export interface IdentityStatus {
  readonly spiffe_id: string
  readonly entry: string
  readonly grade: Grade
  readonly because: readonly string[]
  readonly keys: number
  /** When the delivered X.509-SVID expires; absent when none was made. */
  readonly x509_expires?: Seconds
}

export interface AgentStatus {
  readonly version: string
  readonly pid: number
  readonly trust_domain: string
  readonly state: 'ready' | 'starting' | 'draining' | 'passive'
  readonly pending: readonly string[]
  readonly degraded: readonly Degradation[]
  readonly policy: string
  readonly epoch: string
  readonly connections: number
  readonly keys: number
  readonly bundle: {
    readonly sequence: number
    readonly x509: number
    readonly jwt: number
    readonly wit: number
  }
  readonly identities: readonly IdentityStatus[]
  readonly targets: readonly {
    readonly name: string
    readonly grade: Grade
    readonly because: readonly string[]
  }[]
  readonly revocations: readonly Revocation[]
}

/** The identities of `book`, graded. */
export function identityStatuses(book: RuleBook, svids: Svids, vault: Vault): readonly IdentityStatus[] {
  return book.identities().map((entry) => identityStatus(book, entry, svids, vault))
}

function identityStatus(book: RuleBook, entry: Entry, svids: Svids, vault: Vault): IdentityStatus {
  const expires = svids.expiryOf(entry)
  return {
    spiffe_id: entry.spiffeId,
    entry: entry.name,
    ...gradeOf(book.weaknesses, entry.name),
    keys: vault.countOf(entry.spiffeId),
    ...(expires === undefined ? {} : { x509_expires: expires }),
  }
}

/** The targets of `book`, graded. */
export function targetStatuses(book: RuleBook): AgentStatus['targets'] {
  return [...book.targets.keys()].map((name) => ({ name, ...gradeOf(book.weaknesses, name) }))
}

function gradeOf(
  weaknesses: readonly Weakness[],
  subject: string,
): { grade: Grade; because: readonly string[] } {
  const own = weaknesses.filter((weakness) => weakness.subject === subject)
  const grade = own.some((weakness) => weakness.grade === 'insecure')
    ? 'insecure'
    : own.length > 0
      ? 'weak'
      : 'strong'
  return { grade, because: own.map((weakness) => weakness.message) }
}

export function bundleStatus(bundle: Bundle): AgentStatus['bundle'] {
  return {
    sequence: Number(bundle.sequence),
    x509: bundle.x509Authorities.length,
    jwt: bundle.jwtAuthorities.size,
    wit: bundle.witAuthorities.size,
  }
}
