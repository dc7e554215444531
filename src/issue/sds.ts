/**
 * Envoy's Secret Discovery Service (SDS v3) on the workload socket: SVIDs and bundles for proxies. The identity is the
 * attested peer's; what a node says of itself chooses a form at most. Envoy sends no `workload.spiffe.io`. Who has no
 * entry yet is kept waiting, since an error would cost it a back-off of up to 30 s.
 */
import type { Workload } from '../attest/workload.ts'
import type { Clock, Seconds } from '../base/clock.ts'
import { Fault, printable } from '../base/fault.ts'
import type { Caller } from '../serve/caller.ts'
import type { Feed, Hear } from '../serve/feed.ts'
import type { Handlers } from '../serve/grpc.ts'
import type { OwnerLimits } from '../serve/limits.ts'
import type { Message } from '../serve/messages.ts'
import type { Audit } from '../telemetry/audit.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Rotator } from './rotator.ts'
import { askedIn, incremental, responseOf, stateOfTheWorld } from './sds-dialect.ts'
import { type Asked, type Found, findSecrets, type SecretSource } from './sds-names.ts'
import { type Secret, versionOfAll } from './sds-secrets.ts'
import { type Dialect, SecretStream } from './sds-stream.ts'

export const SDS = 'envoy.service.secret.v3.SecretDiscoveryService'

export interface SdsOptions extends SecretSource {
  readonly rotator: Rotator
  readonly audit: Audit
  readonly log: Log
  readonly metrics: Metrics
  readonly clock: Clock
  /** Streams that wait for their first secret, by owner. */
  readonly waiting: OwnerLimits
  /** How long one of them may wait. */
  readonly patience: Seconds
}

const MILLIS = 1000
const WIPE_AFTER_MS = 1_000
const SHOWN_LENGTH = 200

/** The handlers of `SecretDiscoveryService`. */
export function sdsHandlers(options: SdsOptions): Handlers {
  return {
    StreamSecrets: { feed: (caller, feed) => serve(options, caller, feed, stateOfTheWorld) },
    DeltaSecrets: { feed: (caller, feed) => serve(options, caller, feed, incremental) },
    FetchSecrets: { unary: (caller, request) => fetchSecrets(options, caller, request) },
  }
}

function serve(options: SdsOptions, caller: Caller, feed: Feed, dialect: Dialect): Hear {
  const wait = new Wait(options, caller.owner, feed)
  const told = { isDenied: false }
  const stream = new SecretStream({
    dialect,
    find: (asked) => find(options, caller.workload(), asked, told),
    onVerdict: (verdict, error) => {
      options.metrics.count('holdfast_sds_total', { outcome: verdict })
      if (error !== undefined) logRefusal(options, caller, error)
    },
    onSent: (secrets) => record(options, caller.workload(), secrets),
    onWaiting: (isWaiting) => wait.set(isWaiting),
  })
  const push = () => feed.push(() => stream.next())
  const stops = [options.rotator.watch(push), caller.workload().watchEntries(push)]
  feed.onClose(() => {
    for (const stop of stops) stop()
    wait.set(false)
  })
  return (message) => {
    if (stream.hear(message)) push()
  }
}

/** A stream that waits holds a place of its owner's, and not for ever. */
class Wait {
  readonly #options: SdsOptions
  readonly #owner: Caller['owner']
  readonly #feed: Feed
  #leave: (() => void) | undefined

  constructor(options: SdsOptions, owner: Caller['owner'], feed: Feed) {
    this.#options = options
    this.#owner = owner
    this.#feed = feed
  }

  set(isWaiting: boolean): void {
    if (isWaiting === (this.#leave !== undefined)) return
    if (!isWaiting) {
      this.#leave?.()
      this.#leave = undefined
      return
    }
    const { clock, patience, waiting } = this.#options
    const give = waiting.take(this.#owner)
    const cancel = clock.after(patience * MILLIS, () =>
      this.#feed.end(new Fault('no_identity', `no identity issued: none came within ${patience} seconds`)),
    )
    this.#leave = () => {
      cancel()
      give()
    }
  }
}

/** What the caller may have. That something is not delivered is recorded, beside what is too, once as long as it is so. */
function find(options: SdsOptions, workload: Workload, asked: Asked, told = { isDenied: false }): Found {
  const found = findSecrets(options, workload, asked)
  const denied = found.refusals.find(({ reason }) => reason === 'delivery_denied')
  if (denied && !told.isDenied) {
    const { pid, uid } = workload.peer
    const { reason, owner } = denied
    options.audit.append({ event: 'deliver.x509', allowed: false, reason, owner, pid, uid, detail: 'sds' })
  }
  told.isDenied = denied !== undefined
  return found
}

function fetchSecrets(options: SdsOptions, caller: Caller, request: Message): Message {
  const workload = caller.workload()
  const { secrets, refusals } = find(options, workload, askedIn(request))
  const [refusal] = refusals
  if (secrets.length === 0 && refusal) throw refusal
  const encoded = secrets.map((secret) => ({ secret, bytes: secret.encode() }))
  options.clock.after(WIPE_AFTER_MS, () => {
    for (const { bytes } of encoded) bytes.fill(0)
  })
  record(options, workload, secrets)
  return responseOf(encoded, { version: versionOfAll(secrets), nonce: '' })
}

function record(options: SdsOptions, workload: Workload, secrets: readonly Secret[]): void {
  options.metrics.count('holdfast_sds_total', { outcome: 'sent' })
  const { pid, uid } = workload.peer
  for (const { entry } of secrets) {
    if (!entry) continue
    const { spiffeId: spiffe_id, name } = entry
    options.audit.append({
      event: 'deliver.x509',
      allowed: true,
      spiffe_id,
      entry: name,
      pid,
      uid,
      detail: 'sds',
    })
  }
}

/** The client keeps what it had: nothing is sent again until something changes. */
function logRefusal({ log }: SdsOptions, { pid, uid }: Caller, error: string): void {
  const shown = JSON.stringify(printable(error.slice(0, SHOWN_LENGTH)))
  log.warn(`a proxy refused a secret and keeps its last one: ${shown}`, { pid, uid })
}
