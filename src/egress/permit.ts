/** Whether a request may leave: who asks, what is revoked, how often, and what policy says, in this order. */
import { chooseEntry, entitled } from '../attest/entitled.ts'
import type { Instance, Workload } from '../attest/workload.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { KeyOwner } from '../keys/vault.ts'
import type { RuleBook } from '../policy/book.ts'
import { type Decision, type Denied, decideTarget, type Question } from '../policy/decide.ts'
import type { Entry } from '../policy/entry.ts'
import type { Binding, Target, TargetIdentity, TargetPlatform } from '../policy/grant.ts'
import { isNeverGranted } from '../policy/methods.ts'
import type { Revocations } from '../policy/revocations.ts'
import { type CanonicalUrl, canonicalUrl } from '../proof/target.ts'
import type { Admission, Call, Seen } from '../sign/admission.ts'
import type { Rates } from '../sign/rate.ts'
import type { Certificate, Certificates } from './certificates.ts'
import type { Lifeline } from './lifeline.ts'
import type { Route } from './route.ts'
import type { Subject, Subjects } from './subjects.ts'

export interface PermitOptions {
  readonly book: Live<RuleBook>
  readonly revocations: Revocations
  readonly rates: Rates
  readonly subjects: Subjects
  readonly admission: Admission
}

export interface EgressPermitOptions extends PermitOptions {
  readonly certificates: Pick<Certificates, 'current'>
}

/** A request that may leave, and for whom. */
export interface Permit {
  readonly workload: Workload
  readonly entry: Entry
  /** What keys, tokens and connections of this request hang on. */
  readonly instance: Instance
  readonly target: Target
  readonly identity: TargetIdentity
  readonly platform: TargetPlatform
  /** What the request carries. */
  readonly kinds: readonly Binding[]
  /** What the connection of this request shows, and no other; absent where the target is not bound by one. */
  readonly certificate: Certificate | undefined
  readonly method: string
  readonly url: CanonicalUrl
  /** On whose behalf the request is made. */
  readonly subject: Subject | undefined
  /** Lower-case names of the caller's fields that the grant has signed (RFC 9421). */
  readonly signedHeaders: readonly string[]
}

/** What is known of a request as far as it got: for its audit record. */
export interface Draft {
  readonly method: string
  workload?: Workload
  entry?: Entry
  target?: Target
  url?: CanonicalUrl
  decision?: Decision
  subject?: Subject | undefined
}

/**
 * The permit of one request, once all has been obtained that its grant demands; it hangs on `line`. Throws what
 * identity, revocations, rate and policy say, having noted in `draft` what it saw.
 */
export async function permit(
  options: EgressPermitOptions,
  workload: Workload,
  route: Route,
  draft: Draft,
  line: Lifeline,
): Promise<Permit> {
  const { admission, rates, revocations, subjects } = options
  draft.workload = workload
  const entry = chooseEntry(entitled(workload, revocations), route.spiffeId)
  draft.entry = entry
  const instance = workload.instanceOf(entry)
  line.bindTo(workload, instance)
  rates.takeOf({ spiffeId: entry.spiffeId, instance })
  targetOf(options, route, draft)
  const subject = subjectOf(subjects, { spiffeId: entry.spiffeId, instance }, route.subject)
  draft.subject = subject
  const { method } = draft
  const call = { workload, entry, instance, method, onBehalf: subject?.claims }
  const waits = { gone: line.signal, begin: line.waitFor, onEnd: line.onRelease }
  const found = await admission.admit(call, waits, () => look(options, call, route, draft))
  const { target, identity, platform, kinds, url } = found
  const certificate = certificateFor(options, { entry, instance, target, kinds })
  const signedHeaders = signedBy(found.decision)
  const who = { workload, entry, instance, subject }
  return { ...who, target, identity, platform, kinds, certificate, method, url, signedHeaders }
}

/** What policy says now of the request; throws what it refuses. */
function look(
  options: PermitOptions,
  call: Call,
  route: Route,
  draft: Draft,
): Seen & Pick<Permit, 'identity' | 'platform' | 'kinds'> {
  const { entry, workload } = call
  const book = options.book.get()
  const target = targetOf(options, route, draft)
  if (draft.subject?.signal.aborted) throw new Fault('subject_unknown')
  const { identity, platform } = statementsOf(target)
  const url = canonicalUrl(originOf(target, platform) + route.path + route.query)
  draft.url = url
  const kinds = kindsOf(identity)
  const [kind, ...also] = kinds
  const question: Question = {
    door: 'egress',
    kind,
    also,
    spiffeId: entry.spiffeId,
    entry,
    method: draft.method,
    url,
    token: identity.server?.client ? 'full' : 'none',
    selectors: workload.selectors,
    context: options.admission.contextOf(call, target).context,
  }
  const decision = decideTarget(book, target, question)
  draft.decision = decision
  if (!decision.allowed && !(book.observe && isObservable(decision, draft.method))) throw refusal(decision)
  return { target, identity, platform, kinds, url, decision }
}

/** The newest certificate of the caller for the target; it stays with the request for all of its tries. */
function certificateFor(
  { certificates }: EgressPermitOptions,
  { entry, instance, target, kinds }: Pick<Permit, 'entry' | 'instance' | 'target' | 'kinds'>,
): Certificate | undefined {
  if (!kinds.includes('mtls')) return undefined
  return certificates.current({ entry, instance, purpose: `target:${target.name}` })
}

/** The target that the request names; throws target_unknown, revoked. */
function targetOf({ book, revocations }: PermitOptions, route: Route, draft: Draft): Target {
  const target = book.get().targetNamed(route.target)
  if (!target) throw OWN_METHOD.test(route.path) ? elsewhere() : unknownTarget(route.target)
  draft.target = target
  revocations.check([['target', target.name]])
  return target
}

/** The subject behind the handle of a request, when it has one; throws subject_unknown. */
export function subjectOf(
  subjects: Subjects,
  owner: KeyOwner,
  handle: string | undefined,
): Subject | undefined {
  return handle === undefined ? undefined : subjects.find(owner, handle)
}

/** What the grant has signed; nothing where none was found and that is only observed. */
export function signedBy(decision: Decision): readonly string[] {
  return decision.allowed ? decision.grant.signedHeaders : []
}

/** What requests to the target carry, each of which has to be allowed; of an empty list DPoP, which it then refuses. */
export function kindsOf({ binding }: TargetIdentity): readonly [Binding, ...Binding[]] {
  const [first = 'dpop', ...others] = binding
  return [first, ...others]
}

/** Egress goes to the first origin that policy lists; the others are where applications may go themselves. */
export function originOf(target: Target, { origins }: TargetPlatform): string {
  const [origin] = origins
  if (origin !== undefined && !origin.endsWith(':*')) return origin
  throw new Fault('target_unknown', `the first origin of ${target.name} has no port of its own`, {
    action: `Put an origin with its port first in the origins of ${target.name}.`,
  })
}

/** What identity and platform say of `target`; throws policy_denied when one of them is silent. */
export function statementsOf(target: Target): { identity: TargetIdentity; platform: TargetPlatform } {
  const { identity, platform } = target
  if (identity && platform) return { identity, platform }
  const layer = identity ? 'platform' : 'identity'
  throw new Fault('policy_denied', `no ${layer} policy file says anything about ${target.name}`, {
    owner: layer,
    action: `Add ${target.name} to the targets of a policy file of layer ${layer}.`,
  })
}

/** `mode: observe` lets through what rules have not foreseen yet, nothing that somebody decided. */
export function isObservable({ reason, owner }: Denied, method: string): boolean {
  return reason === 'policy_denied' && owner === 'application' && !isNeverGranted(method)
}

export function refusal({ reason, message, owner, action }: Denied): Fault {
  return new Fault(reason, message, { owner, action })
}

// The methods of the workload socket. A target may serve some of that name, the agent does not serve its own here.
const OWN_METHOD = /^\/(?:SpiffeWorkloadAPI|(?:holdfast|envoy\.service)\.[A-Za-z0-9_.]+)\/[A-Za-z0-9]+$/

function elsewhere(): Fault {
  return new Fault('not_found', 'the methods of the agent are not served on this socket', {
    action: 'Call them on workload.sock; here Host (:authority) names a target.',
  })
}

export function unknownTarget(name: string): Fault {
  return new Fault('target_unknown', `no target has the name ${name}`, {
    action: `Add ${name} to the targets of a platform policy file.`,
  })
}
