/**
 * What an operator has revoked: deny rules above all policy, kept in a small file without secrets. The file is on
 * disk before the operator has an answer, and read before any socket answers.
 */
import { closeSync, constants, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'

/** What a rule names. `process` is an instance key, so that a reused pid is not meant. */
export type RevocationKind = 'spiffe_id' | 'jkt' | 'process' | 'target'

/** One deny rule; without `until` it holds until it is lifted. */
export interface Revocation {
  readonly kind: RevocationKind
  readonly value: string
  readonly since: Seconds
  readonly until?: Seconds
}

const KINDS: ReadonlySet<string> = new Set(['spiffe_id', 'jkt', 'process', 'target'])
const RULES_LIMIT = 10_000
const FILE_LIMIT = 4 * 1024 * 1024

/** The rules in force and their file; without a file they live as long as the agent. */
export class Revocations {
  readonly #rules: Map<string, Revocation>
  readonly #file: string | undefined
  readonly #clock: Clock

  /** Reads `file`, which need not exist; throws config_invalid when it is there and cannot be understood. */
  constructor(file: string | undefined, clock: Clock) {
    this.#file = file
    this.#clock = clock
    this.#rules = new Map(file ? readRules(file).map((rule) => [keyOf(rule.kind, rule.value), rule]) : [])
  }

  /** The rule that denies this, if one is in force. */
  find(kind: RevocationKind, value: string): Revocation | undefined {
    if (this.#rules.size === 0) return undefined
    const rule = this.#rules.get(keyOf(kind, value))
    return rule && (rule.until === undefined || rule.until > nowSeconds(this.#clock)) ? rule : undefined
  }

  /** Nothing is revoked: the common case costs callers nothing. */
  get isEmpty(): boolean {
    return this.#rules.size === 0
  }

  /** Throws `revoked` when any of `facts` is denied. */
  check(facts: readonly (readonly [RevocationKind, string])[]): void {
    for (const [kind, value] of facts) {
      const rule = this.find(kind, value)
      if (rule)
        throw new Fault('revoked', `an operator revoked this ${kind.replace('_', ' ')}${untilText(rule)}`)
    }
  }

  /** Adds a rule, for `seconds` or until lifted; it is on disk when this returns. */
  add(kind: RevocationKind, value: string, seconds?: Seconds): Revocation {
    this.#forgetExpired()
    if (this.#rules.size >= RULES_LIMIT)
      throw new Fault('overloaded', `${RULES_LIMIT} revocations are in force; lift some`)
    const since = nowSeconds(this.#clock)
    const rule = { kind, value, since, ...(seconds === undefined ? {} : { until: since + seconds }) }
    this.#replace(new Map(this.#rules).set(keyOf(kind, value), rule))
    return rule
  }

  /** Takes a rule back; whether there was one. */
  lift(kind: RevocationKind, value: string): boolean {
    const next = new Map(this.#rules)
    const found = next.delete(keyOf(kind, value))
    if (found) this.#replace(next)
    return found
  }

  list(): readonly Revocation[] {
    return [...this.#rules.values()].filter((rule) => this.find(rule.kind, rule.value))
  }

  #forgetExpired(): void {
    for (const [key, rule] of this.#rules) if (!this.find(rule.kind, rule.value)) this.#rules.delete(key)
  }

  /** Disk first: a rule that is only in memory would be forgotten by the restart that an attacker causes. */
  #replace(next: Map<string, Revocation>): void {
    if (this.#file) writeRules(this.#file, [...next.values()])
    this.#rules.clear()
    for (const [key, rule] of next) this.#rules.set(key, rule)
  }
}

function keyOf(kind: RevocationKind, value: string): string {
  return `${kind} ${value}`
}

function untilText(rule: Revocation): string {
  return rule.until === undefined ? '' : ` until ${rule.until}`
}

function readRules(file: string): readonly Revocation[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw new Fault('config_invalid', `${file}: the revocations cannot be read`, { cause: error })
  }
  try {
    const rules: unknown = text.length > FILE_LIMIT ? undefined : JSON.parse(text)
    if (Array.isArray(rules) && rules.every(isRule)) return rules
  } catch {
    // Said below, in one sentence for both causes.
  }
  throw new Fault(
    'config_invalid',
    `${file}: not a list of revocations; the agent will not start without knowing them`,
  )
}

function isRule(rule: unknown): rule is Revocation {
  if (typeof rule !== 'object' || rule === null) return false
  const { kind, value, since, until } = rule as Record<string, unknown>
  const isKnown = typeof kind === 'string' && KINDS.has(kind) && typeof value === 'string'
  return isKnown && typeof since === 'number' && (until === undefined || typeof until === 'number')
}

function writeRules(file: string, rules: readonly Revocation[]): void {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants
  const fd = openSync(`${file}.new`, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)
  try {
    writeSync(fd, `${JSON.stringify(rules, undefined, 1)}\n`)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(`${file}.new`, file)
  const directory = openSync(dirname(file), constants.O_RDONLY)
  fsyncSync(directory)
  closeSync(directory)
}
