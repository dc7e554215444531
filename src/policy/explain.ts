/** Why a request would be allowed or not: facts, entry, rule, the nearest miss and the smallest change. Pure. */
import { Fault } from '../base/fault.ts'
import { type Owner, REASONS, type Reason } from '../base/reasons.ts'
import { type CanonicalUrl, canonicalUrl } from '../proof/target.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { RuleBook, Weakness } from './book.ts'
import { type Decision, decide, decideTarget, type Question } from './decide.ts'
import type { Entry } from './entry.ts'
import type { Binding, Door, Grant, Target } from './grant.ts'
import { placeText } from './statements.ts'

/** What is asked; the identity is the first that the selectors give. */
export interface ExplainAsk {
  readonly selectors: readonly Selector[]
  readonly method: string | undefined
  readonly url: CanonicalUrl
  readonly kind: Binding
  readonly also?: readonly Binding[]
  readonly token: 'full' | 'hash' | 'none'
  /** `headers` when absent. */
  readonly door?: Door
  /** The target that was named; absent: found by the URL. */
  readonly target?: Target
}

/** What weakens an entry, as `policy check` says it; absent where nothing does. */
export interface Weakened {
  readonly weaknesses?: readonly Pick<Weakness, 'grade' | 'message'>[]
}

/** The answer, in the names of the wire. */
export interface Explanation {
  readonly allowed: boolean
  /** The request is refused by the rules and let through by `mode: observe`. */
  readonly observed?: true
  /** Which door the answer is for, where the request names a target rather than a URL. */
  readonly door?: Door
  readonly selectors: readonly Selector[]
  /** Why selectors are missing, or an entry was not made; for the operator only. */
  readonly notes?: readonly string[]
  readonly method?: string
  readonly origin: string
  readonly path: string
  readonly entry?: ExplainedEntry & Weakened
  /** Without an entry: the one that shares most selectors with the caller, and those that it wants besides. */
  readonly nearest_entry?: ExplainedEntry & { readonly missing: readonly Selector[] }
  readonly target?: string
  /** `file:line` of the grant that allows it. */
  readonly rule?: string
  /** What the grant demands besides, when the request is made: a person's approval, the answer of the hook. */
  readonly demands?: readonly string[]
  /** `file:line` of the statement that comes nearest. */
  readonly nearest?: string
  readonly reason?: Reason
  readonly owner?: Owner
  readonly message?: string
  /** The smallest change that would allow it. */
  readonly action?: string
  /** Whom to ask: the team of the owner, where the configuration names one. */
  readonly contact?: string
  /** Other identities of the caller that would be allowed: a request may name one as `spiffe_id`. */
  readonly allowed_as?: readonly SpiffeId[]
  /** Which policy this is. */
  readonly policy: string
}

export interface ExplainedEntry {
  readonly name: string
  readonly spiffe_id: SpiffeId
  /** `file:line` */
  readonly place: string
}

/** The teams behind the layers, as the configuration names them. */
export type Contacts = Readonly<Partial<Record<string, { readonly team: string; readonly contact: string }>>>

/** How `book` answers `ask`, and why. */
export function explain(book: RuleBook, ask: ExplainAsk, contacts: Contacts = {}): Explanation {
  const found = explainOne(book, ask)
  const behind = found.owner && contacts[found.owner]
  return behind ? { ...found, contact: `${behind.team}, ${behind.contact}` } : found
}

/**
 * The answer to a request's `method` and `url`, for a caller with these selectors; `http://TARGET/PATH` asks of the
 * egress door. Throws invalid_request, url_refused.
 */
export function explainRequest(
  book: RuleBook,
  selectors: readonly Selector[],
  members: Readonly<Record<string, unknown>>,
  contacts: Contacts,
): Explanation {
  const { method = 'GET', url } = members
  if (typeof url !== 'string' || typeof method !== 'string')
    throw new Fault('invalid_request', 'method and url are strings')
  const asked = namedTarget(book, url) ?? { url: canonicalUrl(url), kind: 'dpop', token: 'full' }
  return explain(book, { selectors, method, ...asked }, contacts)
}

const NAMED = /^http:\/\/([^/?#:@]+)(?=[/?]|$)/

/** What egress would ask of the target that `url` names, where no target has that very origin. */
function namedTarget(book: RuleBook, url: string): Omit<ExplainAsk, 'selectors' | 'method'> | undefined {
  const [start = '', name = ''] = NAMED.exec(url) ?? []
  const target = book.targetNamed(name)
  const [origin] = target?.platform?.origins ?? []
  if (!target?.identity || origin === undefined || origin.endsWith(':*')) return undefined
  if (book.targetsFor(canonicalUrl(url)).length > 0) return undefined
  const { binding, server } = target.identity
  const [kind = 'dpop', ...also] = binding
  const token = server?.client ? 'full' : 'none'
  return { url: canonicalUrl(origin + url.slice(start.length)), kind, also, token, door: 'egress', target }
}

function explainOne(book: RuleBook, ask: ExplainAsk): Explanation {
  const { selectors, method, url } = ask
  const facts = {
    ...(ask.door === undefined ? {} : { door: ask.door }),
    selectors,
    ...(method === undefined ? {} : { method }),
    origin: url.origin,
    path: url.path,
    policy: book.hash,
  }
  const [entry, ...others] = book.entriesFor(new Set(selectors))
  if (!entry) return { allowed: false, ...facts, ...withoutEntry(book, selectors) }
  const decision = decisionOf(book, ask, entry)
  const allowedAs = decision.allowed
    ? []
    : others.filter((other) => decisionOf(book, ask, other).allowed).map((other) => other.spiffeId)
  return {
    ...answerOf(decision),
    ...facts,
    entry: { ...entryFacts(entry), ...weaknessesOf(book, entry) },
    ...(allowedAs.length > 0 ? { allowed_as: allowedAs } : {}),
    ...(book.observe && !decision.allowed ? { observed: true as const } : {}),
  }
}

function decisionOf(book: RuleBook, ask: ExplainAsk, entry: Entry): Decision {
  const { target, ...asked } = ask
  const question: Question = { ...asked, door: ask.door ?? 'headers', spiffeId: entry.spiffeId, entry }
  return target ? decideTarget(book, target, question) : decide(book, question)
}

function entryFacts(entry: Entry): ExplainedEntry {
  return { name: entry.name, spiffe_id: entry.spiffeId, place: placeText(entry.place) }
}

export function weaknessesOf({ weaknesses }: Pick<RuleBook, 'weaknesses'>, { name }: Entry): Weakened {
  const own = weaknesses.filter(({ subject }) => subject === name)
  return own.length > 0 ? { weaknesses: own.map(({ grade, message }) => ({ grade, message })) } : {}
}

function answerOf(decision: Decision): Partial<Explanation> & { readonly allowed: boolean } {
  if (decision.allowed) {
    const demands = demandsOf(decision.grant)
    return {
      allowed: true,
      target: decision.target.name,
      rule: placeText(decision.rule),
      ...(demands.length > 0 ? { demands } : {}),
    }
  }
  const { reason, owner, message, action, target, nearest } = decision
  return {
    allowed: false,
    reason,
    owner,
    message,
    action,
    ...(target ? { target: target.name } : {}),
    ...(nearest ? { nearest: placeText(nearest) } : {}),
  }
}

/** What `grant` demands beyond policy's own answer, in words. */
export function demandsOf({ approval, asksHook }: Grant): readonly string[] {
  const when = approval?.on === 'always' ? 'each time' : 'at first use'
  return [
    ...(approval ? [`the approval of a person ${when}, within ${approval.wait} s`] : []),
    ...(asksHook ? ['the decision hook'] : []),
  ]
}

function withoutEntry(book: RuleBook, selectors: readonly Selector[]): Partial<Explanation> {
  const { owner, cause, cure } = REASONS.no_identity
  const base = { reason: 'no_identity', owner, message: cause } as const
  const near = nearestEntry(book.entries, new Set(selectors))
  if (!near) {
    const isKnown = selectors.length > 0
    return {
      ...base,
      action: isKnown ? `Add an entry with selectors that this caller has: ${selectors.join(', ')}` : cure,
    }
  }
  const place = placeText(near.entry.place)
  const action = `The nearest entry, ${near.entry.name} at ${place}, also wants ${near.missing.join(', ')}.`
  return {
    ...base,
    action,
    nearest: place,
    nearest_entry: { ...entryFacts(near.entry), missing: near.missing },
  }
}

interface Near {
  readonly entry: Entry
  readonly missing: readonly Selector[]
}

/** Entries that share no selector stay out: they are no concern of this caller. */
function nearestEntry(entries: readonly Entry[], selectors: ReadonlySet<Selector>): Near | undefined {
  let nearest: Near | undefined
  let best = 0
  for (const entry of entries) {
    const missing = entry.selectors.filter((selector) => !selectors.has(selector))
    const share = (entry.selectors.length - missing.length) / entry.selectors.length
    if (share > best) {
      nearest = { entry, missing }
      best = share
    }
  }
  return nearest
}
