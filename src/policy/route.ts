/** Routes: what comes in, and what each layer says of it. A request is let in only where all layers have spoken. */
import type { Seconds } from '../base/clock.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { Place } from './entry.ts'
import type { Binding, Grant, Server } from './grant.ts'

/** Credentials that a route takes; `jwt_svid` is a bearer token unless the channel is mutual TLS with the same SPIFFE ID. */
export type Credential = Binding | 'jwt_svid'

/** Identity's statement: whose tokens, for whom, and what binds them. */
export interface RouteIdentity {
  /** Authorization servers whose tokens are taken. */
  readonly servers: readonly Server[]
  /** `aud` of tokens; one of these has to be in it. Empty: no token is taken. */
  readonly audience: readonly string[]
  /** What a request may be bound by; an empty list takes nothing. */
  readonly binding: readonly Credential[]
  /** The longest life of a token, from `iat` to `exp`. */
  readonly maxTtl: Seconds
  /** How many actors may stand between the subject and the caller (RFC 8693 s.4.1). */
  readonly actDepth: number
  /** Whether proofs need a nonce of this server. */
  readonly nonce: 'off' | 'required'
  /** Whether each token is also asked about at its server (RFC 7662): for revocation that cannot wait for its end. */
  readonly introspects: boolean
  /** Whether a token has to name a status list, or is asked about only where it does. */
  readonly status: 'if_present' | 'required'
  /** Whose Txn-Tokens are taken; undefined: they are not looked at. */
  readonly txnToken?: RouteTxnToken | undefined
  /** Whether the application gets an opaque handle instead of the token. */
  readonly handsOut: 'claims' | 'handle'
  readonly place: Place
}

/** Which Txn-Tokens say what a request is part of (draft-ietf-oauth-transaction-tokens). */
export interface RouteTxnToken {
  readonly serverName: string
  /** The service that makes them for the trust domain; undefined until files are joined. */
  readonly server: Server | undefined
  /** Their `aud`: the trust domain. */
  readonly audience: string
  /** Whether each request has to have one. */
  readonly isRequired: boolean
}

/** A proxy that a request may come through. */
export interface Hop {
  readonly name: string
  /** Who it is on the connection to the verifier's service: the SPIFFE ID of its certificate. */
  readonly spiffeId: SpiffeId | undefined
  /** Or the addresses it comes from, where it shows no certificate. */
  readonly addresses: readonly string[]
  /** What it says of its own caller's certificate: nothing, `Client-Cert` (RFC 9440) or XFCC (its last element). */
  readonly certificate: 'none' | 'client_cert' | 'xfcc'
}

/** Platform's statement: where the route is for its callers, and how requests get here. */
export interface RoutePlatform {
  /** Canonical origins that callers use; proofs are for one of them, whatever `Host` says. */
  readonly origins: readonly string[]
  /** Path prefix as it arrives at the verifier. */
  readonly received: string
  /** The same prefix as callers sent it. */
  readonly public: string
  /** Hops of which the last one that touched the request has to be one; empty: callers connect themselves. */
  readonly hops: readonly Hop[]
  /** Where a proof counts as used: routes that share a scope share it. */
  readonly scope: string
  /** Who may ask about requests of this route: selectors or SPIFFE IDs of the services behind it. */
  readonly verifiers: readonly (SpiffeId | Selector)[]
  readonly place: Place
}

/** One grant: these callers may use these methods on these public paths. `scopes` are all needed. */
export type RouteGrant = Pick<Grant, 'name' | 'callers' | 'methods' | 'paths' | 'when' | 'place'> & {
  readonly scopes: readonly string[]
}

/** Security's statement: bearer tokens of these clients are taken here until a date, and somebody answers for it. */
export interface RouteException {
  readonly route: string
  readonly approver: string
  readonly until: Seconds
  /** `client_id` or `sub` of the tokens. */
  readonly clients: readonly string[]
  readonly maxTtl: Seconds
  /** Requests a second, of each client. */
  readonly rate: number | undefined
  /** Addresses they come from; empty: from anywhere. */
  readonly sources: readonly string[]
  readonly place: Place
}

/** A named route, as far as each layer has spoken. */
export interface Route {
  readonly name: string
  readonly identity: RouteIdentity | undefined
  readonly platform: RoutePlatform | undefined
  readonly application: { readonly grants: readonly RouteGrant[]; readonly place: Place } | undefined
}
