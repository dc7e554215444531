/** What an agent sends out for workloads: token requests to authorization servers, requests of the egress door. */
import type { Millis, Seconds } from './base/clock.ts'
import type { Fault } from './base/fault.ts'
import type { Core, CoreOptions } from './core.ts'
import { Dialer } from './egress/dial.ts'
import { dialWith, type EgressDoor, openEgressDoor } from './egress/door.ts'
import { Nonces } from './egress/nonces.ts'
import { Releases } from './egress/release.ts'
import { Resolver } from './egress/resolve.ts'
import { Intake } from './egress/subject-api.ts'
import { Subjects } from './egress/subjects.ts'
import type { TargetFactsOptions } from './egress/target-facts.ts'
import { openTokenClient, type TokenClient } from './egress/token-client.ts'
import { Trust } from './egress/trust.ts'
import { type RevokeAsk, revoke } from './operate/revoke.ts'
import type { OwnerLimits } from './serve/limits.ts'
import type { Turns } from './serve/turns.ts'

const MILLIS = 1000

/** What goes out, and to whom. */
export interface Outgoing {
  /** The HTTP side of the egress socket; absent when that is off. */
  readonly door: EgressDoor | undefined
  /** Headers and tokens for those who send requests themselves, whether the socket is on or off. */
  readonly releases: Releases
  /** Tells sidecars of targets. */
  readonly facts: TargetFactsOptions
  /** Takes in the tokens that workloads were called with. */
  readonly intake: Intake
  /** What was taken in. */
  readonly subjects: Subjects
  /** Gives every token back to its server; resolves when that is done, or after `limit`. */
  giveBack(limit: Millis): Promise<void>
  stop(): void
}

/** What callers are held to. */
export interface OutgoingLimits {
  readonly headerTimeout: Millis
  readonly calls: OwnerLimits
  readonly turns: Turns
}

/** Opens it over the core's parts; nothing is fetched until a caller asks. It ends with what `stop` ends. */
export function openOutgoing(
  options: CoreOptions,
  core: Core,
  admit: () => void,
  limits: OutgoingLimits,
): Outgoing {
  const { audit, authority, clock, config, metrics } = options
  const { book, clientKeys, heldWit, jwt, revocations, revoked, vault } = core
  const bundle = authority.bundle
  const trust = new Trust({
    clock,
    bundleOf: (name) => (name === bundle.get().trustDomain ? bundle.get() : undefined),
  })
  const resolver = new Resolver({ clock, keep: config.egress.dnsTtlMax * MILLIS })
  const patience = config.egress.connectTimeout * MILLIS
  const dialer = new Dialer({ clock, resolver, trust, patience })
  const { clockSkew: skew, kept: limit, renewBefore, timeout } = config.tokens
  const onToken = (kind: string, fault: Fault | undefined) =>
    metrics.count('holdfast_tokens_total', { kind, reason: fault?.reason ?? 'ok' })
  const settings = { skew, limit, renewBefore, timeout: timeout * MILLIS, onToken }
  const attest = config.tokens.clientAttestation === 'on' ? heldWit : undefined
  const held = { vault, clientKeys, book, authority, clock, jwt, attest }
  const client = openTokenClient({ ...settings, ...held, dialer })
  const { tokens, certificates } = client
  const { admission, rates } = core
  const { subjects: most, subjectsPerInstance: perInstance } = config.tokens
  const subjects = new Subjects({ clock, perInstance, limit: most })
  metrics.gauge('holdfast_subjects', 'Subject tokens held.', () => subjects.count)
  const credentials = { vault, tokens, certificates, heldWit, subjects }
  const parts = { ...credentials, book, revocations, audit, metrics, clock, rates, admission }
  const door =
    config.egress.socket === 'on'
      ? openEgressDoor({
          ...parts,
          admit,
          ...limits,
          streamsPerConnection: config.limits.streamsPerConnection,
          dial: dialWith(dialer),
          settings: config.egress,
        })
      : undefined
  const { nonces } = door?.binding ?? { nonces: new Nonces() }
  const lab = { probes: client.probes, revokeKey: keyRevoker(core) }
  const releases = new Releases({ ...parts, ...lab, nonces, timeout: config.egress.responseTimeout * MILLIS })
  const unwatch = revoked.watch((ask) => endRevoked(ask, { door, tokens, certificates, subjects }))
  return {
    door,
    releases,
    facts: { book, revocations, rates, trust },
    intake: new Intake(parts),
    subjects,
    giveBack: (limit) => tokens.giveBack(limit),
    stop: () => {
      unwatch()
      subjects.end({})
      door?.stop()
      client.stop()
    },
  }
}

/** Ends a key of the replay lab as an operator would end it: whoever hears of revocations hears of it. */
function keyRevoker({ revoking }: Core): (jkt: string, seconds: Seconds) => void {
  return (value, seconds) => {
    revoke(revoking, { kind: 'jkt', value, seconds })
  }
}

/** Leases, and with them connections and tokens, end by themselves; a revoked target or key has no lease of its own. */
function endRevoked(
  ask: RevokeAsk | undefined,
  {
    door,
    tokens,
    certificates,
    subjects,
  }: Pick<Outgoing, 'door' | 'subjects'> & Pick<TokenClient, 'tokens' | 'certificates'>,
): void {
  if (ask?.kind === 'target') {
    door?.close({ target: ask.value })
    tokens.drop({ target: ask.value })
  } else if (ask?.kind === 'spiffe_id') {
    door?.close({ spiffeId: ask.value })
    tokens.drop({ spiffeId: ask.value })
    subjects.end({ spiffeId: ask.value })
  } else if (ask?.kind === 'jkt') {
    door?.close({ jkt: ask.value })
    tokens.drop({ jkt: ask.value })
    certificates.drop(ask.value)
  }
}
