/** All that is revoked, whoever said so: operators of this agent, lists, security events, other agents. */
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { DenialFacts, Denials } from './checking.ts'
import { type DenyRule, factKeys, holds, ruleId, ruleKey, spiffeIdsIn } from './deny-rule.ts'

/** `shared` is what other agents said; the rest is this agent's own. */
export type DenySource = 'file' | 'url' | 'events' | 'shared'

export interface DenylistOptions {
  readonly clock: Clock
  readonly revocations: Pick<Revocations, 'find' | 'list' | 'isEmpty'>
  /** Rules of one source. */
  readonly limit: number
}

interface Source {
  readonly rules: Map<string, DenyRule>
  readonly byKey: Map<string, readonly DenyRule[]>
}

const DAY: Seconds = 86_400
/** How long others take the word of an operator who gave no end; said anew every day. */
const OPEN_END: Seconds = 30 * DAY

/** Checks against every source; each is bounded, and each rule ends by itself. */
export class Denylist implements Denials {
  readonly #options: DenylistOptions
  readonly #sources = new Map<DenySource, Source>()
  readonly #watchers = new Set<(source: DenySource) => void>()

  constructor(options: DenylistOptions) {
    this.#options = options
  }

  check(facts: DenialFacts): void {
    const { clock, revocations } = this.#options
    if (!revocations.isEmpty) {
      const isRevoked =
        spiffeIdsIn(facts).some((id) => revocations.find('spiffe_id', id)) ||
        (facts.jkt !== undefined && revocations.find('jkt', facts.jkt))
      if (isRevoked) throw new Fault('token_revoked', 'an operator revoked the caller or its key')
    }
    if (this.#sources.size === 0) return
    const now = nowSeconds(clock)
    const keys = factKeys(facts)
    for (const { byKey } of this.#sources.values()) {
      for (const key of keys) {
        const rule = byKey.get(key)?.find((each) => holds(each, facts, now))
        if (rule) throw new Fault('token_revoked', `revoked until ${rule.until}: ${rule.reason}`)
      }
    }
  }

  /** The rules of `source` are now these; throws overloaded, and the old ones stay. */
  replace(source: DenySource, rules: readonly DenyRule[]): void {
    const now = nowSeconds(this.#options.clock)
    const next: Source = { rules: new Map(), byKey: new Map() }
    for (const rule of rules) {
      if (rule.until <= now) continue
      next.rules.set(ruleId(rule), rule)
      if (next.rules.size > this.#options.limit)
        throw new Fault('overloaded', `${this.#options.limit} rules of a denylist are in force; shorten it`)
    }
    for (const rule of next.rules.values()) {
      const key = ruleKey(rule)
      next.byKey.set(key, [...(next.byKey.get(key) ?? []), rule])
    }
    if (next.rules.size === 0) this.#sources.delete(source)
    else this.#sources.set(source, next)
    for (const watcher of this.#watchers) watcher(source)
  }

  /** The rules of `source` by their ids. */
  of(source: DenySource): ReadonlyMap<string, DenyRule> {
    return this.#sources.get(source)?.rules ?? new Map()
  }

  /** Rules in force of all sources but the operators'. */
  get count(): number {
    return [...this.#sources.values()].reduce((sum, { rules }) => sum + rules.size, 0)
  }

  /** What this agent itself says, by id: what others should hear. A list at a URL they read themselves. */
  own(): ReadonlyMap<string, DenyRule> {
    const now = nowSeconds(this.#options.clock)
    const own = new Map<string, DenyRule>()
    for (const rule of this.#operatorRules(now)) own.set(ruleId(rule), rule)
    for (const [source, { rules }] of this.#sources) {
      if (source === 'shared' || source === 'url') continue
      for (const [id, rule] of rules) if (rule.until > now) own.set(id, rule)
    }
    return own
  }

  /** Calls `watcher` on each change but the operators' until the returned function is called. */
  watch(watcher: (source: DenySource) => void): () => void {
    this.#watchers.add(watcher)
    return () => {
      this.#watchers.delete(watcher)
    }
  }

  #operatorRules(now: Seconds): readonly DenyRule[] {
    if (this.#options.revocations.isEmpty) return []
    return this.#options.revocations.list().flatMap(({ kind, value, since, until }) => {
      if (kind !== 'spiffe_id' && kind !== 'jkt') return []
      const end = until ?? now - (now % DAY) + OPEN_END
      return [{ [kind]: value, until: end, reason: `an operator revoked it at ${since}` }]
    })
  }
}
