/** Carries security events out: checked, within what policy gives their transmitter, each once, kept across restarts. */
import { hash } from 'node:crypto'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Server } from '../policy/grant.ts'
import { speaksOf, type Transmitter } from '../policy/transmitter.ts'
import type { TokenKeys } from './access-token.ts'
import type { DenyRule } from './deny-rule.ts'
import type { Denylist } from './denylist.ts'
import { type EventRule, readEventRules, writeEventRules } from './event-journal.ts'
import { type EventEffect, effectKey, effectOf } from './event-rules.ts'
import { type EventSubject, isMembers, subjectOf } from './event-subject.ts'
import { checkSet, OLDEST, type SecurityEventToken, SetRefusal } from './event-token.ts'

/** What became of one event, for the audit. */
export interface EventNote {
  readonly transmitter: string
  readonly subject: EventSubject
  readonly what: string
}

export interface EventsOptions {
  readonly clock: Clock
  readonly denylist: Denylist
  readonly transmitters: () => readonly Transmitter[]
  /** Keys of transmitters, by their issuer. */
  readonly keys: TokenKeys
  readonly skew: Seconds
  /** The longest life of a credential that is taken here: until then a revoked one could come. */
  readonly life: () => Seconds
  /** Where what they revoked is kept; in memory only when absent. */
  readonly file: string | undefined
  readonly onEvent: (note: EventNote) => void
}

const RULES_LIMIT = 10_000
const SEEN_LIMIT = 50_000
/** How long a device is out of compliance at most without being said so again. */
const LASTING: Seconds = 30 * 86_400

export class SecurityEvents {
  readonly #options: EventsOptions
  readonly #rules: Map<string, EventRule>
  /** When what was lasting was lifted: a SET that is older, and comes late, brings it not back. */
  readonly #lifted = new Map<string, Seconds>()
  /** Hashes of issuer and jti, to when they may be forgotten. */
  readonly #seen = new Map<string, Seconds>()

  /** Throws config_invalid when the file is there and cannot be understood. */
  constructor(options: EventsOptions) {
    this.#options = options
    const kept = options.file === undefined ? [] : readEventRules(options.file)
    this.#rules = new Map(kept.map((each) => [each.key, each]))
    this.#apply()
  }

  /** On disk and in force when this resolves. Throws SetRefusal, verifier_keys, overloaded. */
  async take(token: string, transmitter: Transmitter): Promise<void> {
    const { clock, keys, skew } = this.#options
    const now = nowSeconds(clock)
    const server = { issuer: transmitter.issuer } as Server
    const checked = await checkSet(token, { transmitter, keyOf: (kid) => keys.find(server, kid), now, skew })
    const name = hash('sha256', `${transmitter.issuer.length}.${transmitter.issuer}${checked.jti}`)
    // One that is told again is taken and does nothing (RFC 8935 s.2.2).
    if (this.#seen.has(name)) return
    this.#carryOut(checked, transmitter, now)
    this.#remember(name, now)
  }

  /** All or nothing: a SET with one event that is refused changes nothing. */
  #carryOut(
    { events, issued, subject: stated }: SecurityEventToken,
    transmitter: Transmitter,
    now: Seconds,
  ): void {
    const notes: EventNote[] = []
    const next = new Map<string, EventRule | undefined>()
    const lifted = new Map<string, Seconds>()
    for (const [uri, event] of Object.entries(events)) {
      const effect = effectOf(uri, event, issued)
      if (!effect) continue
      const subject = subjectOf(stated ?? (isMembers(event) ? event['subject'] : undefined))
      if (!subject)
        throw new SetRefusal('invalid_request', 'no credential is known by a subject of this form')
      if (!speaksOf(transmitter, subject))
        throw new SetRefusal('access_denied', 'policy does not give this subject to the transmitter')
      const key = effectKey(subject, effect)
      if (Math.max(this.#rules.get(key)?.at ?? 0, this.#lifted.get(key) ?? 0) > issued) continue
      if (effect.kind === 'allow') lifted.set(key, issued)
      next.set(key, this.#ruleOf(key, { effect, subject, issued, now }))
      notes.push({
        transmitter: transmitter.issuer,
        subject,
        what: effect.kind === 'deny' ? effect.reason : 'compliant',
      })
    }
    if (next.size === 0) return
    this.#change(next, now)
    this.#lift(lifted, now)
    for (const note of notes) this.#options.onEvent(note)
  }

  #ruleOf(
    key: string,
    given: {
      readonly effect: EventEffect
      readonly subject: EventSubject
      readonly issued: Seconds
      readonly now: Seconds
    },
  ): EventRule | undefined {
    const { effect, issued, now, subject } = given
    if (effect.kind === 'allow') return undefined
    const { before, reason } = effect
    const until = now + (before === undefined ? LASTING : this.#options.life())
    const rule: DenyRule = { ...subject, ...(before === undefined ? {} : { before }), until, reason }
    return { key, at: issued, rule }
  }

  /** Disk first, as with what operators revoke. */
  #change(next: ReadonlyMap<string, EventRule | undefined>, now: Seconds): void {
    const rules = new Map([...this.#rules].filter(([, { rule }]) => rule.until > now))
    for (const [key, rule] of next) {
      if (rule) rules.set(key, rule)
      else rules.delete(key)
    }
    if (rules.size > RULES_LIMIT)
      throw new Fault('overloaded', `${RULES_LIMIT} rules of security events are in force`)
    if (this.#options.file !== undefined) writeEventRules(this.#options.file, [...rules.values()])
    this.#rules.clear()
    for (const [key, rule] of rules) this.#rules.set(key, rule)
    this.#apply()
  }

  #lift(lifted: ReadonlyMap<string, Seconds>, now: Seconds): void {
    for (const [key, at] of lifted) {
      this.#lifted.delete(key)
      this.#lifted.set(key, at)
    }
    for (const [key, at] of this.#lifted) {
      if (at > now - OLDEST && this.#lifted.size <= RULES_LIMIT) break
      this.#lifted.delete(key)
    }
  }

  #apply(): void {
    this.#options.denylist.replace(
      'events',
      [...this.#rules.values()].map(({ rule }) => rule),
    )
  }

  #remember(name: string, now: Seconds): void {
    for (const [known, until] of this.#seen) {
      if (until > now && this.#seen.size < SEEN_LIMIT) break
      this.#seen.delete(known)
    }
    this.#seen.set(name, now + OLDEST)
  }
}
