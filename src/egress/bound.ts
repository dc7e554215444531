/** What binds one request to its sender: what is asked of the kinds of binding, and what each gives. */
import type { Instance, Workload } from '../attest/workload.ts'
import type { Clock, Seconds } from '../base/clock.ts'
import type { Vault } from '../keys/vault.ts'
import type { Entry } from '../policy/entry.ts'
import type { Binding, Target, TargetIdentity } from '../policy/grant.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { Jkt, Signer } from '../proof/signer.ts'
import type { CanonicalUrl } from '../proof/target.ts'
import { purposeOf } from '../sign/sign.ts'
import type { Certificate } from './certificates.ts'
import type { Injected, RawHeaders } from './headers.ts'
import type { Nonces } from './nonces.ts'
import type { Subject } from './subjects.ts'
import type { Tokens } from './tokens.ts'

export interface BindOptions {
  readonly vault: Vault
  readonly tokens: Tokens
  readonly nonces: Nonces
  readonly revocations: Revocations
  readonly clock: Clock
  /** The WIT-SVID over a held key; absent when the WIT profile is off. */
  readonly heldWit: ((entry: Entry, signer: Signer) => string) | undefined
}

/** What a request hangs on while it waits for a token. */
export interface Waiting {
  readonly signal: AbortSignal
}

/** One allowed request. */
export interface BindAsk {
  readonly workload: Workload
  readonly entry: Entry
  readonly instance: Instance
  readonly target: Target
  readonly identity: TargetIdentity
  /** What the request carries: each of them was allowed. */
  readonly kinds: readonly Binding[]
  readonly method: string
  readonly url: CanonicalUrl
  /** What the connection shows; absent where nothing is to be shown, or the agent does not make the connection. */
  readonly certificate?: Certificate | undefined
  /** Empty, or `?` and what follows it. */
  readonly query: string
  /** The caller's fields that go along, as far as the agent knows them. */
  readonly passed: RawHeaders
  /** On whose behalf the request is made. */
  readonly subject: Subject | undefined
  readonly signing: SigningAsk
}

/** What an HTTP message signature covers beyond what the agent says itself. */
export interface SigningAsk {
  /** Lower-case names of the caller's fields that the grant has signed. */
  readonly names: readonly string[]
  /** A Content-Digest that the agent adds. */
  readonly digest: string | undefined
}

/** The headers of one request and public facts of them. */
export interface Bound {
  readonly headers: Injected
  /** When the headers are of no use any more, in seconds since 1970. */
  readonly expires: Seconds
  /** When the token ends; absent where there is none. */
  readonly tokenExpires: Seconds | undefined
  readonly jkt: Jkt
  readonly jti: string | undefined
  /** base64url SHA-256 of the access token. */
  readonly ath: string | undefined
  /** The certificate that the connection has to show (`x5t#S256`). */
  readonly x5t: string | undefined
}

/** What kinds see that are made after others. */
export interface Carried {
  /** base64url SHA-256 of the access token that goes along. */
  readonly ath: string | undefined
  /** What the agent has added so far, `Authorization` first. */
  readonly headers: Injected
}

/** What one kind adds to a request. */
export interface Part {
  readonly headers: Injected
  readonly expires: Seconds
  readonly jkt: Jkt
  readonly jti: string | undefined
  readonly x5t?: string
}

/** The current key of the caller for `purpose`, which nobody has revoked; throws revoked, keys_exhausted. */
export function signerFor({ vault, revocations }: BindOptions, ask: BindAsk, purpose: string): Signer {
  const owner = { spiffeId: ask.entry.spiffeId, instance: ask.instance }
  const signer = vault.signerFor(owner, purpose, ask.identity.maxTtl)
  revocations.check([['jkt', signer.jkt]])
  return signer
}

/** The key that tokens of the target are bound to. */
export function tokenSigner(options: BindOptions, ask: BindAsk): Signer {
  return signerFor(options, ask, purposeOf(ask.target))
}
