/** Targets and grants: which upstreams exist and what a workload may ask for them, one statement a layer. */
import type { Seconds } from '../base/clock.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { Place } from './entry.ts'

/** The kinds of proof of this release. */
export type ProofKind = 'dpop' | 'wpt'

/**
 * What keeps a token from being of use to a thief: a kind of proof, the certificate of the connection (RFC 8705), a
 * signature over the message (RFC 9421), or nothing where security makes an exception.
 */
export type Binding = ProofKind | 'mtls' | 'http-signature' | 'bearer'

/**
 * What an application gets: headers that it sends itself, the answer to a request that the agent makes, or the token; the
 * replay lab a token for a key of its own.
 */
export type Door = 'headers' | 'egress' | 'token' | 'probe'

/** How the agent shows an authorization server which client it is (RFC 7523, RFC 8705, draft-ietf-oauth-spiffe-client-auth). */
export type ClientAuth =
  | {
      readonly method: 'private_key_jwt'
      readonly clientId: string
      /** A mounted key; the node's own key for this client when absent. */
      readonly keyFile: string | undefined
    }
  /** A JWT-SVID as assertion; the client id is the caller's SPIFFE ID when absent. */
  | {
      readonly method: 'jwt_spiffe' | 'jwt_bearer'
      readonly clientId: string | undefined
      /** Whether each request has a JWT-SVID of its own, or one serves until half its life is over. */
      readonly assertion: 'fresh' | 'reused'
    }
  /** The WIT-SVID of the held key as client attestation, the DPoP proof as its proof of possession. */
  | { readonly method: 'attest_jwt_client_auth_dpop'; readonly clientId: string | undefined }
  /** An X.509-SVID that is never delivered, over mutual TLS. */
  | { readonly method: 'tls_client_auth'; readonly clientId: string | undefined }

/** An authorization server: its tokens are the ones a target takes. */
export interface Server {
  /** Absent: a target states the server itself. */
  readonly name?: string | undefined
  /** Issuer identifier, exactly as in its metadata (RFC 8414 s.2). */
  readonly issuer: string
  readonly tokenEndpoint: string | undefined
  /** Where the keys are that it signs tokens with; absent: its metadata says, at its own origin. */
  readonly jwksUri?: string | undefined
  /** Origins that its tokens may name status lists at (draft-ietf-oauth-status-list); absent: none. */
  readonly statusLists?: readonly string[] | undefined
  /** Absent: the agent fetches no tokens there, applications bring their own. */
  readonly client: ClientAuth | undefined
}

/** Whom a TLS connection trusts; verification cannot be turned off. */
export interface TlsTrust {
  /**
   * `system`: Node's bundled roots; `spiffe`: the trust domain's bundle, and `peerId` must be the server's; else the
   * roots in a file, or told as they are (PEM) to a process that is to read no file of the agent's.
   */
  readonly trust: 'system' | 'spiffe' | { readonly file: string } | { readonly roots: readonly string[] }
  readonly peerId: SpiffeId | undefined
  /** The name to verify and to send as SNI instead of the host. */
  readonly serverName: string | undefined
}

/** How the token of whoever called the workload becomes one for this target (RFC 8693). */
export interface ExchangeRule {
  /** Issuers whose tokens may stand for the subject. */
  readonly subjects: readonly string[]
  /** What such tokens may call this workload, beside its SPIFFE ID, its client id and the issuer of the server. */
  readonly audiences: readonly string[]
  /** Whether a request without a subject is refused; else it gets the workload's own token. */
  readonly isRequired: boolean
  /** What the subject token is called in the request. */
  readonly subjectType: 'access_token' | 'jwt'
  /** Whether a JWT-SVID of the workload goes along as actor token. */
  readonly hasActor: boolean
  /**
   * The server that exchanges first, where its grant is then shown to the target's own. This follows a draft
   * (draft-ietf-oauth-identity-chaining) and may change with it.
   */
  readonly via: Server | undefined
}

/** Identity's statement: how requests to the target are bound, and what an application may hold. */
export interface TargetIdentity {
  readonly server: Server | undefined
  readonly custody: 'nothing' | 'headers' | 'token'
  readonly maxTtl: Seconds
  readonly hashOnly: boolean
  readonly tokenless: boolean
  /** `bearer` stands alone, and holds only while security's exception does. */
  readonly binding: readonly Binding[]
  /** RFC 8707; absent: none is sent. */
  readonly resource: string | undefined
  readonly scopes: readonly string[]
  /** What becomes of a token that lives longer than `maxTtl`: refused, or used up to it and then revoked at the server. */
  readonly tooLong: 'refuse' | 'revoke'
  /** Whether the target's metadata (RFC 9728) must name this server and resource before its first token. */
  readonly isDiscovered: boolean
  readonly exchange: ExchangeRule | undefined
  /** Whether a `Txn-Token` of the caller passes, unmodified. */
  readonly passesTransaction: boolean
  readonly place: Place
}

/** Platform's statement about the authorization server of an issuer: how it is reached. */
export interface ServerPlatform {
  readonly issuer: string
  readonly tls: TlsTrust
  /** As those of a target. */
  readonly addresses: readonly string[]
  readonly place: Place
}

/** Security's statement: the target's tokens are bearer tokens until this time, and somebody answers for it. */
export interface Exception {
  readonly target: string
  readonly approver: string
  readonly until: Seconds
  /** The longest life of such a token. */
  readonly maxTtl: Seconds
  readonly place: Place
}

/**
 * Platform's statement: where the target is. Origins are canonical (`https://orders.example.org`); a loopback host may
 * stand for all its ports (`http://localhost:*`).
 */
export interface TargetPlatform {
  readonly origins: readonly string[]
  readonly tls: TlsTrust
  /** IP addresses, or ranges such as `10.0.0.0/8`, that egress may dial though they are loopback, link-local or the node's own. */
  readonly addresses: readonly string[]
  /** Who connects: the agent, from its own network, or the workload's sidecar, from the workload's. */
  readonly via: 'agent' | 'sidecar'
  /** Whether a redirect to a target is followed, as a new request through policy. */
  readonly followsRedirects: boolean
  /** Requests one instance may make in a second; absent: only the agent's own limit. */
  readonly rate: number | undefined
  /** Requests one instance may have open; absent: only the agent's own limit. */
  readonly concurrency: number | undefined
  readonly place: Place
}

/** A person has to agree before a request goes out. */
export interface Approval {
  /** To the first use of the target by this instance, or to each request. */
  readonly on: 'first_use' | 'always'
  /** How long the request waits for an answer; then it is refused. */
  readonly wait: Seconds
}

/** One grant of application's statement: these callers may use these methods on these paths. */
export interface Grant {
  /** How tests name it; empty when the file gives it no name. */
  readonly name: string
  /** SPIFFE IDs, or prefixes ending in `/**`, matched segment by segment. */
  readonly callers: readonly string[]
  /** Upper-case methods, or `*` for any but TRACE and CONNECT, which are never granted. */
  readonly methods: readonly string[]
  /** Whole paths, or prefixes ending in `/**`: the prefix and all below it, segment by segment, on the canonical path. */
  readonly paths: readonly string[]
  readonly when: When | undefined
  readonly approval: Approval | undefined
  /** Whether the decision hook of the configuration is asked too. */
  readonly asksHook: boolean
  /** Whether it lets the replay lab have tokens that are bound to keys of its own, and nothing else. */
  readonly isProbe: boolean
  /** Lower-case header names that a caller may have signed beside those the agent signs (RFC 9421). */
  readonly signedHeaders: readonly string[]
  /** A selector that the caller must have: what a namespace grants is for its own pods. */
  readonly only?: Selector
  readonly place: Place
}

/** A compiled CEL condition: only `true` allows. */
export interface When {
  readonly source: string
  /** The facts it asks for that only a door knows: without them it does not hold. */
  readonly asks: readonly string[]
  evaluate(facts: Readonly<Record<string, unknown>>): boolean
}

/** A named upstream, as far as each layer has spoken. */
export interface Target {
  readonly name: string
  readonly identity: TargetIdentity | undefined
  readonly platform: TargetPlatform | undefined
  readonly application: { readonly grants: readonly Grant[]; readonly place: Place } | undefined
}
