/** The JSON form of `holdfast.v1` on the workload socket: for curl and for languages without gRPC. */
import { entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Entry } from '../policy/entry.ts'
import { type Contacts, explainRequest } from '../policy/explain.ts'
import type { JsonAnswer, JsonRequest, Routes } from '../serve/http.ts'
import { parseDpopAsk, parseWptAsk } from './ask.ts'
import { inTurns } from './in-turns.ts'
import { BATCH_LIMIT, type ProofApiOptions } from './proof-api.ts'
import type { SignedProof } from './sign.ts'

export interface JsonApiOptions extends ProofApiOptions {
  readonly book: Live<RuleBook>
  readonly trustDomain: string
  /** Whom refusals send the caller to. */
  readonly contacts: Contacts
}

type Members = Readonly<Record<string, unknown>>

/** The routes of the workload socket. */
export function jsonApi(options: JsonApiOptions): Routes {
  return {
    'POST /v1/dpop': (request) => signOne(options, request, 'dpop'),
    'POST /v1/wpt': (request) => signOne(options, request, 'wpt'),
    'POST /v1/proofs': (request) => signMany(options, request),
    'GET /v1/identity': (request) => identity(options, request),
    'POST /v1/explain': (request) => explainOwn(options, request),
  }
}

async function signOne(
  options: JsonApiOptions,
  { caller, body }: JsonRequest,
  kind: 'dpop' | 'wpt',
): Promise<SignedProof> {
  const workload = caller.workload()
  options.audit.check()
  try {
    return options.signing.sign(workload, kind === 'dpop' ? parseDpopAsk(body) : parseWptAsk(body))
  } finally {
    await options.audit.settle()
  }
}

async function signMany(options: JsonApiOptions, { caller, body }: JsonRequest): Promise<JsonAnswer> {
  const { requests, ...rest } = body
  const unknown = Object.keys(rest)[0]
  if (unknown !== undefined)
    throw new Fault('invalid_request', `unknown member ${JSON.stringify(unknown.slice(0, 64))}`)
  if (!Array.isArray(requests)) throw new Fault('invalid_request', 'requests is missing or not an array')
  if (requests.length > BATCH_LIMIT) throw new Fault('invalid_request', `over ${BATCH_LIMIT} requests`)
  const { audit } = options
  const results = await inTurns({ caller, audit }, requests, (workload, item: unknown) =>
    signItem(options, workload, item),
  )
  await audit.settle()
  return { results }
}

function signItem(options: JsonApiOptions, workload: Workload, item: unknown): object {
  try {
    const { kind, ...members } = membersOf(item)
    if (kind === 'dpop') return options.signing.sign(workload, parseDpopAsk(members))
    if (kind === 'wpt') return options.signing.sign(workload, parseWptAsk(members))
    throw new Fault('invalid_request', 'kind is neither dpop nor wpt')
  } catch (caught) {
    return { error: Fault.from(caught) }
  }
}

function membersOf(item: unknown): Members {
  if (typeof item !== 'object' || item === null || Array.isArray(item))
    throw new Fault('invalid_request', 'a request is not an object')
  return item as Members
}

function identity(options: JsonApiOptions, { caller }: JsonRequest): JsonAnswer {
  const workload = caller.workload()
  const { pid, uid, gid } = workload.peer
  return {
    trust_domain: options.trustDomain,
    epoch: options.vault.epoch,
    identities: entitled(workload, options.revocations).map((entry) => identityOf(options, workload, entry)),
    peer: { pid, uid, gid },
    selectors: workload.selectors,
  }
}

/** Why a request of the caller's would be allowed or not: what the caller may know of policy is what concerns it. */
function explainOwn(options: JsonApiOptions, { caller, body }: JsonRequest): JsonAnswer {
  return explainRequest(options.book.get(), caller.workload().selectors, body, options.contacts)
}

function identityOf(options: JsonApiOptions, workload: Workload, entry: Entry): object {
  const owner = { spiffeId: entry.spiffeId, instance: workload.instanceOf(entry) }
  return { spiffe_id: entry.spiffeId, hint: entry.hint, entry: entry.name, keys: options.vault.list(owner) }
}
