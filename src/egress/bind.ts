/**
 * What makes one request useful at its target and nowhere else: the token, the proof of its key, or a WIT with its
 * WPT. Nothing here is kept: each try has a proof of its own (RFC 9449 s.7.3).
 */
import type { Instance, Workload } from '../attest/workload.ts'
import type { Clock, Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Vault } from '../keys/vault.ts'
import type { Entry } from '../policy/entry.ts'
import type { Binding, Server, Target, TargetIdentity } from '../policy/grant.ts'
import type { Revocations } from '../policy/revocations.ts'
import { makeDpop } from '../proof/dpop.ts'
import { hashOf } from '../proof/jwt.ts'
import type { Jkt, Signer } from '../proof/signer.ts'
import type { CanonicalUrl } from '../proof/target.ts'
import { makeWpt } from '../proof/wpt.ts'
import { purposeOf } from '../sign/sign.ts'
import type { Injected } from './headers.ts'
import type { Nonces } from './nonces.ts'
import type { BoundToken, Tokens } from './tokens.ts'

export interface BindOptions {
  readonly vault: Vault
  readonly tokens: Tokens
  readonly nonces: Nonces
  readonly revocations: Revocations
  readonly clock: Clock
  /** The WIT-SVID over a held key; absent when the WIT profile is off. */
  readonly heldWit: ((entry: Entry, signer: Signer) => string) | undefined
}

/** One allowed request. */
export interface BindAsk {
  readonly workload: Workload
  readonly entry: Entry
  readonly instance: Instance
  readonly target: Target
  readonly identity: TargetIdentity
  readonly kind: Binding
  readonly method: string
  readonly url: CanonicalUrl
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
}

const PROOF_LIFE: Seconds = 60

/** Headers for one try of `ask`. Throws revoked, keys_exhausted, unimplemented, and what the token client throws. */
export async function bindRequest(options: BindOptions, ask: BindAsk, signal: AbortSignal): Promise<Bound> {
  if (ask.kind === 'wpt') return bindWpt(options, ask)
  const signer = signerFor(options, ask, purposeOf(ask.target))
  const { server } = ask.identity
  const token = server?.client ? await tokenFor(options, ask, { signer, server, signal }) : undefined
  // A key that was revoked while the token was fetched signs no more.
  options.revocations.check([['jkt', signer.jkt]])
  return ask.kind === 'bearer' ? bindBearer(ask, signer, token) : bindDpop(options, ask, signer, token)
}

/** The token alone, for an application that may hold it. Throws as bindRequest. */
export async function bindToken(
  options: BindOptions,
  ask: BindAsk,
  signal: AbortSignal,
): Promise<BoundToken> {
  const { server } = ask.identity
  if (!server?.client)
    throw new Fault('token_required', `${ask.target.name} has no server to get a token from`)
  const signer = signerFor(options, ask, purposeOf(ask.target))
  const token = await tokenFor(options, ask, { signer, server, signal })
  options.revocations.check([['jkt', signer.jkt]])
  return token
}

function signerFor({ vault, revocations }: BindOptions, ask: BindAsk, purpose: string): Signer {
  const owner = { spiffeId: ask.entry.spiffeId, instance: ask.instance }
  const signer = vault.signerFor(owner, purpose, ask.identity.maxTtl)
  revocations.check([['jkt', signer.jkt]])
  return signer
}

interface TokenNeed {
  readonly signer: Signer
  readonly server: Server
  readonly signal: AbortSignal
}

async function tokenFor({ tokens }: BindOptions, ask: BindAsk, need: TokenNeed): Promise<BoundToken> {
  const { workload, entry, target, kind } = ask
  const { signer, server, signal } = need
  const token = await tokens.get({ workload, entry, target, server, signer }, signal)
  if (kind === 'dpop' && token.jkt !== signer.jkt) throw new Fault('issued_unbound')
  return token
}

function bindDpop({ clock, nonces }: BindOptions, ask: BindAsk, signer: Signer, token?: BoundToken): Bound {
  const { method, url } = ask
  const ath = token && hashOf(token.token.reveal())
  const nonce = nonces.of(signer.jkt, url.origin)
  const { proof, jti, iat } = makeDpop(signer, { htm: method, htu: url.htu, ath, nonce }, clock)
  const authorization: Injected = token ? [['Authorization', `DPoP ${token.token.reveal()}`]] : []
  const expires = Math.min(iat + PROOF_LIFE, token?.expires ?? Number.POSITIVE_INFINITY)
  const headers: Injected = [...authorization, ['DPoP', proof]]
  return { headers, expires, tokenExpires: token?.expires, jkt: signer.jkt, jti, ath }
}

/** Only under an exception of security, which policy has checked. */
function bindBearer(ask: BindAsk, signer: Signer, token: BoundToken | undefined): Bound {
  if (!token) throw new Fault('token_required', `${ask.target.name} has no server to get a token from`)
  const text = token.token.reveal()
  return {
    headers: [['Authorization', `Bearer ${text}`]],
    expires: token.expires,
    tokenExpires: token.expires,
    jkt: signer.jkt,
    jti: undefined,
    ath: hashOf(text),
  }
}

/** draft-ietf-wimse-wpt: the proof goes with its WIT and without an access token. */
function bindWpt(options: BindOptions, ask: BindAsk): Bound {
  const { heldWit, clock } = options
  if (!heldWit) throw new Fault('unimplemented', 'WPTs are off: `wit: on` in the configuration enables them')
  if (ask.identity.server?.client)
    throw new Fault('unimplemented', `${ask.target.name} wants a token, and tokens are bound by dpop only`, {
      action: `Add dpop to the binding of ${ask.target.name}, or set server: none.`,
    })
  const signer = signerFor(options, ask, 'wpt')
  const wit = heldWit(ask.entry, signer)
  const { proof, jti, exp } = makeWpt(signer, { aud: ask.url.htu, wit }, clock)
  const headers: Injected = [
    ['Workload-Identity-Token', wit],
    ['Workload-Proof-Token', proof],
  ]
  return { headers, expires: exp, tokenExpires: undefined, jkt: signer.jkt, jti, ath: undefined }
}
