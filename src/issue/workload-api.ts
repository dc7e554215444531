/**
 * The SPIFFE Workload API (SPIFFE_Workload_API.md s.4-7), all seven RPCs: full sets, the newest at once and after each
 * change, in policy order.
 */
import { chooseEntry, entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import { type Clock, nowSeconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { Caller } from '../serve/caller.ts'
import type { Handlers, Stream } from '../serve/grpc.ts'
import type { Message } from '../serve/messages.ts'
import { type Bundle, formatJwtBundle, formatWitBundle } from '../spiffe/bundle.ts'
import { idOfTrustDomain, parseSpiffeId } from '../spiffe/id.ts'
import { verifyJwtSvid } from '../spiffe/jwtsvid.ts'
import type { Audit, AuditFacts } from '../telemetry/audit.ts'
import type { Rotator } from './rotator.ts'
import { structOf } from './struct.ts'
import type { Svids } from './svids.ts'
import { federatedOf, type TrustedBundles } from './trusted-bundles.ts'

export interface WorkloadApiOptions {
  readonly svids: Svids
  readonly bundles: TrustedBundles
  readonly rotator: Rotator
  readonly book: Live<RuleBook>
  readonly revocations: Revocations
  readonly audit: Audit
  readonly clock: Clock
  readonly wit: boolean
  /** JWT-SVIDs need a key that all nodes share. */
  readonly jwt: boolean
}

type Deliverable = 'x509' | 'jwt' | 'wit'

const AUDIENCES_LIMIT = 32
const AUDIENCE_LENGTH = 2_048
const TOKEN_LENGTH = 64 * 1024

/** The handlers of `SpiffeWorkloadAPI`. */
export function workloadApi(options: WorkloadApiOptions): Handlers {
  return {
    FetchX509SVID: { stream: (caller, _request, stream) => follow(options, caller, stream, x509Svids) },
    FetchX509Bundles: { stream: (caller, _request, stream) => follow(options, caller, stream, x509Bundles) },
    FetchJWTSVID: { unary: (caller, request) => fetchJwt(options, caller, request) },
    FetchJWTBundles: { stream: (caller, _request, stream) => follow(options, caller, stream, jwtBundles) },
    ValidateJWTSVID: { unary: (caller, request) => validateJwt(options, caller, request) },
    FetchWITSVID: {
      stream: (caller, request, stream) =>
        follow(options, caller, stream, (api, w) => witSvids(api, w, request)),
    },
    FetchWITBundles: { stream: (caller, _request, stream) => follow(options, caller, stream, witBundles) },
  }
}

/** A message and the parts it was made of: the same parts make the same message, which is not sent again. */
interface State {
  readonly parts: readonly unknown[]
  readonly message: () => Message
}

type StateOf = (options: WorkloadApiOptions, workload: Workload) => State

/** Sends the state now and after each change; ends when the entitlement does. */
function follow(options: WorkloadApiOptions, caller: Caller, stream: Stream, stateOf: StateOf): void {
  let last: readonly unknown[] = []
  const push = () => {
    try {
      const { parts, message } = stateOf(options, caller.workload())
      if (parts.length === last.length && parts.every((part, index) => part === last[index])) return
      last = parts
      stream.send(message())
    } catch (caught) {
      stream.end(Fault.from(caught))
    }
  }
  const stop = options.rotator.watch(push)
  stream.onClose(stop)
  push()
}

function x509Svids(options: WorkloadApiOptions, workload: Workload): State {
  const entries = deliverable(options, workload, 'x509')
  const svids = entries.map((entry) => options.svids.x509(entry))
  const bundle = options.bundles.own.get()
  const federated = federatedOf(options.bundles, entries)
  const message = () => {
    const roots = Buffer.concat(bundle.x509Authorities)
    record(options, workload, 'deliver.x509', entries)
    return {
      svids: svids.map((svid, index) => ({
        spiffe_id: svid.spiffeId,
        x509_svid: svid.chain,
        x509_svid_key: svid.key,
        bundle: roots,
        hint: hintOf(entries, index),
      })),
      federated_bundles: x509BundleMap(federated),
    }
  }
  const hints = entries.map((_, index) => hintOf(entries, index))
  return { parts: [...svids, ...hints, ...bundle.x509Authorities, ...federated], message }
}

function x509Bundles(options: WorkloadApiOptions, workload: Workload): State {
  const own = options.bundles.own.get()
  const federated = federatedOf(options.bundles, entitled(workload, options.revocations))
  const message = () => ({ bundles: x509BundleMap([own, ...federated]) })
  return { parts: [...own.x509Authorities, ...federated], message }
}

/** Concatenated DER by trust domain; one without a CA verifies nobody and is left out. */
function x509BundleMap(bundles: readonly Bundle[]): Readonly<Record<string, Buffer>> {
  const usable = bundles.filter(({ x509Authorities }) => x509Authorities.length > 0)
  return Object.fromEntries(
    usable.map(({ trustDomain, x509Authorities }) => [
      idOfTrustDomain(trustDomain),
      Buffer.concat(x509Authorities),
    ]),
  )
}

function jwtBundles(options: WorkloadApiOptions, workload: Workload): State {
  const bundle = options.bundles.own.get()
  const federated = federatedOf(options.bundles, entitled(workload, options.revocations))
  const message = () => ({
    bundles: Object.fromEntries(
      [bundle, ...federated].map((each) => [
        idOfTrustDomain(each.trustDomain),
        Buffer.from(formatJwtBundle(each)),
      ]),
    ),
  })
  return { parts: [...bundle.jwtAuthorities.keys(), ...federated], message }
}

function witSvids(options: WorkloadApiOptions, workload: Workload, request: Message): State {
  requireWit(options)
  const all = deliverable(options, workload, 'wit')
  const id = textOf(request, 'spiffe_id')
  const entries = id === '' ? all : [chooseEntry(all, parseSpiffeId(id))]
  const svids = entries.map((entry) => options.svids.deliveredWit(entry))
  const message = () => {
    record(options, workload, 'deliver.wit', entries)
    return {
      svids: svids.map((svid, index) => ({
        spiffe_id: svid.spiffeId,
        wit_svid: svid.token,
        wit_svid_key: svid.key.privateJwk().reveal(),
        hint: hintOf(entries, index),
      })),
    }
  }
  return { parts: svids, message }
}

function witBundles(options: WorkloadApiOptions, workload: Workload): State {
  requireWit(options)
  entitled(workload, options.revocations)
  const bundle = options.bundles.own.get()
  return {
    parts: [...bundle.witAuthorities.keys()],
    message: () => ({ bundles: { [idOfTrustDomain(bundle.trustDomain)]: formatWitBundle(bundle) } }),
  }
}

function requireWit(options: WorkloadApiOptions): void {
  if (!options.wit)
    throw new Fault('unimplemented', 'the WIT profile is off: `wit: on` in the configuration enables it')
}

/** The hint of the entry at `index`, unless an earlier one has it (Workload API s.5.2: unique in a response). */
function hintOf(entries: readonly Entry[], index: number): string {
  const hint = entries[index]?.hint ?? ''
  return entries.findIndex((entry) => entry.hint === hint) === index ? hint : ''
}

/** The caller's entries that deliver `kind`; throws no_identity, revoked, delivery_denied. */
function deliverable(options: WorkloadApiOptions, workload: Workload, kind: Deliverable): readonly Entry[] {
  const entries = entitled(workload, options.revocations).filter((entry) => entry.deliver[kind])
  if (entries.length === 0) throw new Fault('delivery_denied', `no entry of this caller delivers ${kind}`)
  return entries
}

async function fetchJwt(options: WorkloadApiOptions, caller: Caller, request: Message): Promise<Message> {
  if (!options.jwt) throw new Fault('authority_not_shared')
  const audience = audienceOf(request['audience'])
  const id = textOf(request, 'spiffe_id')
  const spiffeId = id === '' ? undefined : parseSpiffeId(id)
  const workload = caller.workload()
  options.audit.check()
  const all = entitled(workload, options.revocations)
  const asked = spiffeId === undefined ? all : [chooseEntry(all, spiffeId)]
  try {
    const entries = jwtEntries(options, asked, audience)
    record(options, workload, 'deliver.jwt', entries, audience)
    const svids = entries.map((entry, index) => ({
      spiffe_id: entry.spiffeId,
      svid: options.svids.jwt(entry, audience),
      hint: hintOf(entries, index),
    }))
    await options.audit.settle()
    return { svids }
  } catch (caught) {
    recordRefusal(options, workload, 'deliver.jwt', Fault.from(caught), audience)
    throw caught
  }
}

/** Entries that deliver JWT-SVIDs for all of `audience`: one reserved audience in the list is enough to refuse. */
function jwtEntries(
  options: WorkloadApiOptions,
  asked: readonly Entry[],
  audience: readonly string[],
): readonly Entry[] {
  const delivering = asked.filter((entry) => entry.deliver.jwt)
  if (delivering.length === 0) throw new Fault('delivery_denied', 'no entry of this caller delivers jwt')
  const book = options.book.get()
  const reserved = audience.filter((name) => book.isReserved(name))
  if (reserved.length === 0) return delivering
  const exempt = delivering.filter((entry) => reserved.every((name) => entry.audiences.includes(name)))
  if (exempt.length === 0) throw new Fault('audience_reserved')
  return exempt
}

function audienceOf(value: unknown): readonly string[] {
  const list = Array.isArray(value) ? (value as readonly unknown[]) : []
  if (list.length === 0) throw new Fault('invalid_request', 'audience must be specified')
  if (list.length > AUDIENCES_LIMIT) throw new Fault('invalid_request', `over ${AUDIENCES_LIMIT} audiences`)
  if (!list.every((name) => typeof name === 'string' && name !== '' && name.length <= AUDIENCE_LENGTH)) {
    throw new Fault('invalid_request', `an audience is empty or over ${AUDIENCE_LENGTH} characters`)
  }
  return list as readonly string[]
}

/** Answers callers without an identity too: a verdict on a token gives nothing away. */
function validateJwt(options: WorkloadApiOptions, caller: Caller, request: Message): Message {
  const audience = textOf(request, 'audience')
  const token = textOf(request, 'svid')
  if (audience === '') throw new Fault('invalid_request', 'audience must be specified')
  if (token === '') throw new Fault('invalid_request', 'svid must be specified')
  if (token.length > TOKEN_LENGTH)
    throw new Fault('invalid_request', `svid is over ${TOKEN_LENGTH} characters`)
  const bundle = options.bundles.own.get()
  const bundleOf = (name: string) => (name === bundle.trustDomain ? bundle : undefined)
  const facts = { event: 'validate.jwt', pid: caller.pid, uid: caller.uid, audience: [audience] } as const
  try {
    const svid = verifyJwtSvid(token, audience, bundleOf, nowSeconds(options.clock))
    options.revocations.check([['spiffe_id', svid.spiffeId]])
    options.audit.append({ ...facts, allowed: true, spiffe_id: svid.spiffeId })
    return { spiffe_id: svid.spiffeId, claims: structOf(svid.claims) }
  } catch (caught) {
    options.audit.append({ ...facts, allowed: false, reason: Fault.from(caught).reason })
    throw caught
  }
}

function textOf(request: Message, member: string): string {
  const value = request[member]
  return typeof value === 'string' ? value : ''
}

function record(
  options: WorkloadApiOptions,
  workload: Workload,
  event: AuditFacts['event'],
  entries: readonly Entry[],
  audience?: readonly string[],
): void {
  const { pid, uid } = workload.peer
  for (const entry of entries) {
    options.audit.append({
      event,
      allowed: true,
      spiffe_id: entry.spiffeId,
      entry: entry.name,
      pid,
      uid,
      audience,
    })
  }
}

function recordRefusal(
  options: WorkloadApiOptions,
  workload: Workload,
  event: AuditFacts['event'],
  fault: Fault,
  audience?: readonly string[],
): void {
  const { pid, uid } = workload.peer
  options.audit.append({
    event,
    allowed: false,
    reason: fault.reason,
    owner: fault.owner,
    pid,
    uid,
    audience,
  })
}
