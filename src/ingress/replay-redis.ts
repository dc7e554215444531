/**
 * Replays told by a Redis server that several nodes share: one script, one round trip a request. Keys are hashes. Redis
 * Cluster is not for it: one script touches the epoch, the proof and the share of its subject.
 */
import { hash } from 'node:crypto'
import type { Clock, Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { faultOf, type Redis } from './redis.ts'
import { checkClocks, EPOCH_LUA, type RedisEpoch } from './redis-epoch.ts'
import { runScript, scriptOf } from './redis-script.ts'
import type { ProofUse, ReplayStore, Use } from './replay.ts'

export interface RedisReplayOptions {
  readonly clock: Clock
  readonly redis: Redis
  readonly epoch: RedisEpoch
  readonly prefix: string
  /** How long a proof could be used again: window and skew of the verifier together, both ways. */
  readonly keep: Seconds
  /** How far ahead `iat` of a proof may be: one of before a loss may lie that far above the floor. */
  readonly skew: Seconds
  /** Proofs that one subject may use within `keep`. */
  readonly share: number
  /** What this node remembers by itself, to go on with while Redis is down; absent: refuse. */
  readonly local: ReplayStore | undefined
  /** A use that this node's memory alone decided. */
  readonly onLocal: (fault: Fault) => void
}

/** A nonce of a node whose clock was ahead once. */
const AHEAD: Seconds = 3_600

/** A key stays until its proof is `keep` old by the clock of the server, and an older proof is never fresh. */
const USE = scriptOf(`${EPOCH_LUA}local function say(word) return { word, epoch[1], tostring(epoch[2]) } end
local made, ahead, keep, share = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if redis.call('EXISTS', KEYS[2]) == 1 then return say('replayed') end
if made <= tonumber(epoch[2]) + ahead or made + keep <= math.max(now, time) then return say('floor') end
if made > now + ${AHEAD} then return { 'clock', tostring(now - made) } end
if tonumber(redis.call('GET', KEYS[3]) or '0') >= share then return say('share') end
local ends = 1000 * (keep + math.max(0, made - now))
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ends) then return say('replayed') end
if redis.call('INCR', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], 1000 * keep) end
return say('fresh')`)

const WORDS: ReadonlySet<unknown> = new Set<Use>(['fresh', 'replayed', 'floor', 'share'])

export class RedisReplayStore implements ReplayStore {
  readonly #options: RedisReplayOptions

  constructor(options: RedisReplayOptions) {
    this.#options = options
  }

  /** The memory of this node hears of every proof first, so that it knows them when it is left alone. */
  async use(proof: ProofUse): Promise<Use> {
    const { local, onLocal } = this.#options
    const alone = await local?.use(proof)
    if (alone === 'replayed') return 'replayed'
    try {
      return await this.#ask(proof)
    } catch (error) {
      const fault = faultOf(error)
      if (alone === undefined) throw fault
      onLocal(fault)
      return alone
    }
  }

  stop(): void {
    this.#options.local?.stop()
    this.#options.redis.stop()
  }

  async #ask(proof: ProofUse): Promise<Use> {
    const { epoch, keep, redis, share, skew } = this.#options
    // A nonce was given by a node, whose clock is not ahead of the floor's.
    const ahead = proof.hasNonce ? 0 : skew
    const args = [...epoch.args(), Math.floor(proof.made), ahead, keep, share]
    const reply = await runScript((parts) => redis.call(parts), USE, this.#keysOf(proof), args)
    const [word, id, floor] = Array.isArray(reply) ? reply : []
    checkClocks(word, id)
    if (!WORDS.has(word))
      throw new Fault('replay_unavailable', 'the Redis server answers with no word of the script')
    epoch.note(id, floor)
    return word as Use
  }

  #keysOf({ scope, jkt, jti, subject }: ProofUse): readonly string[] {
    const { epoch, prefix } = this.#options
    const hop = `${prefix}:${hash('sha256', scope).slice(0, 32)}`
    // The length keeps two different pairs from one text.
    return [
      epoch.key,
      `${hop}:${hash('sha256', `${jkt.length}.${jkt}${jti}`)}`,
      `${hop}:of:${hash('sha256', subject)}`,
    ]
  }
}
