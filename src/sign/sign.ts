/**
 * One proof for one attested caller: identity, rate, policy, token, key, signature, record, in this order. There is no
 * other way to a signature, and nothing signed here was composed by the caller.
 */
import { chooseEntry, entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import { type Clock, nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { Vault } from '../keys/vault.ts'
import type { RuleBook } from '../policy/book.ts'
import { type Decision, type Denied, decide, decideBy, isDoorOpen, type Question } from '../policy/decide.ts'
import type { Entry } from '../policy/entry.ts'
import type { Target } from '../policy/grant.ts'
import { isNeverGranted } from '../policy/methods.ts'
import type { Revocations } from '../policy/revocations.ts'
import { makeDpop } from '../proof/dpop.ts'
import { hashOf } from '../proof/jwt.ts'
import type { Jkt, Signer } from '../proof/signer.ts'
import { makeWpt } from '../proof/wpt.ts'
import type { Audit, AuditFacts } from '../telemetry/audit.ts'
import type { Admission, Call, Seen } from './admission.ts'
import type { Ask, DpopAsk, TokenPart, WptAsk } from './ask.ts'
import { methodName } from './method.ts'
import type { Rates } from './rate.ts'
import { readToken } from './token.ts'

/** A signed proof and its public facts; `iat` of a DPoP proof, `exp` and `wit` of a WPT. */
export interface SignedProof {
  readonly proof: string
  readonly jkt: Jkt
  readonly jti: string
  readonly iat?: number
  readonly exp?: number
  readonly wit?: string
}

export interface SigningOptions {
  readonly vault: Vault
  readonly book: Live<RuleBook>
  readonly revocations: Revocations
  readonly rates: Rates
  readonly admission: Admission
  readonly audit: Audit
  readonly clock: Clock
  /** The WIT-SVID over a held key; absent when the WIT profile is off. */
  readonly heldWit: ((entry: Entry, signer: Signer) => string) | undefined
  /** Hears of each proof made and of each refusal. */
  readonly onProof: (kind: Ask['kind'], fault: Fault | undefined) => void
}

/** Signs for callers. */
export class Signing {
  readonly #options: SigningOptions

  constructor(options: SigningOptions) {
    this.#options = options
  }

  /**
   * The proof that `ask` wants. Its record is appended, not yet written: the answer may leave only after
   * `audit.commit()`. Throws what identity, policy, token or key say.
   */
  sign(workload: Workload, ask: Ask): SignedProof {
    const facts: Draft = {}
    try {
      const signed = this.#sign(workload, ask, facts)
      this.#record(workload, ask, facts, { allowed: true, jkt: signed.jkt, jti: signed.jti })
      this.#options.onProof(ask.kind, undefined)
      return signed
    } catch (caught) {
      const fault = Fault.from(caught)
      this.#record(workload, ask, facts, { allowed: false, reason: fault.reason, owner: fault.owner })
      this.#options.onProof(ask.kind, fault)
      throw fault
    }
  }

  #sign(workload: Workload, ask: Ask, facts: Draft): SignedProof {
    const { admission, revocations, rates } = this.#options
    const entry = chooseEntry(entitled(workload, revocations), ask.spiffeId)
    facts.entry = entry
    const instance = workload.instanceOf(entry)
    rates.takeOf({ spiffeId: entry.spiffeId, instance })
    const method = ask.kind === 'dpop' ? ask.method : undefined
    const call = { workload, entry, instance, method }
    const { target } = admission.admitNow(call, () => this.#permit(call, ask, facts))
    return ask.kind === 'dpop'
      ? this.#dpop(workload, entry, target, ask)
      : this.#wpt(workload, entry, target, ask)
  }

  /** The target that policy allows the request for; throws its refusal. */
  #permit(call: Call, ask: Ask, facts: Draft): Seen {
    const book = this.#options.book.get()
    const { url } = ask
    const decision = this.#decide(book, call, ask)
    const { target } = decision
    facts.target = target?.name
    facts.decision = decision
    if (target) this.#options.revocations.check([['target', target.name]])
    if (decision.allowed) return { target: decision.target, url, decision }
    const isOpen = target?.identity && isDoorOpen(target.identity, 'headers')
    if (book.observe && isOpen && isObservable(decision, ask)) return { target, url, decision }
    const { reason, owner, message, action } = decision
    throw new Fault(reason, message, { owner, action })
  }

  /** What the instance did before is looked up only where some grant asks for it. */
  #decide(book: RuleBook, call: Call, ask: Ask): Decision {
    const { entry, method, workload } = call
    const question: Question = {
      door: 'headers',
      kind: ask.kind,
      spiffeId: entry.spiffeId,
      entry,
      method,
      url: ask.url,
      token: ask.token.form,
      selectors: workload.selectors,
    }
    if (!book.needsContext) return decide(book, question)
    const { admission } = this.#options
    return decideBy(book, ask.url, (target) => ({ ...question, ...admission.contextOf(call, target) }))
  }

  #dpop(workload: Workload, entry: Entry, target: Target, ask: DpopAsk): SignedProof {
    const signer = this.#signerOf(workload, entry, target, ask)
    const claims = { htm: ask.method, htu: ask.url.htu, ath: athOf(ask.token), nonce: ask.nonce }
    const { proof, jti, iat } = makeDpop(signer, claims, this.#options.clock)
    return { proof, jkt: signer.jkt, jti, iat }
  }

  #wpt(workload: Workload, entry: Entry, target: Target, ask: WptAsk): SignedProof {
    const { heldWit, vault, clock } = this.#options
    if (!heldWit)
      throw new Fault('unimplemented', 'WPTs are off: `wit: on` in the configuration enables them')
    const owner = { spiffeId: entry.spiffeId, instance: workload.instanceOf(entry) }
    const ceiling = target.identity?.maxTtl ?? 0
    if (ask.token.form === 'full') this.#checkToken(ask.token.token.reveal(), owner, ceiling)
    const signer = vault.signerFor(owner, 'wpt', ceiling)
    this.#refuseRevoked(signer.jkt)
    const wit = heldWit(entry, signer)
    const tth =
      ask.transaction &&
      ('tth' in ask.transaction ? ask.transaction.tth : hashOf(ask.transaction.token.reveal()))
    const { proof, jti, exp } = makeWpt(signer, { aud: ask.url.htu, wit, ath: athOf(ask.token), tth }, clock)
    return { proof, jkt: signer.jkt, jti, exp, wit }
  }

  /** The key that the token is bound to, the key the caller names, or the target's current one. */
  #signerOf(workload: Workload, entry: Entry, target: Target, ask: DpopAsk): Signer {
    const owner = { spiffeId: entry.spiffeId, instance: workload.instanceOf(entry) }
    const ceiling = target.identity?.maxTtl ?? 0
    const bound =
      ask.token.form === 'full' ? this.#checkToken(ask.token.token.reveal(), owner, ceiling) : undefined
    if (bound && ask.jkt && bound !== ask.jkt) {
      throw new Fault('token_foreign', 'the access token is bound to another key than jkt names')
    }
    const named = bound ?? ask.jkt
    const signer = named
      ? this.#named(owner, named, purposeOf(target))
      : this.#options.vault.signerFor(owner, purposeOf(target), ceiling)
    this.#refuseRevoked(signer.jkt)
    return signer
  }

  #checkToken(token: string, owner: Owned, ceiling: number): Jkt {
    const { jkt } = readToken(token, nowSeconds(this.#options.clock), ceiling)
    this.#refuseRevoked(jkt)
    if (!this.#options.vault.find(owner, jkt)) throw new Fault('token_foreign')
    return jkt
  }

  #named(owner: Owned, jkt: Jkt, purpose: string): Signer {
    this.#refuseRevoked(jkt)
    const held = this.#options.vault.find(owner, jkt)
    if (!held) throw new Fault('key_lost')
    if (held.facts.purpose !== purpose)
      throw new Fault('key_purpose', `the key serves ${held.facts.purpose}, wanted ${purpose}`)
    return held.signer
  }

  #refuseRevoked(jkt: Jkt): void {
    this.#options.revocations.check([['jkt', jkt]])
  }

  #record(workload: Workload, ask: Ask, draft: Draft, outcome: Outcome): void {
    const { entry, target, decision } = draft
    const { pid, uid } = workload.peer
    const place = decision && (decision.allowed ? decision.rule : decision.nearest)
    this.#options.audit.append({
      event: ask.kind === 'dpop' ? 'sign.dpop' : 'sign.wpt',
      allowed: outcome.allowed,
      reason: outcome.reason,
      owner: outcome.owner,
      jkt: outcome.jkt,
      jti: outcome.jti,
      observed: outcome.allowed && decision && !decision.allowed ? decision.reason : undefined,
      spiffe_id: entry?.spiffeId,
      entry: entry?.name,
      pid,
      uid,
      target,
      rule: place && `${place.file}:${place.line}`,
      method: ask.kind === 'dpop' ? methodName(ask.method) : undefined,
      origin: ask.url.origin,
      path: decision?.allowed ? decision.path : undefined,
      token: athOf(ask.token)?.slice(0, 16),
      policy: this.#options.book.get().hash,
    })
  }
}

type Owned = Parameters<Vault['find']>[0]
type Outcome = Pick<AuditFacts, 'allowed' | 'reason' | 'owner' | 'jkt' | 'jti'>

/** What is known of a request as far as it got. */
interface Draft {
  entry?: Entry
  target?: string | undefined
  decision?: Decision
}

/**
 * `mode: observe` lets through what rules have not foreseen yet. What security denies, what custody keeps from
 * applications and what no list can grant stays refused.
 */
function isObservable({ reason, owner }: Denied, ask: Ask): boolean {
  if (ask.kind === 'dpop' && isNeverGranted(ask.method)) return false
  return owner !== 'security' && (reason === 'policy_denied' || reason === 'token_required')
}

/** RFC 9449 s.4.2: base64url SHA-256 of the access token. */
function athOf(token: TokenPart): string | undefined {
  if (token.form === 'full') return hashOf(token.token.reveal())
  return token.form === 'hash' ? token.ath : undefined
}

/** Token and resource requests of one authorization server share a key; without a server each target has its own. */
export function purposeOf(target: Target): string {
  const server = target.identity?.server
  return server ? `dpop:${server.issuer}` : `dpop:target/${target.name}`
}
