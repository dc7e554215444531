/** Every pool of the agent: one for each identity, instance, target and certificate, gone with its lease or its policy. */
import type { Instance } from '../attest/workload.ts'
import { type Clock, type Millis, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { Shares } from '../base/shares.ts'
import type { RuleBook } from '../policy/book.ts'
import type { Target, TargetPlatform } from '../policy/grant.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Certificate } from './certificates.ts'
import { Pool, type PoolOptions } from './pool.ts'

/** Whose pool, and where it leads. */
export interface PoolAsk {
  readonly spiffeId: SpiffeId
  readonly instance: Instance
  readonly target: Target
  readonly platform: TargetPlatform
  readonly origin: string
  /** What its connections show; another one has another pool. */
  readonly certificate?: Certificate | undefined
}

/** Which pools are closed; absent members match all. */
export interface PoolFilter {
  readonly spiffeId?: string
  readonly instance?: string
  readonly target?: string
  /** Pools with requests that this key proved. */
  readonly jkt?: string
}

export interface UpstreamsOptions extends Omit<PoolOptions, 'count'> {
  /** Most pools, and most connections in them; no identity has more of them than are left for all others. */
  readonly most?: number
}

interface Held {
  readonly pool: Pool
  readonly spiffeId: SpiffeId
  readonly instance: string
  readonly target: string
  readonly place: string
  /** When the certificate of its connections ends. */
  readonly ends: Seconds
  used: Millis
  /** Gives its place among the pools back. */
  forget(): void
}

const LIMIT = 16_384
const IDLE: Millis = 60_000
const LOOK_EVERY: Millis = 15_000

/** The pools. */
export class Upstreams {
  readonly #pools = new Map<string, Held>()
  readonly #options: UpstreamsOptions
  readonly #clock: Clock
  readonly #places: Shares
  readonly #connections: Shares
  #cancel = () => {}

  constructor(options: UpstreamsOptions) {
    this.#options = options
    this.#places = new Shares('workloads and targets that are connected', options.most ?? LIMIT)
    this.#connections = new Shares('connections to targets', options.most ?? LIMIT)
    this.#clock = options.clock
    this.#arm()
  }

  /** Open connections to targets. */
  get connections(): number {
    return this.#connections.all
  }

  /** The pool of `ask`; throws lease_ended, overloaded. */
  poolOf(ask: PoolAsk): Pool {
    const key = `${ask.instance.key} ${ask.spiffeId} ${ask.target.name} ${ask.certificate?.x5t ?? ''}`
    const place = placeOf(ask.platform)
    const known = this.#pools.get(key)
    if (known?.place === place) {
      known.used = this.#clock.monotonic()
      return known.pool
    }
    if (known) this.#end(key, known)
    return this.#openPool(key, place, ask)
  }

  /** Ends what the new policy does not give any more, open answers too; how many pools. */
  applyBook(book: RuleBook): number {
    return this.#endAll(({ spiffeId, target: name, place }) => {
      const target = book.targets.get(name)
      if (!target?.identity || !target.platform || placeOf(target.platform) !== place) return true
      return book.denialOf(spiffeId, name) !== undefined || book.grantsFor(target, spiffeId).length === 0
    })
  }

  /** Ends the matching pools and all that goes over them; how many. */
  close(filter: PoolFilter): number {
    const { spiffeId, instance, target, jkt } = filter
    return this.#endAll(
      (held) =>
        (spiffeId === undefined || spiffeId === held.spiffeId) &&
        (instance === undefined || instance === held.instance) &&
        (target === undefined || target === held.target) &&
        (jkt === undefined || held.pool.jkts.has(jkt)),
    )
  }

  stop(): void {
    this.#cancel()
    this.close({})
  }

  #openPool(key: string, place: string, ask: PoolAsk): Pool {
    const { signal } = ask.instance
    if (signal.aborted) throw new Fault('lease_ended')
    const { spiffeId } = ask
    if (this.#places.isFull(spiffeId)) this.#endIdle(0, spiffeId)
    const leave = this.#places.take(spiffeId)
    const pool = new Pool(ask, { ...this.#options, count: () => this.#connections.take(spiffeId) })
    const end = () => this.#end(key, held)
    const held: Held = {
      pool,
      spiffeId,
      instance: ask.instance.key,
      target: ask.target.name,
      place,
      ends: ask.certificate?.expires ?? Number.POSITIVE_INFINITY,
      used: this.#clock.monotonic(),
      forget: () => {
        leave()
        signal.removeEventListener('abort', end)
      },
    }
    signal.addEventListener('abort', end, { once: true })
    this.#pools.set(key, held)
    return pool
  }

  #endAll(isOver: (held: Held) => boolean): number {
    const over = [...this.#pools].filter(([, held]) => isOver(held))
    for (const [key, held] of over) this.#end(key, held)
    return over.length
  }

  #end(key: string, held: Held): void {
    if (this.#pools.get(key) === held) this.#pools.delete(key)
    held.forget()
    held.pool.close()
  }

  /** Those of one identity, or of all. */
  #endIdle(idle: Millis, spiffeId?: string): void {
    const now = this.#clock.monotonic()
    this.#endAll(
      ({ pool, used, spiffeId: whose }) =>
        pool.open === 0 && now - used >= idle && (spiffeId === undefined || spiffeId === whose),
    )
  }

  #arm(): void {
    this.#cancel = this.#clock.after(LOOK_EVERY, () => {
      this.#endIdle(IDLE)
      const now = nowSeconds(this.#clock)
      this.#endAll(({ ends }) => now >= ends)
      this.#arm()
    })
  }
}

/** Where a pool leads and whom it trusts: another answer needs other connections. */
function placeOf(platform: TargetPlatform): string {
  const known = places.get(platform)
  if (known !== undefined) return known
  const { origins, tls, addresses } = platform
  const place = JSON.stringify([origins[0], tls, addresses])
  places.set(platform, place)
  return place
}

const places = new WeakMap<TargetPlatform, string>()
