/** A request on its way through the checks, and what the checks need. */
import type { Clock, Seconds } from '../base/clock.ts'
import type { Fault } from '../base/fault.ts'
import type { RouteIdentity, RoutePlatform } from '../policy/route.ts'
import type { Routes } from '../policy/routes.ts'
import type { DpopChecker } from '../proof/dpop-check.ts'
import type { BundleOf } from '../spiffe/bundle.ts'
import type { TokenSources } from './access-token.ts'
import type { Bearers } from './bearer.ts'
import type { Channel } from './hop.ts'
import type { Credentials, Inbound } from './inbound.ts'
import type { ServerNonces } from './nonces.ts'
import type { ReplayStore } from './replay.ts'

export interface VerifyOptions {
  readonly clock: Clock
  readonly routes: () => Routes
  readonly tokens: TokenSources
  readonly proofs: DpopChecker
  readonly replays: ReplayStore
  readonly nonces: ServerNonces
  readonly bundleOf: BundleOf
  readonly denials: Denials
  readonly bearers: Bearers
  readonly window: Seconds
  readonly skew: Seconds
  /** Whether policy is in `mode: observe` now; absent: it refuses. */
  readonly observes?: () => boolean
}

/** Refuses a request that policy does not expect; in `mode: observe` that is noted, and the request goes on. */
export type Unmet = (fault: Fault) => void

/** What was revoked, by whichever way that was heard of. */
export interface Denials {
  /** Throws token_revoked. */
  check(facts: DenialFacts): void
}

export interface DenialFacts {
  readonly spiffeId: string | undefined
  readonly issuer: string | undefined
  readonly subject: string | undefined
  readonly clientId: string | undefined
  /** Who acts for the subject now (`act.sub`, RFC 8693 s.4.1). */
  readonly actor: string | undefined
  /** `jti` of the token. */
  readonly tokenId: string | undefined
  readonly jkt: string | undefined
  readonly issuedAt: Seconds | undefined
}

/** A request on its way through the checks. */
export interface Checking {
  readonly inbound: Inbound
  readonly credentials: Credentials
  readonly identity: RouteIdentity
  readonly platform: RoutePlatform
  readonly channel: Channel
  /** The URLs it may have been sent to. */
  readonly urls: readonly string[]
  readonly path: string
  readonly ath: string | undefined
  readonly unmet: Unmet
  readonly now: Seconds
}

/** A JWT-SVID is known by its route alone: a token of a listed server never passes for one, nor the other way round. */
export function isJwtSvid({ identity, credentials }: Pick<Checking, 'identity' | 'credentials'>): boolean {
  return (
    identity.servers.length === 0 && identity.binding.includes('jwt_svid') && credentials.scheme === 'bearer'
  )
}
