/**
 * The verifier as services ask it: who asks, about which route, whether the request holds, on record before the answer
 * leaves. Who may not ask is refused before anything is looked at, so that a stranger learns nothing and uses nothing up.
 */
import { nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { Secret } from '../base/secret.ts'
import type { Subjects } from '../egress/subjects.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { Route } from '../policy/route.ts'
import { hashOf } from '../proof/jwt.ts'
import { methodName } from '../sign/method.ts'
import { verifyX509Svid } from '../spiffe/x509svid.ts'
import type { Audit, AuditFacts } from '../telemetry/audit.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { type Answer, answerOf } from './answer.ts'
import { type Asker, routeAskedFor } from './asker.ts'
import { ProofCarriers } from './binding-lost.ts'
import { type Challenge, challengeOf } from './challenge.ts'
import type { VerifyOptions } from './checking.ts'
import { type ChannelPeer, credentialsIn, type RawHeaders } from './inbound.ts'
import type { AskedPeer, Question } from './question.ts'
import { checkShownBody } from './signed-body.ts'
import { type Findings, type Verified, verifyRequest } from './verify.ts'

export interface VerifierOptions extends VerifyOptions {
  readonly revocations: Revocations
  readonly audit: Audit
  readonly metrics: Metrics
  /** Where tokens are kept behind handles; loaded when a route hands one out. */
  readonly subjects: () => Promise<Subjects>
  /** The hash of the policy in force. */
  readonly policy: () => string
}

/** What became of the request; `fault` is for the service that asked, `challenge` for whoever sent the request. */
export type Outcome = { readonly answer: Answer } | { readonly fault: Fault; readonly challenge: Challenge }

/** Answers questions about requests. */
export class Verifier {
  readonly #options: VerifierOptions
  readonly #carriers: ProofCarriers

  constructor(options: VerifierOptions) {
    this.#options = options
    this.#carriers = new ProofCarriers(options.clock)
  }

  /** Throws verifier_foreign, audit_unavailable: then there is no outcome. */
  async ask(asker: Asker, question: Question): Promise<Outcome> {
    const { audit } = this.#options
    audit.check()
    const found: Findings = {}
    let route: Route | undefined
    try {
      route = this.#routeFor(asker, question)
      const verified = await this.#verify(question, route, found)
      checkShownBody(verified.binding, question.body)
      const answer = await this.#answer(asker, question, route, verified)
      this.#recordAllowed(asker, question, verified, found)
      return { answer }
    } catch (caught) {
      const fault = Fault.from(caught)
      this.#recordRefused(asker, question, { fault, route, found })
      if (fault.reason === 'verifier_foreign') throw fault
      return { fault, challenge: challengeOf(fault, route, this.#options.nonces, found.isWimse) }
    } finally {
      await audit.settle()
    }
  }

  /** Reads the question of a proxy, whose parts are an outside caller's: what none can be made of is refused on record. */
  async read(asker: Asker, make: () => Question): Promise<Question> {
    const { audit, metrics, policy } = this.#options
    try {
      return make()
    } catch (caught) {
      const fault = Fault.from(caught)
      const { reason, owner } = fault
      metrics.count('holdfast_verified_total', { reason })
      audit.append({ event: 'verify', allowed: false, reason, owner, ...asker.facts, policy: policy() })
      await audit.settle()
      throw fault
    }
  }

  #routeFor(asker: Asker, question: Question): Route {
    const { revocations, routes } = this.#options
    return routeAskedFor(routes(), question, asker.names(revocations))
  }

  #verify(
    { method, path, query, headers, peer }: Question,
    route: Route,
    found: Findings,
  ): Promise<Verified> {
    const inbound = { method, path, query, headers, peer: this.#peerOf(peer), route }
    return verifyRequest(this.#options, inbound, found)
  }

  /** A certificate that is no SVID of a trusted domain still shows possession of its key (RFC 8705 s.3), and names nobody. */
  #peerOf({ chain, address }: AskedPeer): ChannelPeer {
    const { bundleOf, clock } = this.#options
    const [certificate] = chain
    if (!certificate) return { certificate, spiffeId: undefined, address }
    try {
      const { spiffeId } = verifyX509Svid(chain, bundleOf, nowSeconds(clock))
      return { certificate, spiffeId, address }
    } catch {
      return { certificate, spiffeId: undefined, address }
    }
  }

  async #answer(asker: Asker, question: Question, route: Route, verified: Verified): Promise<Answer> {
    const { identity } = route
    const handle =
      identity?.handsOut === 'handle' ? await this.#handleFor(asker, question, verified) : undefined
    const nonce = identity?.nonce === 'required' ? this.#options.nonces.current() : undefined
    return answerOf(verified, { handle, nonce })
  }

  /**
   * Of use to the asking workload's identity and instance alone, and another for each verified transaction; undefined
   * where no token came along, or it is on another machine.
   */
  async #handleFor(
    asker: Asker,
    { headers, spiffeId }: Question,
    { transaction }: Verified,
  ): Promise<string | undefined> {
    const { token } = credentialsIn(headers)
    if (token === undefined) return undefined
    const owner = asker.owner(this.#options.revocations, spiffeId)
    if (!owner) return undefined
    const subjects = await this.#options.subjects()
    return subjects.add(owner, new Secret(token), transaction?.txn).handle
  }

  #recordAllowed(asker: Asker, question: Question, verified: Verified, { observed }: Findings): void {
    const { route, binding, caller, hop, rule } = verified
    if (binding.proof) this.#carriers.carried(route, hop ?? DIRECT)
    const outcome = observed ? { reason: 'observed', observed } : { reason: 'ok' }
    this.#options.metrics.count('holdfast_verified_total', outcome)
    this.#append(asker, question, {
      allowed: true,
      ...(observed ? { observed } : {}),
      route,
      hop,
      caller: caller.names[0],
      jkt: binding.jkt,
      rule,
      ...(isBodyOpen(verified, question) ? { detail: BODY_OPEN } : {}),
    })
  }

  #recordRefused(asker: Asker, question: Question, { fault, route, found }: Refused): void {
    const { metrics } = this.#options
    const { reason, owner } = fault
    const { isWimse: _, observed: __, ...facts } = found
    const { hop = DIRECT } = facts
    metrics.count('holdfast_verified_total', { reason })
    if (route && this.#carriers.hasLost(route.name, hop, fault, question.headers))
      metrics.count('holdfast_binding_lost_total', { hop: wordOf(hop) })
    this.#append(asker, question, { allowed: false, reason, owner, route: route?.name, ...facts })
  }

  #append(asker: Asker, question: Question, facts: Omit<AuditFacts, 'event'>): void {
    this.#options.audit.append({
      event: 'verify',
      ...facts,
      method: methodName(question.method),
      token: athPrefix(question.headers),
      ...asker.facts,
      policy: this.#options.policy(),
    })
  }
}

const BODY_OPEN = 'the body is for the service to compare with the digest that was signed'

/** Whether the signature covers a body that was not shown: who has it may refuse it yet, on its own record. */
function isBodyOpen({ binding }: Verified, { body }: Question): boolean {
  return binding.contentDigest !== undefined && body?.whole === undefined
}

interface Refused {
  readonly fault: Fault
  readonly route: Route | undefined
  readonly found: Findings
}

/** What a metric calls the way of callers that connect themselves. */
const DIRECT = 'none'

/** Policy's names have dashes and slashes, labels of metrics are words. */
function wordOf(hop: string): string {
  return hop
    .replace(/[^A-Za-z0-9_.]/g, '_')
    .replace(/^[^A-Za-z]/, 'h$&')
    .slice(0, 40)
}

/** Also of a request whose credentials cannot be read. */
function athPrefix(headers: RawHeaders): string | undefined {
  try {
    const { token } = credentialsIn(headers)
    return token === undefined ? undefined : hashOf(token).slice(0, 16)
  } catch {
    return undefined
  }
}
