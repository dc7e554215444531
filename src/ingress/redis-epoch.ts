/**
 * The history of a shared replay store. An epoch key says since when it is whole, and by which server: with the key
 * gone (FLUSHALL, restart without persistence), or the server another one (restart, failover, which lose the newest
 * writes), the floor is now. Every node sees the floor that any of them has raised.
 *
 * Keys end by the clock of the server, and it alone says how old a proof is here: nodes whose clock is another are
 * refused, since what one of them takes is forgotten before the other finds it too old. A server whose clock went back
 * may have let keys go that it would still need: that is a lost history as well.
 */
import { hash, randomBytes } from 'node:crypto'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { RedisConnection } from './redis-connection.ts'
import { runScript, scriptOf } from './redis-script.ts'
import { RedisError } from './resp.ts'

export interface EpochOptions {
  readonly clock: Clock
  readonly prefix: string
  /** The floor that holds now; `isLost` when history was lost while this node looked on. */
  readonly onFloor: (floor: Seconds, isLost: boolean) => void
}

/** How far the clocks of a node and of the server may be apart. */
const APART: Seconds = 60

const epochLua = (isNew: string) => `local now, node = tonumber(redis.call('TIME')[1]), tonumber(ARGV[3])
if math.abs(now - node) > ${APART} then return { 'clock', tostring(now - node) } end
local epoch = redis.call('HMGET', KEYS[1], 'id', 'floor', 'server', 'time')
local time = tonumber(epoch[4] or 0)
if ${isNew} or now + 1 < time then
  epoch = { ARGV[1], math.max(now, node), ARGV[2] }
  redis.call('HSET', KEYS[1], 'id', epoch[1], 'floor', epoch[2], 'server', epoch[3], 'time', now)
elseif now > time then
  redis.call('HSET', KEYS[1], 'time', now)
end
`

/**
 * In Lua, for scripts that go on with `epoch[2]`, the floor, and `now`, by the clock of the server. KEYS[1] is the epoch
 * key; ARGV: a new id, the server, and the time of the node.
 */
export const EPOCH_LUA = epochLua('not epoch[1]')

const LOOK = scriptOf(
  `${epochLua('not epoch[1] or epoch[3] ~= ARGV[2]')}return { epoch[1], tostring(epoch[2]) }`,
)

/** Throws replay_unavailable when a script has found the clocks apart. */
export function checkClocks(word: unknown, seconds: unknown): void {
  if (word !== 'clock') return
  const seen = Number(seconds)
  const side = seen > 0 ? 'behind' : 'ahead of'
  throw new Fault(
    'replay_unavailable',
    `the clock of this node is ${Math.abs(seen)} s ${side} that of the Redis server, wanted ${APART} s at most`,
    { action: 'Synchronise the clocks of both machines (NTP).' },
  )
}

/** Knows the epoch, and hears of a new one. */
export class RedisEpoch {
  readonly #options: EpochOptions
  #known: { readonly id: string; readonly floor: Seconds } | undefined
  #server = ''

  constructor(options: EpochOptions) {
    this.#options = options
  }

  get key(): string {
    return `${this.#options.prefix}:epoch`
  }

  /** What EPOCH_LUA wants as its first arguments. */
  args(): readonly (string | number)[] {
    return [randomBytes(16).toString('base64url'), this.#server, nowSeconds(this.#options.clock)]
  }

  /** Takes what a script has found; tells of it when it is new. */
  note(id: unknown, floor: unknown): void {
    const isForm = typeof id === 'string' && Number.isFinite(Number(floor))
    if (!isForm) throw new Fault('replay_unavailable', 'the epoch key of the Redis server is not one')
    if (this.#known?.id === id) return
    const isLost = this.#known !== undefined
    this.#known = { id, floor: Number(floor) }
    this.#options.onFloor(Number(floor), isLost)
  }

  /** Refuses a server that forgets by itself or takes no writes; raises the floor when its history is not whole. */
  async look(connection: RedisConnection): Promise<void> {
    const info = await infoOf(connection)
    checkMode(info)
    if (info.get('role') !== 'master')
      throw new Fault('replay_unavailable', 'the Redis server is a replica, which takes no writes')
    await checkPolicy(connection, info)
    // A restart is another run; a failover another history (Redis replication: replication ID).
    this.#server = hash('sha256', `${info.get('run_id')} ${info.get('master_replid')}`).slice(0, 32)
    const reply = await runScript((parts) => connection.call(parts), LOOK, [this.key], this.args())
    const [id, floor] = Array.isArray(reply) ? reply : []
    checkClocks(id, floor)
    this.note(id, floor)
  }
}

async function infoOf(connection: RedisConnection): Promise<ReadonlyMap<string, string>> {
  const reply = await connection.call(['INFO'])
  const lines = typeof reply === 'string' ? reply.split('\r\n') : []
  return new Map(
    lines.flatMap((line) => {
      const at = line.indexOf(':')
      return at > 0 ? [[line.slice(0, at), line.slice(at + 1)] as const] : []
    }),
  )
}

/** One script touches keys of different slots, and a failover of one slot's server would go unseen. */
function checkMode(info: ReadonlyMap<string, string>): void {
  const mode = info.get('redis_mode')
  if (info.get('cluster_enabled') !== '1' && mode !== 'cluster' && mode !== 'sentinel') return
  const seen = mode === 'sentinel' ? 'is a sentinel' : 'is part of a Redis Cluster'
  throw new Fault('replay_unavailable', `the Redis server ${seen}, wanted one primary`, {
    action: 'Name a primary, or an address that leads to whichever server is it; replicas are welcome.',
  })
}

/** An evicted proof is a proof that is good again. */
async function checkPolicy(connection: RedisConnection, info: ReadonlyMap<string, string>): Promise<void> {
  const policy = info.get('maxmemory_policy') ?? (await configuredPolicy(connection))
  if (policy === 'noeviction') return
  const seen =
    policy === undefined ? 'does not say whether it evicts keys' : `evicts keys (maxmemory-policy ${policy})`
  throw new Fault('replay_unavailable', `the Redis server ${seen}, wanted noeviction`, {
    action: 'Set maxmemory-policy noeviction, or use a server of its own for the replay store.',
  })
}

async function configuredPolicy(connection: RedisConnection): Promise<string | undefined> {
  try {
    const reply = await connection.call(['CONFIG', 'GET', 'maxmemory-policy'])
    return Array.isArray(reply) && typeof reply[1] === 'string' ? reply[1] : undefined
  } catch (error) {
    if (error instanceof RedisError) return undefined
    throw error
  }
}
