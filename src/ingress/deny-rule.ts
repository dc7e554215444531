/** One thing that is revoked: what it names, which of it, and until when. Its form is that of a denylist's items. */
import { hash } from 'node:crypto'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseDate } from '../policy/parse.ts'
import type { DenialFacts } from './checking.ts'

/** All that is named has to hold. */
export interface DenyRule {
  readonly issuer?: string
  readonly sub?: string
  readonly client_id?: string
  readonly jti?: string
  readonly jkt?: string
  readonly spiffe_id?: string
  /** Only tokens issued before it; a credential that does not say when counts as issued before. */
  readonly before?: Seconds
  /** Its end. */
  readonly until: Seconds
  /** For the audit and the service that asked; never told outside. */
  readonly reason: string
}

type Name = 'issuer' | 'sub' | 'client_id' | 'jti' | 'jkt' | 'spiffe_id'

const FACTS: Readonly<Record<Name, keyof DenialFacts>> = {
  jti: 'tokenId',
  jkt: 'jkt',
  spiffe_id: 'spiffeId',
  sub: 'subject',
  client_id: 'clientId',
  issuer: 'issuer',
}
/** The most telling first: a rule is found by the first of these that it has. */
const NAMES = Object.keys(FACTS) as readonly Name[]
const TEXT_LIMIT = 2048
const REASON_LIMIT = 256
// RFC 7519 s.2: beyond this it is no date.
const LAST_DATE = 253_402_300_799

/** The rule in the members of an item; throws invalid_request. Unknown members are refused: they might narrow it. */
export function parseDenyRule(members: unknown): DenyRule {
  if (typeof members !== 'object' || members === null || Array.isArray(members))
    throw invalid('it is not a mapping')
  const rule: Record<string, string | number> = {}
  for (const [name, value] of Object.entries(members)) {
    if (Object.hasOwn(FACTS, name) || name === 'reason') rule[name] = textOf(name, value)
    else if (name === 'before' || name === 'until') rule[name] = timeOf(name, value)
    else throw invalid(`it has the unknown member ${JSON.stringify(name.slice(0, 64))}`)
  }
  if (!NAMES.some((name) => name in rule)) throw invalid(`it names none of ${NAMES.join(', ')}`)
  for (const name of ['until', 'reason']) if (!(name in rule)) throw invalid(`it has no ${name}`)
  return rule as unknown as DenyRule
}

function textOf(name: string, value: unknown): string {
  const limit = name === 'reason' ? REASON_LIMIT : TEXT_LIMIT
  if (typeof value !== 'string' || value === '' || value.length > limit)
    throw invalid(`its ${name} is not a text of 1 to ${limit} characters`)
  return value
}

/** Seconds since 1970, or a date as in policy. */
function timeOf(name: string, value: unknown): Seconds {
  if (typeof value === 'number' && value > 0 && value <= LAST_DATE) return value
  if (typeof value !== 'string') throw invalid(`its ${name} is not a time`)
  try {
    return parseDate(value)
  } catch (error) {
    throw invalid(`its ${name}: ${Fault.from(error).message}`)
  }
}

function invalid(what: string): Fault {
  return new Fault('invalid_request', `not an item of a denylist: ${what}`)
}

/** What a rule is found by. */
export function ruleKey(rule: DenyRule): string {
  const name = NAMES.find((each) => rule[each] !== undefined) ?? 'issuer'
  return keyOf(name, rule[name] ?? '')
}

/** The keys of the rules that may hold for `facts`. */
export function factKeys(facts: DenialFacts): readonly string[] {
  return NAMES.flatMap((name) => valuesOf(name, facts).map((value) => keyOf(name, value)))
}

/** The SPIFFE IDs of a request: the one that was proven, and those that its token names its caller by. */
export function spiffeIdsIn({ spiffeId, clientId, subject, actor }: DenialFacts): readonly string[] {
  const named = [clientId, subject, actor].filter((text) => text?.startsWith('spiffe://'))
  return [spiffeId, ...named].filter((text) => text !== undefined)
}

function valuesOf(name: Name, facts: DenialFacts): readonly string[] {
  if (name === 'spiffe_id') return spiffeIdsIn(facts)
  const value = facts[FACTS[name]]
  return typeof value === 'string' ? [value] : []
}

export function holds(rule: DenyRule, facts: DenialFacts, now: Seconds): boolean {
  if (rule.until <= now) return false
  if (rule.before !== undefined && facts.issuedAt !== undefined && facts.issuedAt >= rule.before) return false
  return NAMES.every((name) => rule[name] === undefined || valuesOf(name, facts).includes(rule[name]))
}

/** The same text for the same rule, wherever it comes from. */
export function formatDenyRule(rule: DenyRule): string {
  return JSON.stringify(Object.fromEntries(Object.entries(rule).sort(([a], [b]) => (a < b ? -1 : 1))))
}

/** Names a rule: 128 bits of the hash of its text. */
export function ruleId(rule: DenyRule): string {
  return hash('sha256', formatDenyRule(rule)).slice(0, 32)
}

function keyOf(name: Name, value: string): string {
  return `${name} ${value}`
}
