/**
 * What a request has to pass beside policy's own answer, the same at every door: the target's rate and concurrency, a
 * person's approval, the decision hook. It is decided and counted in one step, with nothing between, so that two
 * requests under way are never both the last one that a budget allows.
 */
import type { Instance, Workload } from '../attest/workload.ts'
import { type Clock, type Millis, nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Allowed, CallContext, Decision } from '../policy/decide.ts'
import type { Entry } from '../policy/entry.ts'
import type { Approval, Target } from '../policy/grant.ts'
import { placeText } from '../policy/statements.ts'
import type { CanonicalUrl } from '../proof/target.ts'
import type { Approvals } from './approvals.ts'
import { cannotWait, type Hook, type HookFacts } from './hook.ts'
import { methodName } from './method.ts'
import { checkOver } from './over.ts'
import type { Rates } from './rate.ts'
import { Sessions, type SubjectFacts } from './sessions.ts'

export interface AdmissionOptions {
  readonly book: Live<RuleBook>
  readonly rates: Rates
  readonly clock: Clock
  readonly approvals: Approvals
  /** Absent: none is configured. */
  readonly hook: Hook | undefined
}

/** Who asks, and what for. */
export interface Call {
  readonly workload: Workload
  readonly entry: Entry
  readonly instance: Instance
  /** Absent: the call covers every method. */
  readonly method: string | undefined
  /** What the token that the workload was called with says; nobody has verified it yet. */
  readonly onBehalf?: SubjectFacts | undefined
}

/** How a door waits. */
export interface Waits {
  /** Aborts when the caller has gone. */
  readonly gone: AbortSignal | undefined
  /** Hears how long the request may wait for a person from now on. */
  readonly begin?: (limit: Millis) => void
  /** Takes what gives the request's place at the target back when it is over. */
  readonly onEnd: (leave: () => void) => void
}

/** What a door found when it asked policy: it throws refusals that are carried out. */
export interface Seen {
  readonly target: Target
  readonly url: CanonicalUrl
  readonly decision: Decision
}

type Demand =
  | {
      readonly kind: 'approval'
      readonly key: string
      readonly approval: Approval
      readonly allowed: Allowed
    }
  | { readonly kind: 'hook'; readonly key: string; readonly facts: HookFacts }

/** Policy may change while a request waits; not for ever. */
const ROUNDS = 4
const MILLIS = 1000
const NOTHING: ReadonlySet<string> = new Set()

/** Admits calls, and counts those it admits. */
export class Admission {
  readonly #options: AdmissionOptions
  readonly #sessions = new Sessions()

  constructor(options: AdmissionOptions) {
    this.#options = options
  }

  /** What a call to `target` is judged by, for its question; nothing where policy asks for nothing of the kind. */
  contextOf(call: Call, target: Target): { readonly context?: CallContext } {
    return this.#options.book.get().needsContext ? { context: this.#contextAt(call, target) } : {}
  }

  /** A subject counts only where its token is exchanged, and so verified, before anything goes out: else it may be made up. */
  #contextAt({ instance, onBehalf }: Call, { identity, name }: Target): CallContext {
    const subject = identity?.exchange ? onBehalf : undefined
    return this.#sessions.of(instance).contextOf(name, nowSeconds(this.#options.clock), subject)
  }

  /**
   * Looks until policy allows the call with all that its grant demands, and counts it. Throws what `look` throws,
   * rate_limited, target_busy, approval_refused, hook_unavailable, policy_denied, and why the call is over. At once
   * where the grant demands nothing.
   */
  admit<T extends Seen>(call: Call, waits: Waits, look: () => T): T | Promise<T> {
    const seen = look()
    this.limit(call, seen.target)
    waits.onEnd(this.#sessions.of(call.instance).enter(seen.target))
    if (this.#demandOf(call, seen, NOTHING)) return this.#admitLater(call, waits, seen, look)
    this.#count(call, seen)
    return seen
  }

  async #admitLater<T extends Seen>(call: Call, waits: Waits, first: T, look: () => T): Promise<T> {
    let seen = first
    const given = new Set<string>()
    for (let round = 0; round <= ROUNDS; round++) {
      const demand = this.#demandOf(call, seen, given)
      if (!demand) {
        this.#count(call, seen)
        return seen
      }
      await this.#obtain(call, waits, seen, demand)
      checkOver({ ...call, gone: waits.gone })
      given.add(demand.key)
      seen = look()
    }
    throw new Fault('approval_refused', 'policy went on changing while the request waited')
  }

  /** As admit, for a door that cannot wait: what would have to be waited for is refused. */
  admitNow<T extends Seen>(call: Call, look: () => T): T {
    const seen = look()
    this.limit(call, seen.target)
    const given = new Set<string>()
    for (;;) {
      const demand = this.#demandOf(call, seen, given)
      if (!demand) break
      if (demand.kind === 'approval') throw approvalElsewhere(seen.target)
      if (!this.#options.hook) throw cannotWait()
      this.#options.hook.check(demand.facts)
      given.add(demand.key)
    }
    this.#count(call, seen)
    return seen
  }

  /** Throws rate_limited when the instance makes more requests than platform lets it make to `target`. */
  limit({ entry, instance }: Call, { name, platform }: Target): void {
    if (platform?.rate === undefined) return
    this.#options.rates.take(`${instance.key} ${entry.spiffeId} ${name}`, instance.signal, platform.rate)
  }

  #count({ instance, method }: Call, { target }: Seen): void {
    if (this.#options.book.get().needsContext) this.#sessions.of(instance).count(target.name, method)
  }

  #demandOf(call: Call, seen: Seen, given: ReadonlySet<string>): Demand | undefined {
    const { decision, target } = seen
    if (!decision.allowed) return undefined
    const { approval, asksHook } = decision.grant
    if (approval) {
      const key = `${this.#options.book.get().hash} ${placeText(decision.rule)} ${target.name}`
      const isGiven = approval.on === 'first_use' ? this.#isApproved(call, target) : given.has(key)
      if (!isGiven) return { kind: 'approval', key, approval, allowed: decision }
    }
    if (!asksHook) return undefined
    const key = `hook ${this.#options.book.get().hash} ${target.name} ${decision.path}`
    if (given.has(key)) return undefined
    return { kind: 'hook', key, facts: this.#factsOf(call, seen, decision) }
  }

  #isApproved({ instance }: Call, target: Target): boolean {
    return this.#sessions.of(instance).isApproved(target.name)
  }

  async #obtain(call: Call, waits: Waits, { target }: Seen, demand: Demand): Promise<void> {
    const { approvals, hook } = this.#options
    const { entry, instance, method, workload } = call
    const hold = { workload, instance, gone: waits.gone }
    if (demand.kind === 'hook') {
      if (!hook) throw new Fault('hook_unavailable', 'no decision hook is configured')
      return hook.ask(demand.facts, hold)
    }
    const { allowed, approval } = demand
    waits.begin?.(approval.wait * MILLIS)
    await approvals.wait({
      ...hold,
      spiffeId: entry.spiffeId,
      target: target.name,
      method: methodName(method ?? ''),
      path: allowed.path,
      approval,
    })
    if (approval.on === 'first_use') this.#sessions.of(instance).approve(target.name)
  }

  #factsOf(call: Call, { target, url }: Seen, { path }: Allowed): HookFacts {
    const { entry, method, workload } = call
    const context = this.#contextAt(call, target)
    return {
      spiffe_id: entry.spiffeId,
      selectors: workload.selectors,
      target: target.name,
      method: method ?? '',
      granted_path: path,
      path: url.path,
      policy: this.#options.book.get().hash,
      ...(context.subject === '' ? {} : { subject: context.subject }),
      ...(context.actors.length === 0 ? {} : { actors: context.actors }),
      ...(context.txn === '' ? {} : { txn: context.txn }),
      time: context.now,
      session: {
        calls: context.calls,
        writes: context.writes,
        targets: context.targets,
        first_use: context.isFirstUse,
      },
    }
  }
}

function approvalElsewhere({ name }: Target): Fault {
  return new Fault(
    'approval_refused',
    `a person has to agree to the use of ${name}, and this door cannot wait for one`,
    { action: 'Use the egress door, or ask for headers (RequestHeaders, POST /v1/headers), which wait.' },
  )
}
