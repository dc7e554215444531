/** Opens what agents share on a Redis server: the replay store and, over connections of the same kind, denials. */
import type { Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Denylist } from './denylist.ts'
import { Redis } from './redis.ts'
import type { RedisAccess, RedisConnection } from './redis-connection.ts'
import { RedisEpoch } from './redis-epoch.ts'
import type { ReplayStore } from './replay.ts'
import { RedisReplayStore } from './replay-redis.ts'
import { SharedDenials } from './shared-denials.ts'

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
  /** What is revoked here, and becomes what is revoked anywhere. */
  readonly denylist?: Denylist
  /** Why denials are not shared; undefined when they are. */
  readonly onDenials?: (fault: Fault | undefined) => void
}

export interface RedisReplays {
  readonly redis: Redis
  readonly store: RedisReplayStore
  /** Tells other agents at once what an operator has just revoked or lifted; they would hear of it within a second. */
  tell(): void
  stop(): void
}

/** Rules and lifts that all agents together keep on the server. */
const DENIALS_LIMIT = 20_000

/** Connects in the background; `redis.first` tells how that went. */
export function openRedisReplays(options: RedisReplaysOptions): RedisReplays {
  const epoch = new RedisEpoch(options)
  const denials = denialsOf(options)
  const look = async (connection: RedisConnection) => {
    await epoch.look(connection)
    await denials?.look((parts) => connection.call(parts))
  }
  const redis = new Redis({ ...options, look })
  const tell = () => void denials?.look((parts) => redis.call(parts))
  const listener = denials && listenerOf(options, denials.channel, tell)
  const unwatch = options.denylist?.watch((source) => source !== 'shared' && tell())
  const store = new RedisReplayStore({ ...options, redis, epoch })
  return {
    redis,
    store,
    tell,
    stop: () => {
      unwatch?.()
      listener?.stop()
      store.stop()
    },
  }
}

/** Trouble with denials is told and does not keep proofs from being used up. */
function denialsOf(options: RedisReplaysOptions): Pick<SharedDenials, 'channel' | 'look'> | undefined {
  const { clock, denylist, onDenials = () => {}, prefix } = options
  if (!denylist) return undefined
  const denials = new SharedDenials({ clock, denylist, prefix, limit: DENIALS_LIMIT, onState: onDenials })
  return {
    channel: denials.channel,
    look: (call) =>
      denials.look(call).catch((error: unknown) => onDenials(Fault.from(error, 'replay_unavailable'))),
  }
}

/** A connection that has subscribed can do little else. */
function listenerOf(options: RedisReplaysOptions, channel: string, onMessage: () => void): Redis {
  const { caFile, client, clock, deadline, passwordFile, place } = options
  const subscribed = new WeakSet<RedisConnection>()
  const look = async (connection: RedisConnection) => {
    await connection.call(subscribed.has(connection) ? ['PING'] : ['SUBSCRIBE', channel])
    subscribed.add(connection)
  }
  return new Redis({ caFile, client, clock, deadline, passwordFile, place, look, onMessage })
}
