/**
 * What leaves the agent for applications that send requests themselves: one request's headers, or the token where
 * custody lets an application hold it. Identity, rate, policy, token, proof, record, in this order.
 */
import { chooseEntry, entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import type { Millis, Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type Decision, decideBy, decideTarget, isDoorOpen } from '../policy/decide.ts'
import type { Door, Target } from '../policy/grant.ts'
import { hashOf } from '../proof/jwt.ts'
import type { Jkt } from '../proof/signer.ts'
import type { CanonicalUrl } from '../proof/target.ts'
import type { Call, Seen, Waits } from '../sign/admission.ts'
import type { Gone } from '../sign/over.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { AuditFacts } from '../telemetry/audit.ts'
import { bindRequest, bindToken } from './bind.ts'
import type { BindAsk, BindOptions } from './bound.ts'
import { refusesToken, wantsNonce } from './challenge.ts'
import {
  type Draft,
  isObservable,
  kindsOf,
  type PermitOptions,
  refusal,
  subjectOf,
  unknownTarget,
} from './permit.ts'
import { type ProbeChallenge, ProbeKeys, type ProbeTokenOptions } from './probe-token.ts'
import { factsOf, type Outcome, type RecordOptions } from './record.ts'
import type {
  HeadersAsk,
  Heard,
  ProbeAsk,
  ProbeEndAsk,
  ReleaseAsk,
  ReportAsk,
  SentAsk,
} from './release-ask.ts'
import { headersQuestion, type RequestAsk, type Who } from './release-question.ts'
import { sentSigning, signingOf } from './release-signing.ts'
import { decideToken } from './release-token.ts'
import { Signed, type SignedOwner } from './signed.ts'
import type { BoundToken } from './tokens.ts'
import { type Wait, whileLeased } from './wait.ts'

export interface ReleaseOptions extends BindOptions, PermitOptions, RecordOptions, ProbeTokenOptions {
  /** How long a caller waits for a token. */
  readonly timeout: Millis
}

/** One request's headers by lower-case name, for one use within a minute. */
export interface ReleasedHeaders {
  readonly headers: Readonly<Record<string, string>>
  readonly jkt: Jkt
  /** Seconds since 1970. */
  readonly expires: Seconds
  /** When the token in them ends: a connection that they opened should not outlive it. Absent where there is none. */
  readonly token_expires?: Seconds
}

/** Headers for one try of a request, for a proxy that sends it and tells of the answer. */
export interface SignedSending {
  readonly headers: Readonly<Record<string, string>>
  /** Whether the caller's Txn-Token goes along. */
  readonly isTransaction: boolean
  /** Learns from the answer; whether it asks for the same request with a nonce. */
  hear(heard: Heard): boolean
}

/** A token that is of use only with proofs of the key `jkt`, which stays with the agent. */
export interface ReleasedToken {
  readonly token: string
  readonly token_type: 'DPoP'
  readonly jkt: Jkt
  readonly expires: Seconds
}

/** An answer, and what its record says of it. */
interface Released<T> {
  readonly answer: T
  readonly facts: Pick<AuditFacts, 'jkt' | 'jti' | 'token'>
}

/** A token covers no request: each use wants a proof, which counts as what it is for. */
const TOKEN_METHOD = 'GET'

type ReleaseEvent = 'sign.headers' | 'token.release' | 'probe'

/** Releases credentials; each is on record before it leaves. */
export class Releases {
  readonly #options: ReleaseOptions
  readonly #signed: Signed
  readonly #probeKeys: ProbeKeys

  constructor(options: ReleaseOptions) {
    this.#options = options
    this.#signed = new Signed(options.clock)
    this.#probeKeys = new ProbeKeys(options)
  }

  /** Headers for one request. Throws what identity, rate, policy, key and the authorization server say. */
  async headers(workload: Workload, ask: HeadersAsk, gone?: Gone): Promise<ReleasedHeaders> {
    const signed: SignedOf = ({ kinds, decision }) => ({
      passed: ask.signedHeaders,
      signing: signingOf(ask, kinds, decision),
    })
    const { answer } = await this.#headers(workload, { ...ask, target: undefined }, signed, gone)
    return answer
  }

  /** Headers for one try of a request that a proxy sends. Throws as `headers`, and digest_required. */
  async sign(workload: Workload, ask: SentAsk, gone?: Gone): Promise<SignedSending> {
    const signed: SignedOf = (permitted) => sentSigning(ask, permitted.kinds, permitted)
    const { answer, asked } = await this.#headers(workload, ask, signed, gone)
    const { entry, identity, instance, kinds, target } = asked
    const owner = { spiffeId: entry.spiffeId, instance }
    const request = { jkt: answer.jkt, target: target.name, origin: ask.url.origin }
    return {
      headers: answer.headers,
      isTransaction: identity.passesTransaction,
      hear: (heard) => kinds.includes('dpop') && this.#hear(owner, request, heard),
    }
  }

  #headers(
    workload: Workload,
    ask: RequestAsk,
    signed: SignedOf,
    gone: Gone | undefined,
  ): Promise<{ readonly answer: ReleasedHeaders; readonly asked: BindAsk }> {
    const draft: Draft = { method: ask.method, workload, url: ask.url }
    return this.#release('sign.headers', draft, async (onEnd) => {
      const who = this.#identify(workload, ask, draft)
      const { url, method, query } = ask
      const { admission } = this.#options
      const call = callOf(who, method)
      const permitted = await admission.admit(call, new CallWaits(gone, onEnd), () =>
        this.#permit(this.#decide(call, ask, who), 'headers', draft, url),
      )
      const kinds = kindsOf(permitted.identity)
      const { decision, identity, target } = permitted
      const { passed, signing } = signed({ kinds, identity, decision })
      // Member by member, here and below: two spreads in one object cost 5 µs, a tenth of a signature, and a literal nothing.
      const asked: BindAsk = {
        workload,
        entry: who.entry,
        instance: who.instance,
        subject: who.subject,
        target,
        identity,
        kinds,
        method,
        url,
        query,
        passed,
        signing,
      }
      const bound = await this.#whileLeased(asked, gone, (wait) => bindRequest(this.#options, asked, wait))
      const { jkt, jti, ath, expires, tokenExpires: token_expires } = bound
      const owner = { spiffeId: who.entry.spiffeId, instance: who.instance }
      if (kinds.includes('dpop')) this.#signed.note(owner, url.htu, { jkt, target: target.name })
      const headers: Record<string, string> = {}
      for (const [name, value] of bound.headers) headers[name.toLowerCase()] = value
      const answer =
        token_expires === undefined ? { headers, jkt, expires } : { headers, jkt, expires, token_expires }
      return { answer: { answer, asked }, facts: { jkt, jti, token: ath?.slice(0, 16) } }
    })
  }

  #decide(call: Call, ask: RequestAsk, who: Who): Decision {
    const { admission, book } = this.#options
    const question = (target: Target) =>
      headersQuestion(who, ask, target, admission.contextOf(call, target).context)
    const rules = book.get()
    if (!ask.target) return decideBy(rules, ask.url, question)
    // The policy may be another one since the request was read.
    const target = rules.targetNamed(ask.target.name)
    if (!target) throw unknownTarget(ask.target.name)
    return decideTarget(rules, target, question(target))
  }

  /** Learns from the answer to a request just signed; whether the same request is to be tried once more, anew signed. */
  report(workload: Workload, ask: ReportAsk): boolean {
    const { entry, instance } = this.#identify(workload, ask, { method: '' })
    const owner = { spiffeId: entry.spiffeId, instance }
    const signed = this.#signed.find(owner, ask.url.htu)
    if (!signed) return false
    const wants = this.#hear(owner, { ...signed, origin: ask.url.origin }, ask)
    const isRetry = wants && signed.state !== 'retry'
    signed.state = isRetry ? 'granted' : 'first'
    return isRetry
  }

  /** Keeps the nonce of an answer, gives up a token that it refuses; whether it asks for the same with that nonce. */
  #hear(
    owner: SignedOwner,
    { jkt, origin, target }: { readonly jkt: Jkt; readonly origin: string; readonly target: string },
    { challenge, nonce, status }: Heard,
  ): boolean {
    const { nonces, tokens } = this.#options
    if (nonce !== undefined) nonces.learn(jkt, origin, nonce)
    const raw = ['WWW-Authenticate', challenge]
    if (refusesToken(status, raw) && this.#signed.mayRenew(owner))
      tokens.drop({ spiffeId: owner.spiffeId, instance: owner.instance.key, target, jkt })
    return nonce !== undefined && wantsNonce(status, raw)
  }

  /** The token itself. Throws as `headers`. */
  token(workload: Workload, ask: ReleaseAsk, gone?: Gone): Promise<ReleasedToken> {
    const draft: Draft = { method: '', workload }
    return this.#release('token.release', draft, async (onEnd) => {
      const who = this.#identify(workload, ask, draft)
      const { place } = ask
      const { bindAsk } = await this.#permitToken(
        { who, place, door: 'token' },
        draft,
        new CallWaits(gone, onEnd),
      )
      return released(
        await this.#whileLeased(bindAsk, gone, (wait) => bindToken(this.#options, bindAsk, wait)),
      )
    })
  }

  /** A token for the replay lab and a key of its own, or what its proof has to say. Throws as `token`. */
  probe(workload: Workload, ask: ProbeAsk, gone?: Gone): Promise<ReleasedToken | ProbeChallenge> {
    const draft: Draft = { method: '', workload }
    return this.#release<ReleasedToken | ProbeChallenge>('probe', draft, async (onEnd) => {
      const who = this.#identify(workload, ask, draft)
      const { place, proof } = ask
      const { bindAsk } = await this.#permitToken(
        { who, place, door: 'probe' },
        draft,
        new CallWaits(gone, onEnd),
      )
      const answer = await this.#whileLeased(bindAsk, gone, ({ signal }) =>
        this.#probeKeys.token(bindAsk, proof, signal),
      )
      return 'token' in answer ? released(answer) : { answer, facts: {} }
    })
  }

  /** Ends a key that the lab has had a token for: what a thief would hold is then refused wherever that is heard. */
  endProbe(workload: Workload, ask: ProbeEndAsk): Promise<{ readonly revoked: Jkt }> {
    const draft: Draft = { method: '', workload }
    return this.#release('probe', draft, async () => {
      const { entry, instance } = this.#identify(workload, ask, draft)
      const revoked = this.#probeKeys.revoke({ spiffeId: entry.spiffeId, instance }, ask.jkt)
      return { answer: { revoked }, facts: { jkt: revoked } }
    })
  }

  /** What policy says of a token for `place`. */
  async #permitToken(
    { who, place, door }: TokenCall,
    draft: Draft,
    waits: Waits,
  ): Promise<{ readonly bindAsk: BindAsk }> {
    const { admission, book } = this.#options
    const call = callOf(who, TOKEN_METHOD)
    const permitted = await admission.admit(call, waits, () => {
      const context = (target: Target) => admission.contextOf(call, target)
      const { decision, url } = decideToken(book.get(), { ...who, place, door, context })
      draft.url = url
      return this.#permit(decision, door, draft, url)
    })
    return { bindAsk: { ...who, ...permitted, kinds: ['dpop'], method: '', ...NOT_SENT } }
  }

  #identify(workload: Workload, ask: WhoAsk, draft: Draft): Who {
    const { rates, revocations, subjects } = this.#options
    const entry = chooseEntry(entitled(workload, revocations), ask.spiffeId)
    draft.entry = entry
    const instance = workload.instanceOf(entry)
    rates.takeOf({ spiffeId: entry.spiffeId, instance })
    const subject = subjectOf(subjects, { spiffeId: entry.spiffeId, instance }, ask.subject)
    draft.subject = subject
    return { workload, entry, instance, subject }
  }

  /** The target of `decision` with its statements; throws the refusal. Custody is never only observed. */
  #permit(decision: Decision, door: Door, draft: Draft, url: CanonicalUrl): Permitted {
    const { book, revocations } = this.#options
    draft.decision = decision
    const { target } = decision
    if (target) {
      draft.target = target
      revocations.check([['target', target.name]])
    }
    if (decision.allowed) return { target: decision.target, identity: decision.identity, decision, url }
    const isObserved = door === 'headers' && book.get().observe && isObservable(decision, draft.method)
    if (!isObserved || !target?.identity || !isDoorOpen(target.identity, door)) throw refusal(decision)
    return { target, identity: target.identity, decision, url }
  }

  /** What `make` resolves to, unless lease, caller, time or an operator end it before. */
  async #whileLeased<T>(
    ask: BindAsk,
    gone: Gone | undefined,
    make: (wait: Wait) => T | Promise<T>,
  ): Promise<T> {
    const { clock, revocations, timeout } = this.#options
    const { entry, instance, target, workload } = ask
    const made = await whileLeased({ clock, timeout, workload, instance, gone }, make)
    revocations.check([
      ['spiffe_id', entry.spiffeId],
      ['target', target.name],
    ])
    return made
  }

  async #release<T>(
    event: ReleaseEvent,
    draft: Draft,
    make: (onEnd: Waits['onEnd']) => Promise<Released<T>>,
  ): Promise<T> {
    const { audit, metrics } = this.#options
    audit.check()
    const ends: (() => void)[] = []
    try {
      const { answer, facts } = await make((leave) => ends.push(leave))
      this.#record(event, draft, { allowed: true, ...facts })
      if (event === 'sign.headers') metrics.count('holdfast_proofs_total', { kind: 'headers' })
      else metrics.count('holdfast_tokens_total', { kind: 'released', reason: 'ok' })
      return answer
    } catch (caught) {
      const fault = Fault.from(caught)
      this.#record(event, draft, { allowed: false, reason: fault.reason, owner: fault.owner })
      metrics.count('holdfast_refusals_total', { reason: fault.reason })
      throw fault
    } finally {
      for (const leave of ends) leave()
      await audit.settle()
    }
  }

  #record(event: ReleaseEvent, draft: Draft, outcome: Outcome): void {
    const { audit, book } = this.#options
    audit.append(factsOf(event, draft, book.get().hash, outcome))
  }
}

function released(bound: BoundToken): Released<ReleasedToken> {
  const { jkt, expires } = bound
  const token = bound.token.reveal()
  const answer = { token, token_type: 'DPoP', jkt, expires } as const
  return { answer, facts: { jkt, token: hashOf(token).slice(0, 16) } }
}

/** The signal of the caller is made for those who wait. A class: a getter in a literal costs 2 µs a call. */
class CallWaits implements Waits {
  readonly #gone: Gone | undefined
  readonly onEnd: Waits['onEnd']

  constructor(gone: Gone | undefined, onEnd: Waits['onEnd']) {
    this.#gone = gone
    this.onEnd = onEnd
  }

  get gone(): AbortSignal | undefined {
    return this.#gone?.()
  }
}

function callOf({ workload, entry, instance, subject }: Who, method: string) {
  return { workload, entry, instance, subject, method, onBehalf: subject?.claims }
}

/** For a token alone there is no request. */
const NOT_SENT = { query: '', passed: [], signing: { names: [], digest: undefined } } as const

/** As whom the caller asks, and on whose behalf. */
interface WhoAsk {
  readonly spiffeId: SpiffeId | undefined
  readonly subject?: string | undefined
}

/** What of the request goes along and is signed, once it is permitted. */
type SignedOf = (
  permitted: Pick<BindAsk, 'kinds' | 'identity'> & Pick<Seen, 'decision'>,
) => Pick<BindAsk, 'passed' | 'signing'>

type Permitted = Pick<BindAsk, 'target' | 'identity' | 'url'> & Pick<Seen, 'decision'>

interface TokenCall {
  readonly who: Who
  readonly place: ReleaseAsk['place']
  readonly door: 'token' | 'probe'
}
