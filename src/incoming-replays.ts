/** Where the verifier remembers proofs, as the settings say: in this process, or at a Redis server that nodes share. */
import type { Seconds } from './base/clock.ts'
import { Fault } from './base/fault.ts'
import type { Live } from './base/live.ts'
import type { CoreOptions } from './core.ts'
import type { Denylist } from './ingress/denylist.ts'
import type { ServerNonces } from './ingress/nonces.ts'
import type { RedisClientFiles } from './ingress/redis-connection.ts'
import type { ReplayStore } from './ingress/replay.ts'
import { MemoryReplayStore } from './ingress/replay-memory.ts'
import { openRedisReplays } from './ingress/replay-open.ts'
import type { RevokeAsk } from './operate/revoke.ts'

export interface ReplayParts {
  readonly keep: Seconds
  readonly skew: Seconds
  readonly nonces: ServerNonces
  readonly denylist: Denylist
  /** Changes with each revocation by an operator. */
  readonly revoked: Live<RevokeAsk | undefined>
}

const DEADLINE = 500

/** Opens it; a Redis server that is not there yet is told as a degradation and connected to when it is. */
export function openReplays(
  options: CoreOptions,
  parts: ReplayParts,
): { readonly store: ReplayStore; stop(): void } {
  const { clock, config, metrics } = options
  const { nonceKeyFile, replay } = config.verifier
  const { denylist, keep, nonces, revoked, skew } = parts
  const sharesNonces = nonceKeyFile !== undefined
  const memory = () => {
    const store = new MemoryReplayStore({ clock, keep, skew, sharesNonces, ...replay })
    metrics.gauge('holdfast_replay_entries', 'Proofs that are remembered.', () => store.count)
    if (sharesNonces) nonces.raise(clock.now() / 1000)
    return store
  }
  const { caFile, onFailure, passwordFile, prefix, share, url: place } = replay
  if (replay.store === 'memory' || !place) {
    const store = memory()
    return { store, stop: () => store.stop() }
  }
  const client = clientOf(replay)
  const access = { clock, place, passwordFile, caFile, client, deadline: DEADLINE }
  const local = onFailure === 'local' ? memory() : undefined
  const tellers = tellersOf(options, nonces)
  const opened = openRedisReplays({ ...access, ...tellers, prefix, keep, skew, share, local, denylist })
  const unwatch = revoked.watch(opened.tell)
  return {
    store: opened.store,
    stop: () => {
      unwatch()
      opened.stop()
    },
  }
}

/** Throws config_invalid for half of a pair. */
function clientOf({
  certificateFile,
  keyFile,
}: CoreOptions['config']['verifier']['replay']): RedisClientFiles | undefined {
  if (certificateFile === undefined && keyFile === undefined) return undefined
  if (certificateFile !== undefined && keyFile !== undefined) return { certificateFile, keyFile }
  throw new Fault(
    'config_invalid',
    'verifier.replay has one of certificate_file and key_file, wanted both or none',
  )
}

/** Who hears of what becomes of the server: health, the audit, metrics. */
function tellersOf({ audit, config, health, metrics }: CoreOptions, nonces: ServerNonces) {
  return {
    onFloor: (floor: Seconds, isLost: boolean) => {
      nonces.raise(floor)
      if (isLost)
        audit.append({ event: 'replay', allowed: false, reason: 'replay_floor', detail: 'history lost' })
    },
    onState: (fault: Fault | undefined) => {
      if (fault) {
        const { action, message, reason } = fault
        health.degrade({ code: 'replay_unavailable', message, action })
        audit.append({ event: 'replay', allowed: false, reason, detail: config.verifier.replay.onFailure })
        return
      }
      health.recover('replay_unavailable')
      audit.append({ event: 'replay', allowed: true })
    },
    onLocal: () => metrics.count('holdfast_replay_local_total'),
    onDenials: (fault: Fault | undefined) => {
      if (fault) health.degrade({ code: 'denials_unshared', message: fault.message, action: fault.action })
      else health.recover('denials_unshared')
    },
  }
}
