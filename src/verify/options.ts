/** What an application says to `createVerifier`: plain data, in seconds, checked once. */
import type { KeyObject } from 'node:crypto'
import type { Fault } from '../base/fault.ts'
import type { DenialFacts } from '../ingress/checking.ts'
import type { ReplayStore } from '../ingress/replay.ts'

/** An authorization server whose tokens are taken. */
export interface ServerOptions {
  /** How grants name it: `client:NAME/CLIENT_ID`. */
  readonly name: string
  /** Issuer identifier, exactly as in its metadata and in `iss`. */
  readonly issuer: string
  /** Where its keys are; its metadata says, at its own origin, when absent. */
  readonly jwksUri?: string
  /** Origins that its tokens may name status lists at; none when absent, and then such tokens are refused. */
  readonly statusLists?: readonly string[]
  /** Roots for the connection to it, in PEM; the system's when absent. */
  readonly ca?: string
}

/** Who may call what. Nobody may call anything else. */
export interface GrantOptions {
  readonly name?: string
  /** SPIFFE IDs, prefixes ending in slash and two stars, `client:SERVER/CLIENT_ID`. */
  readonly callers: readonly string[]
  /** Upper-case methods, or `*`. */
  readonly methods: readonly string[]
  /** Whole public paths, or prefixes ending in slash and two stars. */
  readonly paths: readonly string[]
  /** Scopes of the token, all of them. */
  readonly scopes?: readonly string[]
}

/** A proxy that requests come through, known by the SPIFFE ID of its certificate or else by its addresses. */
export interface HopOptions {
  readonly name: string
  readonly spiffeId?: string
  readonly addresses?: readonly string[]
  /** How it hands on the certificate of its caller, if it is known by `spiffeId`; `none` when absent. */
  readonly certificate?: 'none' | 'client_cert' | 'xfcc'
}

/** Bearer tokens that somebody answers for. */
export interface BearerOptions {
  readonly approver: string
  /** The end: `2030-12-31` or `2030-12-31T18:00:00Z`. */
  readonly until: string
  /** `client_id` or `sub` of the tokens. */
  readonly clients: readonly string[]
  /** The longest life of such a token; 120 s when absent. */
  readonly maxTtl?: number
  /** Requests a second, of each client. */
  readonly rate?: number
  /** Addresses and ranges they come from; anywhere when absent. */
  readonly sources?: readonly string[]
}

/** Txn-Tokens (draft-ietf-oauth-transaction-tokens): beside a binding that covers them, wpt, http-signature or mutual TLS. */
export interface TxnTokenOptions {
  /** The name of the server that makes them. */
  readonly server: string
  /** Their `aud`: the trust domain. */
  readonly audience: string
  /** Whether each request needs one; `if_present` when absent. */
  readonly presence?: 'if_present' | 'required'
}

/** One route: where it is for its callers, what binds requests of it, and who may send them. */
export interface RouteOptions {
  /** `default` when absent. */
  readonly name?: string
  /** Public origins, as callers use them; proofs have to be for one of these, whatever `Host` says. */
  readonly origins: readonly string[]
  /** The path prefix as it arrives; `/` when absent. */
  readonly received?: string
  /** The same prefix as callers send it; as received when absent. */
  readonly public?: string
  /** Proxies in between; callers connect themselves when absent. */
  readonly hops?: readonly HopOptions[]
  /** Names of the servers whose tokens are taken; all that are stated when absent. */
  readonly servers?: readonly string[]
  /** Audiences of tokens; one of them has to be in `aud`. */
  readonly audience?: readonly string[]
  /** What requests may be bound by; `dpop` alone when absent. */
  readonly binding?: readonly ('dpop' | 'mtls' | 'wpt' | 'http-signature' | 'jwt_svid' | 'bearer')[]
  /** The longest life of a token; one hour when absent. */
  readonly maxTtl?: number
  /** How many actors a token may name; none when absent. */
  readonly actDepth?: number
  /** Whether proofs need a nonce of this server; `off` when absent. */
  readonly nonce?: 'off' | 'required'
  /** Whether a token has to name a status list; one that does is always looked up. `if_present` when absent. */
  readonly status?: 'if_present' | 'required'
  /** Whose Txn-Tokens are verified; they are not looked at when absent. */
  readonly txnToken?: TxnTokenOptions
  /** Where a proof counts as used: routes of one scope share it; the name when absent. */
  readonly scope?: string
  readonly grants: readonly GrantOptions[]
  /** The exception that binding `bearer` needs. */
  readonly bearer?: BearerOptions
}

/** What is remembered in this process: all replicas of a hop need one store instead. */
export interface ReplayOptions {
  /** Proofs that are remembered at a time; a million when absent. */
  readonly limit?: number
  /** Of these, how many one caller may hold; a quarter when absent. */
  readonly share?: number
}

/** What was found of a request that is refused: for logs, never for the caller. */
export interface RefusalFacts {
  readonly method: string
  readonly route?: string
}

/** Hears of refusals, with the reason that the caller never learns. What it throws is dropped. */
export type OnRefused = (fault: Fault, facts: RefusalFacts) => void

/** Everything but the routes. */
export interface CommonOptions {
  readonly servers?: readonly ServerOptions[]
  /** How old a proof may be; 60 s when absent. */
  readonly window?: number
  /** How far the clock of a caller may be off; 5 s when absent. */
  readonly skew?: number
  /** The memory of proofs, or a store of one's own. */
  readonly replay?: ReplayOptions | ReplayStore
  /** At least 32 bytes, the same on all replicas; made at start when absent. */
  readonly nonceKey?: Uint8Array | KeyObject
  /** How long a status list is used before it is asked for again, or less where its ttl says so; 300 s when absent. */
  readonly statusListMaxAge?: number
  /** How much longer while it cannot be had; 600 s when absent. */
  readonly statusListStale?: number
  /**
   * The longest body of a signed request, in bytes: such a body is read whole and compared with the digest that the
   * signature covers, before the application gets the request. 1 MiB when absent; 0: the application compares, by
   * `isBodyOf`.
   */
  readonly bodyLimit?: number
  /** The SPIFFE bundle document of a trust domain, asked for with each SVID; undefined: it is not trusted. */
  readonly bundleOf?: (trustDomain: string) => string | undefined
  /** Whether what the request shows was revoked. */
  readonly isRevoked?: (facts: DenialFacts) => boolean
  readonly onRefused?: OnRefused
  /** A bearer token came from a second address. */
  readonly onBearerMoved?: (route: string, client: string) => void
}

/** The only route: all servers are its own. */
export type OneRoute = Omit<RouteOptions, 'servers'>

/** Verifies in this process, requests of one route or of several that their paths tell apart. */
export type LocalOptions = CommonOptions & (OneRoute | { readonly routes: readonly RouteOptions[] })

/** Asks the agent, whose policy, replay store and revocations count. */
export interface AgentVerifierOptions {
  /** The verifier's socket: a path or a `unix:` URI, such as /run/holdfast/public/verifier.sock. */
  readonly socket: string
  /** The route as policy names it; found by the path when absent. */
  readonly route?: string
  /** For one answer, in milliseconds; 5 s when absent. */
  readonly timeoutMs?: number
  /**
   * The longest body of a signed request, in bytes: such a body is read whole and compared with the digest that the
   * signature covers, before the application gets the request. 1 MiB when absent; 0: the application compares, by
   * `isBodyOf`.
   */
  readonly bodyLimit?: number
  readonly onRefused?: OnRefused
}

export type VerifierOptions = LocalOptions | AgentVerifierOptions
