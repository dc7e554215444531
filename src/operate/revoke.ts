/** Revocation by an operator: the rule is on disk before anything else happens, and the answer says what lives on. */
import type { Attestation } from '../attest/identify.ts'
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Live } from '../base/live.ts'
import type { Svids } from '../issue/svids.ts'
import type { Vault } from '../keys/vault.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Revocation, RevocationKind, Revocations } from '../policy/revocations.ts'
import { purposeOf } from '../sign/sign.ts'
import { parseSpiffeId } from '../spiffe/id.ts'

/** What an operator names: exactly one thing. */
export interface RevokeAsk {
  readonly kind: RevocationKind
  /** SPIFFE ID, thumbprint, target name, or an instance key (from a pid). */
  readonly value: string
  /** Absent: until lifted. */
  readonly seconds?: Seconds
}

export interface RevokeAnswer {
  readonly rule: Revocation
  readonly keys_destroyed: number
  readonly connections_ended: number
  /** What others still hold, and until when at the latest (seconds since 1970). */
  readonly lives_elsewhere: readonly { readonly what: string; readonly until: Seconds }[]
}

export interface RevokeOptions {
  readonly revocations: Revocations
  readonly vault: Vault
  readonly attestation: Attestation
  readonly svids: Svids
  readonly book: Live<RuleBook>
  readonly now: () => Seconds
  /** Open streams look again. */
  readonly tell: () => void
  /** Whoever keeps something that a rule ends hears of it here. */
  readonly revoked: Live<RevokeAsk | undefined>
}

/** Carries out `ask`; throws overloaded when too many rules are in force. */
export function revoke(options: RevokeOptions, ask: RevokeAsk): RevokeAnswer {
  const rule = options.revocations.add(ask.kind, ask.value, ask.seconds)
  const keys = destroyKeys(options, ask)
  const connections = endLeases(options.attestation, ask)
  options.tell()
  options.revoked.set(ask)
  return {
    rule,
    keys_destroyed: keys,
    connections_ended: connections,
    lives_elsewhere: livesElsewhere(options, ask),
  }
}

function endLeases(attestation: Attestation, ask: RevokeAsk): number {
  if (ask.kind === 'process') return attestation.revoke({ process: ask.value }).workloads
  if (ask.kind === 'spiffe_id') return attestation.revoke({ spiffeId: ask.value }).workloads
  return 0
}

function destroyKeys({ vault, book }: RevokeOptions, ask: RevokeAsk): number {
  if (ask.kind === 'spiffe_id') return vault.destroy({ spiffeId: ask.value })
  if (ask.kind === 'jkt') return vault.destroy({ jkt: ask.value })
  if (ask.kind === 'process') return vault.destroy({ instance: ask.value })
  const target = book.get().targets.get(ask.value)
  // A key that other targets of the same server share stays: the rule alone refuses this target.
  if (!target || target.identity?.server) return 0
  return vault.destroy({ purpose: purposeOf(target) })
}

function livesElsewhere(options: RevokeOptions, ask: RevokeAsk): RevokeAnswer['lives_elsewhere'] {
  const { book, svids } = options
  const now = options.now()
  const longest = Math.max(
    0,
    ...[...book.get().targets.values()].map((target) => target.identity?.maxTtl ?? 0),
  )
  const tokens = {
    what: 'access tokens: useless without proofs where the resource server checks them',
    until: now + longest,
  }
  if (ask.kind !== 'spiffe_id') return [tokens]
  const entries = book
    .get()
    .identities()
    .filter((entry) => entry.spiffeId === ask.value)
  const delivered = entries.flatMap((entry) => {
    const until = svids.expiryOf(entry)
    const x509 =
      until !== undefined && entry.deliver.x509 ? [{ what: 'X.509-SVIDs that were delivered', until }] : []
    const jwt = entry.deliver.jwt
      ? [{ what: 'JWT-SVIDs that were delivered', until: now + entry.jwtTtl }]
      : []
    return [...x509, ...jwt]
  })
  return [...delivered, tokens]
}

const MEMBERS = { spiffe_id: 'spiffe_id', jkt: 'jkt', target: 'target' } as const

/** The ask in the members of a JSON body; throws invalid_request. A pid stands for the process that has it now. */
export async function parseRevoke(
  members: Readonly<Record<string, unknown>>,
  processKey: (pid: number) => Promise<string>,
): Promise<RevokeAsk> {
  const named = ['spiffe_id', 'jkt', 'target', 'pid'].filter((name) => members[name] !== undefined)
  const [name] = named
  if (name === undefined || named.length > 1)
    throw new Fault('invalid_request', 'name one of spiffe_id, jkt, target, pid')
  const seconds = members['seconds']
  if (seconds !== undefined && (!Number.isSafeInteger(seconds) || (seconds as number) <= 0)) {
    throw new Fault('invalid_request', 'seconds is not a positive integer')
  }
  const limit = seconds === undefined ? {} : { seconds: seconds as number }
  const value = members[name]
  if (name === 'pid') {
    if (!Number.isSafeInteger(value) || (value as number) <= 0)
      throw new Fault('invalid_request', 'pid is not a positive integer')
    return { kind: 'process', value: await processKey(value as number), ...limit }
  }
  if (typeof value !== 'string' || value === '' || value.length > 2048)
    throw new Fault('invalid_request', `${name} is not a name`)
  if (name === 'spiffe_id') parseSpiffeId(value)
  return { kind: MEMBERS[name as keyof typeof MEMBERS], value, ...limit }
}
