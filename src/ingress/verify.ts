/**
 * Verifies one request: its hop, its token, what binds it, its proof, whether the proof was used before, and whether
 * this caller is expected here, in this order. What costs memory comes after what cannot be forged.
 */
import { nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Reason } from '../base/reasons.ts'
import { isNeverGranted } from '../policy/methods.ts'
import { publicPathOf } from '../policy/routes.ts'
import { hashOf } from '../proof/jwt.ts'
import { canonicalUrl } from '../proof/target.ts'
import { type AccessToken, checkAccessToken } from './access-token.ts'
import { type Binding, bindingOf } from './binding.ts'
import { type Checking, type DenialFacts, isJwtSvid, type Unmet, type VerifyOptions } from './checking.ts'
import { type Caller, callerOf, checkExpected, clientNameOf, type Sent } from './expected.ts'
import { channelOf } from './hop.ts'
import { credentialsIn, type Inbound } from './inbound.ts'
import type { Use } from './replay.ts'
import { type Transaction, transactionOf } from './txn-token.ts'

/** A request that is what it seems, and of whom. */
export interface Verified {
  readonly route: string
  readonly caller: Caller
  readonly binding: Binding
  readonly token: AccessToken | undefined
  /** What it is part of, by a verified Txn-Token. */
  readonly transaction: Transaction | undefined
  readonly hop: string | undefined
  /** The grant that expects it, as `file:line`; undefined where none does and that is only observed. */
  readonly rule: string | undefined
}

/** What was found so far, also of a request that is refused in the end: for the record, not for a decision. */
export interface Findings {
  hop?: string | undefined
  caller?: string | undefined
  jkt?: string | undefined
  /** Whether the request shows a WIT. */
  isWimse?: boolean
  /** In `mode: observe`: the first expectation that it does not meet. */
  observed?: Reason
}

/** Throws every reason of incoming requests; the caller outside hears only its OAuth class. */
export async function verifyRequest(
  options: VerifyOptions,
  inbound: Inbound,
  found: Findings = {},
): Promise<Verified> {
  const checking = begin(options, inbound, unmetBy(options, inbound, found))
  found.hop = checking.channel.hop?.name
  const { credentials, identity, ath, now, unmet } = checking
  found.isWimse = credentials.wit !== undefined
  const { name: route } = inbound.route
  const check = ath === undefined ? undefined : { route, identity, ath, now, unmet, skew: options.skew }
  const judged =
    check && credentials.token !== undefined && !isJwtSvid(checking)
      ? checkAccessToken(options.tokens, credentials.token, check)
      : undefined
  const token = judged instanceof Promise ? await judged : judged
  found.caller = token && clientNameOf(token)
  const binding = bindingOf(options, checking, token)
  found.jkt = binding.jkt
  const caller = callerOf(checking, token, binding)
  found.caller = caller.names[0]
  options.denials.check(denialFacts(caller, token, binding))
  const transaction =
    identity.txnToken && (await transactionOf(options, checking, identity.txnToken, binding))
  const using = useUp(options, checking, caller, binding)
  if (using) await using
  const rule = ruleFor(checking, { caller, token, transaction })
  return {
    route: inbound.route.name,
    caller,
    binding,
    token,
    transaction,
    hop: checking.channel.hop?.name,
    rule,
  }
}

/** Methods that no grant can allow are refused whatever the mode is. */
function unmetBy({ observes }: VerifyOptions, { method }: Inbound, found: Findings): Unmet {
  return (fault) => {
    if (isNeverGranted(method) || observes?.() !== true) throw fault
    found.observed ??= fault.reason
  }
}

const EXPECTATIONS: ReadonlySet<Reason> = new Set(['caller_unexpected', 'policy_denied', 'scope_missing'])

function ruleFor(checking: Checking, sent: Sent): string | undefined {
  try {
    return checkExpected(checking, sent)
  } catch (caught) {
    const fault = Fault.from(caught)
    if (!EXPECTATIONS.has(fault.reason)) throw fault
    checking.unmet(fault)
    return undefined
  }
}

function begin(options: VerifyOptions, inbound: Inbound, unmet: Unmet): Checking {
  const { identity, platform, name } = inbound.route
  if (!identity || !platform) {
    const layer = identity ? 'platform' : 'identity'
    throw new Fault('route_unknown', `no ${layer} policy file says anything about the route ${name}`, {
      owner: layer,
    })
  }
  const credentials = credentialsIn(inbound.headers)
  const channel = channelOf(platform, inbound.peer, inbound.headers, unmet)
  const path = publicPathOf(inbound.route, canonicalUrl(`https://host${inbound.path}`).path)
  if (path === undefined) throw new Fault('route_unknown', `the path is none that ${name} receives`)
  return {
    inbound,
    credentials,
    identity,
    platform,
    channel,
    path,
    urls: platform.origins.map((origin) => origin + path),
    ath: credentials.token === undefined ? undefined : hashOf(credentials.token),
    unmet,
    now: nowSeconds(options.clock),
  }
}

function denialFacts(caller: Caller, token: AccessToken | undefined, binding: Binding): DenialFacts {
  const { jti, iat } = token?.claims ?? {}
  return {
    spiffeId: caller.spiffeId,
    issuer: token?.server.issuer,
    subject: caller.subject,
    clientId: caller.clientId,
    actor: caller.actors[0],
    tokenId: typeof jti === 'string' ? jti : undefined,
    jkt: binding.jkt,
    issuedAt: typeof iat === 'number' ? iat : undefined,
  }
}

/** One use of the proof, after all that shows it genuine: a stranger can neither learn of it nor use it up. */
function useUp(
  { nonces, replays, window }: VerifyOptions,
  { identity, platform }: Checking,
  caller: Caller,
  { proof }: Binding,
): void | Promise<void> {
  if (!proof) return
  const given = proof.nonce === undefined ? undefined : nonces.givenAt(proof.nonce)
  if (proof.nonce !== undefined && given === undefined) throw new Fault('proof_nonce')
  if (identity.nonce === 'required' && given === undefined) throw new Fault('proof_nonce')
  const { jkt, jti, made } = proof
  const subject = caller.names[0] ?? jkt
  const use = { scope: platform.scope, jkt, jti, subject, made: given ?? made, hasNonce: given !== undefined }
  const answer = replays.use(use)
  if (!(answer instanceof Promise)) return refuseUsed(answer, window)
  return answer.then((word) => refuseUsed(word, window))
}

function refuseUsed(word: Use, window: Seconds): void {
  switch (word) {
    case 'fresh':
      return
    case 'replayed':
      throw new Fault('proof_replayed')
    case 'floor':
      throw new Fault('replay_floor')
    case 'share':
      throw new Fault('rate_limited', 'the caller holds its whole share of the replay store', {
        retryAfterSeconds: window,
      })
  }
}
