/** What policy files say, before the layers are joined: each statement with its place. */
import type { Seconds } from '../base/clock.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import type { Denial, Observe, PolicyTest } from './book.ts'
import type { Entry, Place } from './entry.ts'
import type { Grant, TargetIdentity, TargetPlatform } from './grant.ts'

/** The four layers; a file belongs to one of them and holds only its statements. */
export type Layer = 'identity' | 'platform' | 'application' | 'security'

/** One layer's statement about a target. */
export type Named<T> = T & { readonly name: string }

export interface Statements {
  readonly entries: readonly Entry[]
  readonly identity: readonly Named<TargetIdentity>[]
  readonly platform: readonly Named<TargetPlatform & { readonly insecureHttp: boolean }>[]
  readonly application: readonly Named<{ readonly grants: readonly Grant[]; readonly place: Place }>[]
  readonly tests: readonly PolicyTest[]
  readonly observe: readonly Observe[]
  readonly denials: readonly Denial[]
}

export const NO_STATEMENTS: Statements = {
  entries: [],
  identity: [],
  platform: [],
  application: [],
  tests: [],
  observe: [],
  denials: [],
}

/** What policy is read against. */
export interface PolicyContext {
  readonly trustDomain: TrustDomain
  /** The lives of SVIDs where an entry says nothing. */
  readonly defaults: { readonly x509Ttl: Seconds; readonly jwtTtl: Seconds }
  /** Ends what has an end date. */
  readonly now: () => Seconds
}

/** One policy file as text. */
export interface PolicyText {
  readonly file: string
  readonly text: string
}

/** All statements of `files`, in their order. */
export function joinStatements(files: readonly Statements[]): Statements {
  return {
    entries: files.flatMap((file) => file.entries),
    identity: files.flatMap((file) => file.identity),
    platform: files.flatMap((file) => file.platform),
    application: files.flatMap((file) => file.application),
    tests: files.flatMap((file) => file.tests),
    observe: files.flatMap((file) => file.observe),
    denials: files.flatMap((file) => file.denials),
  }
}

/** `file:line`. */
export function placeText(place: Place): string {
  return `${place.file}:${place.line}`
}
