/** `holdfast.v1.ProofService`: the gRPC form of signing, keys watched and listed. */
import { entitled } from '../attest/entitled.ts'
import type { Workload } from '../attest/workload.ts'
import { Fault } from '../base/fault.ts'
import type { KeyChange, KeyFacts, KeyOwner, Vault } from '../keys/vault.ts'
import type { Revocations } from '../policy/revocations.ts'
import type { Caller } from '../serve/caller.ts'
import type { Handlers, Stream } from '../serve/grpc.ts'
import type { Message } from '../serve/messages.ts'
import type { Audit } from '../telemetry/audit.ts'
import { type Ask, parseDpopAsk, parseWptAsk } from './ask.ts'
import { inTurns } from './in-turns.ts'
import type { Signing } from './sign.ts'

export interface ProofApiOptions {
  readonly signing: Signing
  readonly vault: Vault
  readonly revocations: Revocations
  readonly audit: Audit
  /** Calls back whenever entitlements may have changed, until the returned function is called. */
  readonly watch: (changed: () => void) => () => void
}

export const BATCH_LIMIT = 64
const CHANGE: Readonly<Record<KeyChange['change'], string>> = {
  created: 'CURRENT',
  rotated: 'CURRENT',
  lost: 'LOST',
}

/** The handlers of the service. */
export function proofApi(options: ProofApiOptions): Handlers {
  return {
    SignProof: { unary: (caller, request) => signUnary(options, caller, request) },
    SignProofs: { exchange: (caller, request) => signOnStream(options, caller, request) },
    WatchKeys: { stream: (caller, _request, stream) => watchKeys(options, caller, stream) },
    ListKeys: { unary: (caller) => listKeys(options, caller) },
  }
}

async function signUnary(options: ProofApiOptions, caller: Caller, request: Message): Promise<Message> {
  const results = await signBatch(options, caller, request)
  await options.audit.settle()
  return { results }
}

function signOnStream(
  options: ProofApiOptions,
  caller: Caller,
  request: Message,
): Message | Promise<Message> {
  const recorded = (results: readonly Message[]): Message => {
    options.audit.commit()
    return { results }
  }
  const results = signBatch(options, caller, request)
  return results instanceof Promise ? results.then(recorded) : recorded(results)
}

/** The records wait to be written. */
function signBatch({ audit, signing }: ProofApiOptions, caller: Caller, request: Message) {
  const requests = (request['requests'] ?? []) as readonly Message[]
  if (requests.length === 0) throw new Fault('invalid_request', 'requests is empty')
  if (requests.length > BATCH_LIMIT)
    throw new Fault('invalid_request', `over ${BATCH_LIMIT} requests in one message`)
  return inTurns({ caller, audit }, requests, (workload, item) => signOne(signing, workload, item))
}

function signOne(signing: Signing, workload: Workload, item: Message): Message {
  const id = item['id'] ?? 0
  try {
    return { id, proof: signing.sign(workload, parseAsk(item)) }
  } catch (caught) {
    const { reason, message, action, owner } = Fault.from(caught)
    return { id, refusal: { reason, message, action, owner } }
  }
}

function parseAsk(item: Message): Ask {
  const { dpop, wpt } = item as { dpop?: Message; wpt?: Message }
  if (dpop) return parseDpopAsk(dpop)
  if (wpt) return parseWptAsk(wpt)
  throw new Fault('invalid_request', 'the request has neither dpop nor wpt')
}

/** Every (identity, instance) that holds keys for the caller. */
export function ownersOf(workload: Workload, revocations: Revocations): readonly KeyOwner[] {
  return entitled(workload, revocations).map((entry) => ({
    spiffeId: entry.spiffeId,
    instance: workload.instanceOf(entry),
  }))
}

function listKeys(options: ProofApiOptions, caller: Caller): Message {
  const owners = ownersOf(caller.workload(), options.revocations)
  const keys = owners.flatMap((owner) => options.vault.list(owner).map((key) => keyMessage(owner, key)))
  return { epoch: options.vault.epoch, keys }
}

function watchKeys(options: ProofApiOptions, caller: Caller, stream: Stream): void {
  const { vault } = options
  const owners = ownersOf(caller.workload(), options.revocations)
  const stopWatching = options.watch(() => endUnlessEntitled(options, caller, stream))
  stream.onClose(stopWatching)
  const all = () =>
    owners.flatMap((owner) =>
      vault.list(owner).map((key) => ({ change: stateOf(key), key: keyMessage(owner, key) })),
    )
  stream.send({ epoch: vault.epoch, changes: all() })
  for (const owner of owners) {
    const stop = vault.watch(owner, ({ change, key }) => {
      // The newest message may be all that a slow reader gets, so each one is whole but for the lost key.
      const lost = change === 'lost' ? [{ change: CHANGE[change], key: keyMessage(owner, key) }] : []
      stream.send({ epoch: vault.epoch, changes: [...lost, ...all()] })
    })
    stream.onClose(stop)
  }
}

function endUnlessEntitled(options: ProofApiOptions, caller: Caller, stream: Stream): void {
  try {
    entitled(caller.workload(), options.revocations)
  } catch (caught) {
    stream.end(Fault.from(caught))
  }
}

function stateOf(key: KeyFacts): string {
  return key.retired === undefined ? 'CURRENT' : 'RETIRED'
}

function keyMessage(owner: KeyOwner, key: KeyFacts): Message {
  return { spiffe_id: owner.spiffeId, ...key }
}
