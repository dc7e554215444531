/**
 * Txn-Tokens (draft-ietf-oauth-transaction-tokens): what a request is part of, said once for a trust domain and passed on
 * unmodified. They identify no caller: one counts only beside what binds the request and covers it.
 */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { RouteTxnToken } from '../policy/route.ts'
import { isJwsAlg, type Jws, parseJws, verifyJws } from '../spiffe/jws.ts'
import { type Claims, checkBegin, isDate, lifeOf, tooLong } from './access-token.ts'
import type { Binding } from './binding.ts'
import type { Checking, VerifyOptions } from './checking.ts'

/** What a verified Txn-Token says. */
export interface Transaction {
  readonly txn: string
  readonly subject: string
  readonly scopes: readonly string[]
  /** The workload that asked for it. */
  readonly requester: string
  readonly expires: Seconds
  /** What holds for the whole transaction (`tctx`); undefined where nothing is said. */
  readonly context: Claims | undefined
}

const TYPES: ReadonlySet<string> = new Set(['txntoken+jwt', 'application/txntoken+jwt'])
const KID_LIMIT = 512
const TEXT_LIMIT = 2_048

/**
 * The transaction of a request; undefined where the route takes none, or none came along and none is wanted. Throws
 * token_missing, proof_coverage, token_malformed, token_issuer, token_forged, token_audience, token_expired,
 * token_too_long, token_revoked, verifier_keys.
 */
export async function transactionOf(
  options: VerifyOptions,
  checking: Checking,
  rule: RouteTxnToken,
  binding: Binding,
): Promise<Transaction | undefined> {
  const { txnToken: text } = checking.credentials
  if (text === undefined) {
    if (!rule.isRequired) return undefined
    throw new Fault('token_missing', 'the route wants a Txn-Token, and none came along')
  }
  checkCovered(checking, binding)
  const jws = parseJws(text)
  if (!jws) throw malformed('it is not a compact JWS')
  await checkSignature(options, jws, rule)
  const transaction = transactionIn(checking, jws.payload, options.skew)
  if (!isFor(jws.payload['aud'], rule.audience)) throw new Fault('token_audience')
  checkDenied(options, rule, jws.payload, transaction)
  return transaction
}

/** By the proof (`tth`), the signature or the channel: else whoever is in between puts another in its place. */
function checkCovered({ channel }: Checking, { kind }: Binding): void {
  const covers = kind === 'wpt' || kind === 'http-signature' || kind === 'mtls'
  if (covers || channel.spiffeId !== undefined) return
  throw new Fault('proof_coverage', 'nothing that binds the request covers its Txn-Token')
}

async function checkSignature({ tokens }: VerifyOptions, jws: Jws, { server }: RouteTxnToken): Promise<void> {
  const { alg, crit, kid, typ } = jws.header
  if (typeof typ !== 'string' || !TYPES.has(typ.toLowerCase())) throw malformed('its typ is another')
  if (crit !== undefined) throw malformed('its header names critical extensions')
  if (!isJwsAlg(alg)) throw malformed('its alg is none that is taken')
  if (typeof kid !== 'string' || kid === '' || kid.length > KID_LIMIT) throw malformed('it names no key')
  // Its trust domain has one service that makes them; iss is not needed, and must not be another.
  const { iss } = jws.payload
  if (!server || (iss !== undefined && iss !== server.issuer)) throw new Fault('token_issuer')
  const key = await tokens.keys.find(server, kid)
  if (!key || !verifyJws(jws, key, alg)) throw new Fault('token_forged')
}

function transactionIn({ identity, now, unmet }: Checking, claims: Claims, skew: Seconds): Transaction {
  const { exp, iat, nbf, scope, tctx } = claims
  if (!isDate(exp)) throw malformed('it has no usable exp')
  if (!isDate(iat)) throw malformed('it has no usable iat')
  if (exp <= now - skew)
    throw new Fault('token_expired', `the Txn-Token expired ${Math.ceil(now - exp)} s ago`, {
      owner: 'caller',
    })
  checkBegin('iat', iat, now, skew)
  checkBegin('nbf', nbf, now, skew)
  const life = lifeOf(iat, exp, now)
  if (life > identity.maxTtl) unmet(tooLong(life, identity.maxTtl))
  if (tctx !== undefined && (typeof tctx !== 'object' || tctx === null || Array.isArray(tctx)))
    throw malformed('its tctx is no object')
  const text = (name: string) => textIn(claims, name)
  if (typeof scope !== 'string') throw malformed('it has no scope')
  return {
    txn: text('txn'),
    subject: text('sub'),
    scopes: scope.split(' ').filter((one) => one !== ''),
    requester: text('req_wl'),
    expires: exp,
    context: tctx as Claims | undefined,
  }
}

/** Its subject may be revoked, or the token itself. */
function checkDenied({ denials }: VerifyOptions, rule: RouteTxnToken, claims: Claims, of: Transaction): void {
  const { iat, jti } = claims
  denials.check({
    spiffeId: undefined,
    issuer: rule.server?.issuer,
    subject: of.subject,
    clientId: undefined,
    actor: undefined,
    tokenId: typeof jti === 'string' ? jti : undefined,
    jkt: undefined,
    issuedAt: Number(iat),
  })
}

function textIn(claims: Claims, name: string): string {
  const value = claims[name]
  if (typeof value !== 'string' || value === '' || value.length > TEXT_LIMIT)
    throw malformed(`it has no ${name}`)
  return value
}

function isFor(aud: unknown, wanted: string): boolean {
  return aud === wanted || (Array.isArray(aud) && aud.includes(wanted))
}

function malformed(what: string): Fault {
  return new Fault('token_malformed', `the Txn-Token is not one: ${what}`, { owner: 'caller' })
}
