/**
 * What makes one request useful at its target and nowhere else: the token and all that the binding of the target lists.
 * Nothing here is kept: each try has proofs of its own (RFC 9449 s.7.3).
 */
import { Fault } from '../base/fault.ts'
import type { Binding, Server } from '../policy/grant.ts'
import { hashOf } from '../proof/jwt.ts'
import type { Signer } from '../proof/signer.ts'
import { bindDpop } from './bind-dpop.ts'
import { bindMtls, certificateFor } from './bind-mtls.ts'
import { bindSignature } from './bind-signature.ts'
import { bindWpt, witOff } from './bind-wpt.ts'
import {
  type BindAsk,
  type BindOptions,
  type Bound,
  type Carried,
  type Part,
  tokenSigner,
  type Waiting,
} from './bound.ts'
import type { Injected } from './headers.ts'
import { exchangedFor } from './subject-rule.ts'
import type { BoundToken } from './tokens.ts'

/** How a token is shown; a kind that is not here binds no token. */
const SCHEMES: Partial<Record<Binding, string>> = { dpop: 'DPoP', mtls: 'Bearer', bearer: 'Bearer' }

/**
 * Headers for one try of `ask`, at once where the token is at hand. Throws revoked, keys_exhausted, unimplemented, subject_required, subject_refused, and
 * what the token client throws.
 */
export function bindRequest(options: BindOptions, ask: BindAsk, wait: Waiting): Bound | Promise<Bound> {
  const kinds = kindsOf(options, ask)
  const scheme = kinds.map((kind) => SCHEMES[kind]).find((each) => each !== undefined)
  const signer = scheme === undefined ? undefined : holderOf(options, ask)
  const token = tokenFor(options, ask, { kinds, signer, wait })
  const shown = { kinds, scheme, signer }
  if (token instanceof Promise) return token.then((got) => bindAll(options, ask, shown, got))
  return bindAll(options, ask, shown, token)
}

/** How the token of a request is shown. */
interface Shown extends Pick<TokenNeed, 'kinds' | 'signer'> {
  readonly scheme: string | undefined
}

function bindAll(
  options: BindOptions,
  ask: BindAsk,
  { kinds, scheme, signer }: Shown,
  token: BoundToken | undefined,
): Bound {
  // A key that was revoked while the token was fetched signs no more.
  if (signer) options.revocations.check([['jkt', signer.jkt]])
  const text = token?.token.reveal()
  const ath = text === undefined ? undefined : hashOf(text)
  let headers: Injected = text === undefined ? [] : [['Authorization', `${scheme} ${text}`]]
  const parts = kinds.flatMap((kind) => {
    const part = partOf(options, ask, { kind, signer, carried: { ath, headers } })
    headers = [...headers, ...(part?.headers ?? [])]
    return part ?? []
  })
  const jkt = signer?.jkt ?? parts[0]?.jkt
  if (jkt === undefined) throw new Fault('bug')
  const tokenExpires = token?.expires
  const expires = Math.min(tokenExpires ?? Number.POSITIVE_INFINITY, ...parts.map((part) => part.expires))
  const { jti, x5t } = parts[0] ?? {}
  return { headers, expires, tokenExpires, jkt, jti, ath, x5t }
}

/** The token alone, for an application that may hold it. Throws as bindRequest. */
export async function bindToken(options: BindOptions, ask: BindAsk, wait: Waiting): Promise<BoundToken> {
  const signer = tokenSigner(options, ask)
  const token = await tokenFor(options, ask, { kinds: ask.kinds, signer, wait })
  if (!token) throw tokenless(ask)
  options.revocations.check([['jkt', signer.jkt]])
  return token
}

/** In the order in which they are made; a signature covers what is there before it. */
const ORDER: readonly Binding[] = ['dpop', 'bearer', 'mtls', 'wpt', 'http-signature']

/**
 * What the request carries. Where no token goes along, a WPT is left out beside other proofs while WITs are off: the
 * default policy of a developer lists both.
 */
function kindsOf({ heldWit }: BindOptions, { kinds, identity }: BindAsk): readonly Binding[] {
  const made = ORDER.filter((kind) => kinds.includes(kind))
  if (heldWit || !made.includes('wpt')) return made
  if (made.length === 1 || identity.server?.client) throw witOff('WPTs')
  return made.filter((kind) => kind !== 'wpt')
}

/** The key that the token is bound to; throws revoked, keys_exhausted. */
function holderOf(options: BindOptions, ask: BindAsk): Signer {
  if (!ask.kinds.includes('mtls')) return tokenSigner(options, ask)
  const { signer } = certificateFor(ask)
  options.revocations.check([['jkt', signer.jkt]])
  return signer
}

interface PartAsk {
  readonly kind: Binding
  /** The key that the token is bound to. */
  readonly signer: Signer | undefined
  readonly carried: Carried
}

function partOf(options: BindOptions, ask: BindAsk, { kind, signer, carried }: PartAsk): Part | undefined {
  switch (kind) {
    case 'dpop':
      return signer && bindDpop(options, ask, signer, carried)
    case 'wpt':
      return bindWpt(options, ask, carried)
    // Only under an exception of security, which policy has checked; the token is all there is.
    case 'bearer':
      if (carried.ath === undefined) throw tokenless(ask)
      return undefined
    case 'mtls':
      return bindMtls(ask)
    case 'http-signature':
      return bindSignature(options, ask, carried)
  }
}

interface TokenNeed {
  readonly kinds: readonly Binding[]
  readonly signer: Signer | undefined
  readonly wait: Waiting
}

/** The token of the target; absent where the agent is client of no server. Never one that nothing binds. */
function tokenFor(
  { tokens }: BindOptions,
  ask: BindAsk,
  { kinds, signer, wait }: TokenNeed,
): BoundToken | undefined | Promise<BoundToken> {
  const { workload, entry, target, identity, certificate } = ask
  const server: Server | undefined = identity.server
  if (!server?.client) return undefined
  if (!signer)
    throw new Fault(
      'unimplemented',
      `${target.name} wants a token, which ${kinds.join(', ')} does not bind`,
      {
        action: `Add dpop to the binding of ${target.name}, or set server: none.`,
      },
    )
  const subject = exchangedFor(ask, server)
  const wanted = { workload, entry, target, server, signer, certificate, subject }
  const check = (token: BoundToken) => {
    if (!kinds.includes('bearer') && token.jkt !== signer.jkt) throw new Fault('issued_unbound')
    return token
  }
  const held = tokens.held(wanted)
  return held ? check(held) : tokens.get(wanted, wait.signal).then(check)
}

function tokenless({ target }: BindAsk): Fault {
  return new Fault('token_required', `${target.name} has no server to get a token from`)
}
