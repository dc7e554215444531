/** The rule book: all policy files of one load, joined, indexed and immutable. A reload makes a new one. */
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { Entry } from './entry.ts'
import type { Target } from './grant.ts'

/** What an operator should know of a policy that loads all the same. */
export interface Weakness {
  /** Stable: `entry_uid_only`, `tokenless`, `observe`, `deliver_and_sign`. */
  readonly code: string
  readonly grade: 'weak' | 'insecure'
  readonly subject: string
  readonly message: string
}

export interface RuleBook {
  readonly entries: readonly Entry[]
  readonly targets: ReadonlyMap<string, Target>
  /** Targets by canonical origin, as the platform layer states them. */
  readonly targetsByOrigin: ReadonlyMap<string, readonly Target[]>
  /** Entries whose selectors are all in `selectors`, in policy order: the first is the default identity. */
  entriesFor(selectors: ReadonlySet<Selector>): readonly Entry[]
  /** Whether a JWT-SVID for `audience` would be a bearer credential at a configured authorization server. */
  isReserved(audience: string): boolean
  /** Whether any entry rests on this kind of selector (`unix:sha256`), so that costly facts are read only when used. */
  usesSelector(kind: string): boolean
  /** Policy in `mode: observe` decides and audits without refusing. */
  readonly observe: boolean
  /** SHA-256 of the files, 16 hex characters: which policy decided. */
  readonly hash: string
  readonly weaknesses: readonly Weakness[]
}

/** The entry of `id` among those a caller has. */
export function entryOf(entries: readonly Entry[], id: SpiffeId): Entry | undefined {
  return entries.find((entry) => entry.spiffeId === id)
}
