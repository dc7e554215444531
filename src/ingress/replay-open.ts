/** Opens the shared replay store: the connection, what it is looked at for, and the store over both. */
import type { Seconds } from '../base/clock.ts'
import type { Fault } from '../base/fault.ts'
import { Redis } from './redis.ts'
import type { RedisAccess } from './redis-connection.ts'
import { RedisEpoch } from './redis-epoch.ts'
import type { ReplayStore } from './replay.ts'
import { RedisReplayStore } from './replay-redis.ts'

export interface RedisReplaysOptions extends RedisAccess {
  /** Before each key and channel. */
  readonly prefix: string
  readonly keep: Seconds
  readonly skew: Seconds
  readonly share: number
  readonly local: ReplayStore | undefined
  readonly onFloor: (floor: Seconds, isLost: boolean) => void
  readonly onState: (fault: Fault | undefined) => void
  readonly onLocal: (fault: Fault) => void
}

export interface RedisReplays {
  readonly redis: Redis
  readonly store: RedisReplayStore
}

/** Connects in the background; `redis.first` tells how that went. */
export function openRedisReplays(options: RedisReplaysOptions): RedisReplays {
  const epoch = new RedisEpoch(options)
  const redis = new Redis({ ...options, look: (connection) => epoch.look(connection) })
  return { redis, store: new RedisReplayStore({ ...options, redis, epoch }) }
}
