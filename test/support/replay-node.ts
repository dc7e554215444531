/** A verifier's side of the shared replay store, without a verifier: proofs that are right but for what a test changes. */
import { type Clock, nowSeconds, systemClock } from '../../src/base/clock.ts'
import type { Fault } from '../../src/base/fault.ts'
import type { RedisClientFiles } from '../../src/ingress/redis-connection.ts'
import { parseRedisUrl } from '../../src/ingress/redis-place.ts'
import type { ProofUse } from '../../src/ingress/replay.ts'
import { MemoryReplayStore } from '../../src/ingress/replay-memory.ts'
import { openRedisReplays, type RedisReplays } from '../../src/ingress/replay-open.ts'
import { until } from './until.ts'

export const KEEP = 60
export const SKEW = 5

export interface ReplayNode extends RedisReplays {
  /** Whether history was lost, at each floor that it has heard of. */
  readonly floors: readonly boolean[]
  readonly states: readonly (Fault | undefined)[]
  /** Why its own memory alone decided, each time. */
  readonly alone: readonly Fault[]
  /** `fresh`, `replayed`, `floor`, `share`, or the reason of a fault. */
  use(proof?: Partial<ProofUse>): Promise<string>
}

export interface ReplayNodeOptions {
  readonly url: string
  readonly isLocal?: boolean
  readonly share?: number
  readonly passwordFile?: string
  readonly caFile?: string
  readonly client?: RedisClientFiles
  readonly clock?: Clock
}

/** When a proof was made that lies well above any floor of a test. */
export const later = (): number => nowSeconds(systemClock) + 30

export function openReplayNode(options: ReplayNodeOptions): ReplayNode {
  const { url, isLocal = false, share = 1000, passwordFile, caFile, client, clock = systemClock } = options
  const [floors, states, alone]: [boolean[], (Fault | undefined)[], Fault[]] = [[], [], []]
  const opened = openRedisReplays({
    clock,
    place: parseRedisUrl(url),
    passwordFile,
    caFile,
    client,
    deadline: 300,
    prefix: 'holdfast',
    keep: KEEP,
    skew: SKEW,
    share,
    local: isLocal ? new MemoryReplayStore({ clock, keep: KEEP, limit: 1000, share }) : undefined,
    onFloor: (_floor, isLost) => floors.push(isLost),
    onState: (fault) => states.push(fault),
    onLocal: (fault) => alone.push(fault),
  })
  const use = async (proof: Partial<ProofUse> = {}) => {
    const standard = {
      scope: 'orders',
      jkt: 'key',
      jti: 'one',
      subject: 'web',
      made: later(),
      hasNonce: false,
    }
    try {
      return await opened.store.use({ ...standard, ...proof })
    } catch (error) {
      return (error as Fault).reason
    }
  }
  return { ...opened, floors, states, alone, use }
}

export const isOpen = (node: ReplayNode) => until('the connection', () => node.redis.fault === undefined)
