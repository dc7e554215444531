/** Registration entries: which selectors make which SPIFFE ID, and what the Workload API delivers to it. */
import type { Seconds } from '../base/clock.ts'
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'

/** Where a statement stands: shown by `explain` and written to the audit log. */
export interface Place {
  readonly file: string
  readonly line: number
}

/** What a key's life is tied to: the calling process, its systemd unit, container or pod, or the identity on this node. */
export type InstanceKind = 'process' | 'unit' | 'container' | 'pod' | 'identity'

/** One registration entry of an identity policy file. */
export interface Entry {
  readonly name: string
  readonly spiffeId: SpiffeId
  /** All must hold; never empty. */
  readonly selectors: readonly Selector[]
  readonly x509Ttl: Seconds
  readonly jwtTtl: Seconds
  /** Unique among the entries of one caller, or empty (SPIFFE Workload API s.5.2). */
  readonly hint: string
  readonly deliver: { readonly x509: boolean; readonly jwt: boolean; readonly wit: boolean }
  /** Reserved audiences that this entry may ask JWT-SVIDs for all the same. */
  readonly audiences: readonly string[]
  /** Issuers whose authorization servers may take what this entry delivers as a client credential all the same. */
  readonly acceptedAt: readonly string[]
  readonly dnsNames: readonly string[]
  /** Foreign trust domains whose bundles its callers are given. */
  readonly federatesWith: readonly TrustDomain[]
  /** How secrets are given to its proxies (SDS), where it differs from the configuration. */
  readonly sds: {
    readonly rootca?: 'own' | 'all' | undefined
    readonly validator?: 'spiffe' | 'trusted_ca' | undefined
  }
  /** Whether it is the replay lab's: tokens may be bound to keys of its own. */
  readonly isProbe: boolean
  readonly instance: InstanceKind
  readonly place: Place
}
