/** How often one workload may ask: a token bucket an identity and instance, bounded in number, forgotten with the instance. */
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { type KeyOwner, ownerKey } from '../keys/vault.ts'

interface Bucket {
  tokens: number
  filled: number
}

/** Buckets of `perSecond` tokens a second; a full bucket holds one second's worth, so bursts are bounded too. */
export class Rates {
  readonly #buckets = new Map<string, Bucket>()
  readonly #perSecond: number
  readonly #clock: Clock

  constructor(perSecond: number, clock: Clock) {
    this.#perSecond = perSecond
    this.#clock = clock
  }

  /** Takes one token of an identity in an instance: where the instance is the node, many identities have it in common. */
  takeOf(owner: KeyOwner): void {
    this.take(ownerKey(owner), owner.instance.signal)
  }

  /** Takes one token for `key`, which is forgotten when `signal` aborts; throws rate_limited. */
  take(key: string, signal: AbortSignal, perSecond = this.#perSecond): void {
    const now = this.#clock.monotonic()
    const bucket = this.#buckets.get(key) ?? this.#open(key, signal, now, perSecond)
    bucket.tokens = Math.min(perSecond, bucket.tokens + ((now - bucket.filled) * perSecond) / 1000)
    bucket.filled = now
    if (bucket.tokens < 1) {
      throw new Fault('rate_limited', `over ${perSecond} requests a second`, { retryAfterSeconds: 1 })
    }
    bucket.tokens -= 1
  }

  #open(key: string, signal: AbortSignal, now: number, perSecond: number): Bucket {
    const bucket = { tokens: perSecond, filled: now }
    this.#buckets.set(key, bucket)
    signal.addEventListener('abort', () => this.#buckets.delete(key), { once: true })
    return bucket
  }
}
