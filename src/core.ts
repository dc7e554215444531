/** What an agent holds behind its doors: policy, leases, keys, SVIDs, revocations, and how they hear of each other. */
import { Attestation } from './attest/identify.ts'
import { type Clock, nowSeconds } from './base/clock.ts'
import { watchClone } from './base/clone.ts'
import { Live } from './base/live.ts'
import { watchSuspend } from './base/suspend.ts'
import { type Config, readEnvironment, sharesKeys } from './config.ts'
import { ClientKeys } from './egress/client-key.ts'
import type { Authority } from './issue/authority.ts'
import { Rotator } from './issue/rotator.ts'
import { Svids } from './issue/svids.ts'
import type { FederatedBundles, TrustedBundles } from './issue/trusted-bundles.ts'
import { Vault } from './keys/vault.ts'
import type { RevokeAsk, RevokeOptions } from './operate/revoke.ts'
import { openPods } from './pods.ts'
import type { RuleBook } from './policy/book.ts'
import type { Entry } from './policy/entry.ts'
import { Revocations } from './policy/revocations.ts'
import type { Signer } from './proof/signer.ts'
import { Admission } from './sign/admission.ts'
import { Approvals } from './sign/approvals.ts'
import { Hook, type HookPost } from './sign/hook.ts'
import { Rates } from './sign/rate.ts'
import { Signing } from './sign/sign.ts'
import { withdrawKeys } from './sign/withdraw.ts'
import type { Audit } from './telemetry/audit.ts'
import type { Health } from './telemetry/health.ts'
import type { Log } from './telemetry/log.ts'
import type { Metrics } from './telemetry/metrics.ts'

export interface CoreOptions {
  readonly config: Config
  readonly book: RuleBook
  readonly authority: Authority
  /** Bundles of other trust domains. */
  readonly federated: Live<FederatedBundles>
  readonly audit: Audit
  readonly log: Log
  readonly health: Health
  readonly metrics: Metrics
  readonly clock: Clock
  readonly revocationsFile: string
}

const MILLIS = 1000

/** The parts of a running agent that no socket belongs to. */
export interface Core {
  readonly book: Live<RuleBook>
  readonly revocations: Revocations
  readonly attestation: Attestation
  readonly vault: Vault
  /** The keys of OAuth clients: the bundle endpoint publishes them whether or not anything is sent out yet. */
  readonly clientKeys: ClientKeys
  readonly svids: Svids
  readonly bundles: TrustedBundles
  readonly rotator: Rotator
  readonly signing: Signing
  /** How often each instance may ask, whichever door it asks at. */
  readonly rates: Rates
  readonly admission: Admission
  readonly approvals: Approvals
  /** The WIT-SVID over a held key; absent when the WIT profile is off. */
  readonly heldWit: ((entry: Entry, signer: Signer) => string) | undefined
  /** The newest revocation by an operator. */
  readonly revoked: Live<RevokeAsk | undefined>
  readonly revoking: RevokeOptions
  /** Whether JWT-SVIDs and WIT-SVIDs may be issued: several nodes must share their key. */
  readonly jwt: boolean
  readonly wit: boolean
  /** Destroys every key and ends every lease. */
  stop(): void
}

/** Builds the core; throws config_invalid when the revocations cannot be read. */
export function openCore(options: CoreOptions): Core {
  const { config, authority, audit, log, health, metrics, clock } = options
  const revocations = new Revocations(options.revocationsFile, clock)
  const book = new Live(options.book)
  const ending = new AbortController()
  const { signal } = ending
  const pods = openPods({ config, pod: readEnvironment().pod, clock, health, audit, log, signal })
  const attestation = new Attestation({ clock, book, health, requirePidfd: config.kernel.requirePidfd, pods })
  const vault = new Vault({ clock, rotation: config.keys.rotation })
  const clientKeys = new ClientKeys({ vault, signal })
  const onIssued = (kind: string) => metrics.count('holdfast_svids_issued_total', { kind })
  const svids = new Svids({ authority, clock, onIssued })
  const bundles = { own: authority.bundle, federated: options.federated }
  const rotator = new Rotator({ svids, bundles, book, clock })
  const jwt = sharesKeys(config)
  const wit = jwt && config.wit === 'on'
  const admitting = openAdmission(options, book)
  const heldWit = wit ? svids.heldWit.bind(svids) : undefined
  const onProof = (kind: string, fault?: { readonly reason: string }) =>
    fault
      ? metrics.count('holdfast_refusals_total', { reason: fault.reason })
      : metrics.count('holdfast_proofs_total', { kind })
  const signing = new Signing({ ...admitting, vault, book, revocations, audit, clock, heldWit, onProof })
  const tell = () => rotator.tell()
  const revoked = new Live<RevokeAsk | undefined>(undefined)
  const now = () => nowSeconds(clock)
  const revoking = { revocations, vault, attestation, svids, book, now, tell, revoked }
  const stops = [
    book.watch((next) => withdrawKeys(vault, next)),
    watchSuspend(clock, () => replaceKeys(options, vault, 'the machine slept')),
    watchClone(clock, () => replaceKeys(options, vault, 'the machine is a copy')),
  ]
  gauges(metrics, { vault, attestation, rotator, ...admitting }, authority)
  return {
    book,
    revocations,
    attestation,
    vault,
    clientKeys,
    svids,
    bundles,
    rotator,
    signing,
    ...admitting,
    heldWit,
    revoked,
    revoking,
    jwt,
    wit,
    stop: () => {
      for (const stop of stops) stop()
      attestation.stop()
      rotator.stop()
      ending.abort()
      vault.stop()
      authority.stop()
    },
  }
}

/** One rate, one session and one list of waiting requests for all doors. */
function openAdmission(
  options: CoreOptions,
  book: Live<RuleBook>,
): Pick<Core, 'rates' | 'admission' | 'approvals'> {
  const { clock, config } = options
  const rates = new Rates(config.limits.proofsPerSecond, clock)
  const approvals = new Approvals(clock)
  const admission = new Admission({ book, rates, clock, approvals, hook: hookOf(options) })
  return { rates, admission, approvals }
}

/** What reaches the hook is loaded with its first question. */
function hookOf({ config, clock }: CoreOptions): Hook | undefined {
  const { cache, socket, timeout, url } = config.decisionHook
  const place = socket !== undefined ? { socket } : url !== undefined ? { url } : undefined
  if (!place) return undefined
  let loading: Promise<HookPost> | undefined
  const post: HookPost = async (body, signal) => {
    loading ??= import('./sign/hook-post.ts').then(({ postTo }) => postTo(place))
    return (await loading)(body, signal)
  }
  return new Hook({ post, clock, timeout: timeout * MILLIS, cache: cache * MILLIS })
}

/** A sleep may have written memory to a disk, and a copy has it: what was in it is not trusted any more. */
function replaceKeys({ log, audit }: CoreOptions, vault: Vault, why: string): void {
  const { count } = vault
  vault.replaceAll()
  log.warn(`${why}: all proof keys were replaced`, { count, epoch: vault.epoch })
  audit.append({ event: 'key.destroy', allowed: true, count, detail: why })
}

function gauges(
  metrics: Metrics,
  core: Pick<Core, 'vault' | 'attestation' | 'rotator' | 'approvals'>,
  authority: Authority,
): void {
  metrics.gauge('holdfast_keys', 'Proof keys held.', () => core.vault.count)
  metrics.gauge('holdfast_connections', 'Open connections.', () => core.attestation.counts.connections)
  metrics.gauge(
    'holdfast_instances',
    'Instances that keys may hang on.',
    () => core.attestation.counts.instances,
  )
  metrics.gauge('holdfast_approvals_waiting', 'Requests that wait for a person.', () => core.approvals.count)
  metrics.gauge(
    'holdfast_ca_expiration_timestamp_seconds',
    'When the CA that signs X.509-SVIDs ends, as Unix time.',
    () => authority.caLife().notAfter,
  )
  metrics.gauge('holdfast_ca_lifetime_seconds', 'How long that CA is valid from its beginning.', () => {
    const { notBefore, notAfter } = authority.caLife()
    return notAfter - notBefore
  })
  metrics.gauge('holdfast_streams', 'Open streams that hear of changes.', () => core.rotator.watchers)
}
