/** Whether policy allows one proof: identity, platform and application must each have spoken (design: who owns what). */
import type { Seconds } from '../base/clock.ts'
import type { Owner, Reason } from '../base/fault.ts'
import type { CanonicalUrl } from '../proof/target.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { Denial, RuleBook } from './book.ts'
import type { Entry, Place } from './entry.ts'
import { factsOf } from './facts.ts'
import type { Binding, Door, Grant, Target, TargetIdentity } from './grant.ts'
import { isNeverGranted } from './methods.ts'
import { isMatch, isMatchOfAny } from './pattern.ts'
import { grantRefusal } from './refusals.ts'
import { type Layer, placeText } from './statements.ts'

/** What is asked. Pure facts: the same question gets the same answer. */
export interface Question {
  /** What the caller wants; custody says what it may have. */
  readonly door: Door
  readonly kind: Binding
  /** Further kinds that the same request carries: one grant has to allow it with each. */
  readonly also?: readonly Binding[]
  readonly spiffeId: SpiffeId
  readonly entry: Entry
  /** Absent for WPT, which covers no method: a grant must then allow every method. */
  readonly method: string | undefined
  readonly url: CanonicalUrl
  /** How much of the access token is shown. */
  readonly token: 'full' | 'hash' | 'none'
  readonly selectors: readonly Selector[]
  /** What is known beyond the request itself; absent: conditions that ask for it do not hold. */
  readonly context?: CallContext | undefined
}

/** What a door knows of a call: when it is made, on whose behalf, and what the instance did before. */
export interface CallContext {
  readonly now: Seconds
  /** The subject of the token that the workload was called with; empty without one. */
  readonly subject: string
  /** Who acts for the subject, the newest first (RFC 8693 s.4.1). */
  readonly actors: readonly string[]
  /** The transaction (`txn`) of the subject's token or of a Txn-Token; empty without one. */
  readonly txn: string
  /** Requests of this instance that were allowed so far, those of them that were not GET, HEAD or OPTIONS, and distinct targets. */
  readonly calls: number
  readonly writes: number
  readonly targets: number
  /** Whether this instance has used this target before. */
  readonly isFirstUse: boolean
}

export interface Allowed {
  readonly allowed: true
  readonly target: Target
  readonly identity: TargetIdentity
  /** The grant that allowed it: what it demands beyond policy's own answer is the door's to carry out. */
  readonly grant: Grant
  readonly rule: Place
  /** The granted path that matched, as policy writes it: unlike the request's own, no caller chose its text. */
  readonly path: string
}

export interface Denied {
  readonly allowed: false
  readonly reason: Reason
  readonly owner: Owner
  readonly message: string
  /** The smallest change that would allow it. */
  readonly action: string
  readonly target?: Target
  /** The nearest statement. */
  readonly nearest?: Place
}

export type Decision = Allowed | Denied

/** Answers `question` by `book`; never throws. */
export function decide(book: RuleBook, question: Question): Decision {
  return decideBy(book, question.url, () => question)
}

/** As decide, where what is asked hangs on the target: what it takes as proof, whether there is a token. */
export function decideBy(
  book: RuleBook,
  url: CanonicalUrl,
  questionFor: (target: Target) => Question,
): Decision {
  let nearest: Miss | undefined
  for (const target of book.targetsFor(url)) {
    const answer = answerFor(book, target, questionFor(target))
    if ('allowed' in answer) return answer
    if (nearest === undefined || answer.steps > nearest.steps) nearest = answer
  }
  return nearest ? nearest.denied : unknownTarget(url)
}

/** As decide, for this target alone: the URL has to lie at one of its origins. Never throws. */
export function decideTarget(book: RuleBook, target: Target, question: Question): Decision {
  if (!book.targetsFor(question.url).includes(target)) return elsewhere(target, question.url)
  const answer = answerFor(book, target, question)
  return 'allowed' in answer ? answer : answer.denied
}

/** A refusal and how far the question came: the refusal of the target that came furthest is the one worth mending. */
interface Miss {
  readonly steps: number
  readonly denied: Denied
}

function answerFor(book: RuleBook, target: Target, question: Question): Allowed | Miss {
  const denial = book.denialOf(question.spiffeId, target.name)
  if (denial) return { steps: 0, denied: deniedBy(denial, target) }
  const { identity, application } = target
  if (!identity) return silent(target, 'identity', target.platform?.place, 1)
  if (!target.platform) return silent(target, 'platform', identity.place, 1)
  if (!application) return silent(target, 'application', identity.place, 1)
  const grant = findGrant(book, target, question)
  if (!('grant' in grant)) return grant
  const refused =
    custodyMiss(target, identity, question) ??
    viaMiss(target, question) ??
    kindsOf(question)
      .map((kind) => bindingMiss(book, target, identity, kind))
      .find((miss) => miss !== undefined) ??
    tokenMiss(target, identity, question)
  return (
    refused ?? {
      allowed: true,
      target,
      identity,
      grant: grant.grant,
      rule: grant.grant.place,
      path: pathOf(grant.grant, question),
    }
  )
}

/** The lab is granted nothing but its own door, and that door to nobody else, by prefixes of callers neither. */
function findGrant(book: RuleBook, target: Target, question: Question): { readonly grant: Grant } | Miss {
  const isLab = question.door === 'probe'
  let nearest: Grant | undefined
  let steps = -1
  for (const grant of book.grantsFor(target, question.spiffeId)) {
    if (grant.isProbe !== isLab || question.entry.isProbe !== isLab) continue
    const came = stepsInto(grant, question)
    if (came === GRANTED) return { grant }
    if (came > steps) {
      steps = came
      nearest = grant
    }
  }
  return { steps: 2 + steps, denied: grantDenied(target, question, nearest, steps) }
}

function pathOf(grant: Grant, question: Question): string {
  return grant.paths.find((pattern) => isMatch(pattern, question.url.path)) ?? ''
}

const GRANTED = 3

/** How many of path, method and condition hold, in this order. */
function stepsInto(grant: Grant, question: Question): number {
  if (!isMatchOfAny(grant.paths, question.url.path)) return 0
  if (!allowsMethod(grant, question.method)) return 1
  const { only, when } = grant
  if (only !== undefined && !question.selectors.includes(only)) return 0
  const holds = (kind: Binding) =>
    when === undefined || when.evaluate(factsOf({ ...question, kind })) === true
  return kindsOf(question).every(holds) ? GRANTED : 2
}

function kindsOf({ kind, also = [] }: Question): readonly Binding[] {
  return [kind, ...also]
}

function allowsMethod(grant: Grant, method: string | undefined): boolean {
  if (method === undefined) return grant.methods.includes('*')
  if (isNeverGranted(method)) return false
  return grant.methods.includes('*') || grant.methods.includes(method)
}

/** The doors that each custody opens. */
const DOORS: Readonly<Record<TargetIdentity['custody'], readonly Door[]>> = {
  nothing: ['egress'],
  headers: ['egress', 'headers'],
  token: ['egress', 'headers', 'token'],
}

/** Whether custody lets an application have what `door` gives. */
export function isDoorOpen({ custody }: TargetIdentity, door: Door): boolean {
  return DOORS[custody].includes(door)
}

function custodyMiss(target: Target, identity: TargetIdentity, { door }: Question): Miss | undefined {
  const { custody, place } = identity
  // The entry of a probe is identity's own word for it.
  if (door === 'probe' || isDoorOpen(identity, door)) return undefined
  const wanted = door === 'token' ? 'token' : 'headers'
  return miss(target, 6, place, {
    reason: 'custody_denied',
    owner: 'identity',
    message: `custody of ${target.name} is ${custody}: an application may not hold its ${wanted === 'token' ? 'token' : 'request headers'}`,
    action: `Use the egress door, or set custody: ${wanted} at ${placeText(place)}.`,
  })
}

/** The agent's network is not the workload's: where platform wants that one, the agent makes no request. */
function viaMiss(target: Target, { door }: Question): Miss | undefined {
  const { name, platform } = target
  if (door !== 'egress' || platform?.via !== 'sidecar') return undefined
  return miss(target, 6, platform.place, {
    reason: 'via_sidecar',
    owner: 'platform',
    message: `requests to ${name} leave from the network of the workload, by its sidecar`,
    action: `Send the request to the port of holdfast sidecar, or set via: agent at ${placeText(platform.place)}.`,
  })
}

function bindingMiss(
  book: RuleBook,
  target: Target,
  identity: TargetIdentity,
  kind: Binding,
): Miss | undefined {
  if (identity.binding.includes(kind)) {
    return kind !== 'bearer' || book.exceptionOf(target.name) ? undefined : exceptionMiss(book, target)
  }
  return miss(target, 6, identity.place, {
    reason: 'policy_denied',
    owner: 'identity',
    message: `requests to ${target.name} are bound by ${identity.binding.join(', ') || 'nothing'}, not by ${kind}`,
    action: `Add ${kind} to binding at ${placeText(identity.place)}.`,
  })
}

function exceptionMiss(book: RuleBook, target: Target): Miss {
  const exception = book.exceptions.find((each) => each.target === target.name)
  const at = exception ? ` at ${placeText(exception.place)}` : ''
  return miss(target, 6, exception?.place, {
    reason: 'policy_denied',
    owner: 'security',
    message: `the exception for bearer tokens of ${target.name} has ended`,
    action: `Bind requests to ${target.name} by dpop, or ask security to renew the exception${at}.`,
  })
}

function tokenMiss(target: Target, identity: TargetIdentity, question: Question): Miss | undefined {
  return question.door === 'headers' || identity.server?.client
    ? shownTokenMiss(target, identity, question)
    : ownTokenMiss(target, identity, question)
}

/** Where the agent is client of no server, nobody has a token: at a tokenless target egress sends the proof alone. */
function ownTokenMiss(target: Target, identity: TargetIdentity, { door }: Question): Miss | undefined {
  const { server, tokenless, place } = identity
  if (door === 'egress' && tokenless) return undefined
  const what = server ? `its server ${server.issuer} has no client` : 'it has no authorization server'
  return miss(target, 7, place, {
    reason: 'policy_denied',
    owner: 'identity',
    message: `the agent can get no token for ${target.name}: ${what}`,
    action: `Name a server with a client at ${placeText(place)}.`,
  })
}

function shownTokenMiss(target: Target, identity: TargetIdentity, { token }: Question): Miss | undefined {
  if (token === 'full' || (token === 'hash' ? identity.hashOnly : identity.tokenless)) return undefined
  const setting = token === 'hash' ? 'hash_only' : 'tokenless'
  const shown = token === 'hash' ? 'not only its hash' : 'which is missing'
  return miss(target, 7, identity.place, {
    reason: 'token_required',
    owner: 'identity',
    message: `${target.name} wants the access token, ${shown}`,
    action: `Send access_token, or set ${setting}: true at ${placeText(identity.place)}.`,
  })
}

type Refusal = Pick<Denied, 'reason' | 'owner' | 'message' | 'action'>

function miss(target: Target, steps: number, nearest: Place | undefined, refusal: Refusal): Miss {
  return { steps, denied: { allowed: false, ...refusal, target, ...(nearest ? { nearest } : {}) } }
}

function silent(target: Target, owner: Layer, nearest: Place | undefined, steps: number): Miss {
  return miss(target, steps, nearest, {
    reason: 'policy_denied',
    owner,
    message: `no ${owner} policy file says anything about ${target.name}`,
    action: `Add ${target.name} to the targets of a policy file of layer ${owner}.`,
  })
}

function grantDenied(target: Target, question: Question, grant: Grant | undefined, steps: number): Denied {
  const place = grant?.place ?? target.application?.place
  const at = place ? ` at ${placeText(place)}` : ''
  const [message, action] = grantRefusal(question, { name: target.name, at, grant, steps })
  const denied: Denied = {
    allowed: false,
    reason: 'policy_denied',
    owner: 'application',
    message,
    action,
    target,
  }
  return place ? { ...denied, nearest: place } : denied
}

function deniedBy(denial: Denial, target: Target): Denied {
  const what = denial.spiffeId ?? denial.target ?? 'this'
  return {
    allowed: false,
    reason: 'policy_denied',
    owner: 'security',
    message: `security denies ${what}: ${denial.why}`,
    action: `Ask the security team; the denial stands at ${placeText(denial.place)}.`,
    nearest: denial.place,
    target,
  }
}

function elsewhere(target: Target, url: CanonicalUrl): Denied {
  const { name, platform } = target
  return {
    allowed: false,
    reason: 'target_unknown',
    owner: 'platform',
    message: `the target ${name} has no origin ${url.origin}`,
    action: `Add ${url.origin} to the origins of ${name} in a platform policy file.`,
    target,
    ...(platform ? { nearest: platform.place } : {}),
  }
}

function unknownTarget(url: CanonicalUrl): Denied {
  const reason = url.ip ? 'url_refused' : 'target_unknown'
  const message = url.ip
    ? `the host ${url.host} is an IP literal that no target lists`
    : `no target has the origin ${url.origin}`
  const action = `Add ${url.origin} to the origins of a target in a platform policy file.`
  return { allowed: false, reason, owner: 'platform', message, action }
}
