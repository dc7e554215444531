/** Targets and grants: which upstreams exist and what a workload may ask for them, one statement a layer. */
import type { Seconds } from '../base/clock.ts'
import type { Place } from './entry.ts'

/** The kinds of proof of this release. */
export type ProofKind = 'dpop' | 'wpt'

/** An authorization server: its tokens are the ones a target takes. */
export interface Server {
  /** Issuer identifier, exactly as in its metadata (RFC 8414 s.2). */
  readonly issuer: string
  readonly tokenEndpoint: string | undefined
}

/** Identity's statement: how requests to the target are bound, and what an application may hold. */
export interface TargetIdentity {
  readonly server: Server | undefined
  readonly custody: 'nothing' | 'headers' | 'token'
  readonly maxTtl: Seconds
  readonly hashOnly: boolean
  readonly tokenless: boolean
  readonly binding: readonly ProofKind[]
  readonly place: Place
}

/**
 * Platform's statement: where the target is. Origins are canonical (`https://orders.example.org`); a loopback host may
 * stand for all its ports (`http://localhost:*`).
 */
export interface TargetPlatform {
  readonly origins: readonly string[]
  readonly place: Place
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
  readonly place: Place
}

/** A compiled CEL condition: only `true` allows. */
export interface When {
  readonly source: string
  evaluate(facts: Readonly<Record<string, unknown>>): boolean
}

/** A named upstream, as far as each layer has spoken. */
export interface Target {
  readonly name: string
  readonly identity: TargetIdentity | undefined
  readonly platform: TargetPlatform | undefined
  readonly application: { readonly grants: readonly Grant[]; readonly place: Place } | undefined
}
