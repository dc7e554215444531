/** The rule book: all policy files of one load, joined, indexed and immutable. A reload makes a new one. */
import type { Seconds } from '../base/clock.ts'
import type { CanonicalUrl } from '../proof/target.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { CallContext } from './decide.ts'
import type { Entry, Place } from './entry.ts'
import type { EntryTemplate } from './entry-template.ts'
import type { Binding, Door, Exception, Grant, Server, ServerPlatform, Target } from './grant.ts'
import type { Routes } from './routes.ts'
import type { Transmitter } from './transmitter.ts'

/** Security's statement: nothing of this workload or this target is allowed, whatever the other layers say. */
export interface Denial {
  readonly spiffeId: SpiffeId | undefined
  readonly target: string | undefined
  readonly why: string
  /** It ends at this time by itself. */
  readonly until: Seconds | undefined
  readonly place: Place
}

/** A test that stands beside the rules it checks. */
export interface PolicyTest {
  readonly name: string
  readonly spiffeId: SpiffeId
  readonly selectors: readonly Selector[]
  readonly kind: Binding
  readonly door: Door
  readonly method: string | undefined
  readonly url: string
  readonly token: 'full' | 'hash' | 'none'
  readonly expect: 'allow' | 'deny'
  /** The reason of the refusal, when the test names one. */
  readonly reason: string | undefined
  /** The name of the grant that has to allow it, when the test names one. */
  readonly rule: string | undefined
  /** What the test says of the call; absent: conditions that ask for it do not hold. */
  readonly context: CallContext | undefined
  readonly place: Place
}

/** Refusals are audited and not carried out until this time; each has somebody who answered for it. */
export interface Observe {
  readonly approver: string
  readonly until: Seconds
  readonly place: Place
}

/** What an operator should know of a policy that loads all the same. */
export interface Weakness {
  /** Stable: `entry_uid_only`, `entry_any_namespace`, `entry_image_tag`, `deliver`, `deliver_and_sign`, `hash_only`, `tokenless`, `too_long`, `accepted_at`, `bearer`, `http`, `observe`, `probe`. */
  readonly code: string
  readonly grade: 'weak' | 'insecure'
  readonly subject: string
  readonly message: string
  readonly place: Place
}

export interface RuleBook {
  readonly entries: readonly Entry[]
  readonly templates: readonly EntryTemplate[]
  /** The entries, and those that templates have made of callers so far. */
  identities(): readonly Entry[]
  readonly targets: ReadonlyMap<string, Target>
  /** Authorization servers that have a name. */
  readonly servers: ReadonlyMap<string, Server>
  /** How the authorization server of `issuer` is reached; with the system's roots where platform says nothing. */
  serverTls(issuer: string): Pick<ServerPlatform, 'tls' | 'addresses'>
  /** What platform says about authorization servers. */
  readonly serverPlatforms: readonly ServerPlatform[]
  /** Targets by canonical origin, as the platform layer states them. */
  readonly targetsByOrigin: ReadonlyMap<string, readonly Target[]>
  /** The targets that `url` may belong to, in policy order. */
  targetsFor(url: CanonicalUrl): readonly Target[]
  /** The target that a Host names, in any case of its letters. */
  targetNamed(host: string): Target | undefined
  /** The grants of `target` that name `caller`: those that name it exactly first, each kind in policy order. */
  grantsFor(target: Target, caller: SpiffeId): readonly Grant[]
  /** The denial in force for this workload at this target. */
  denialOf(spiffeId: SpiffeId, target: string): Denial | undefined
  /** The exception in force for bearer tokens of this target. */
  exceptionOf(target: string): Exception | undefined
  /** Entries whose selectors are all in `selectors`, in policy order: the first is the default identity. */
  entriesFor(selectors: ReadonlySet<Selector>): readonly Entry[]
  /** Why templates that fit these selectors give no entry, in sentences. */
  misfits(selectors: ReadonlySet<Selector>): readonly string[]
  /** Whether a JWT-SVID for `audience` would be a bearer credential at a configured authorization server. */
  isReserved(audience: string): boolean
  /** Whether a selector of this kind (`unix:sha256`) may give a caller with these an entry, so that costly facts are read only then. */
  wantsSelector(kind: string, selectors: ReadonlySet<Selector>): boolean
  /** Whether any grant asks for what only a door knows: a condition on the call, an approval, the hook. */
  readonly needsContext: boolean
  /** Policy in `mode: observe` decides and audits without refusing; false again when its end date has come. */
  readonly observe: boolean
  readonly observing: Observe | undefined
  readonly denials: readonly Denial[]
  readonly exceptions: readonly Exception[]
  readonly tests: readonly PolicyTest[]
  /** What comes in. */
  readonly routes: Routes
  /** Who may tell of revocations. */
  readonly transmitters: readonly Transmitter[]
  /** The cluster's part has not been read yet: who has no entry may have one later. */
  readonly isPartial: boolean
  /** SHA-256 of the files, 16 hex characters: which policy decided. */
  readonly hash: string
  readonly weaknesses: readonly Weakness[]
}

/** The entry of `id` among those a caller has. */
export function entryOf(entries: readonly Entry[], id: SpiffeId): Entry | undefined {
  return entries.find((entry) => entry.spiffeId === id)
}
