/**
 * The targets that a sidecar connects to itself, as the agent tells of them: asked for when a request names one, and
 * again while requests are open, so that what policy or an operator withdraws ends here too.
 */
import type { Clock, Millis } from '../base/clock.ts'
import { callAgent } from '../client/http.ts'
import { Dialer } from '../egress/dial.ts'
import { dialWith } from '../egress/door.ts'
import { Pool } from '../egress/pool.ts'
import { Resolver } from '../egress/resolve.ts'
import type { Route } from '../egress/route.ts'
import { Trust } from '../egress/trust.ts'
import { isPassing, patiently } from './egress-way.ts'
import { TargetWay } from './target-way.ts'
import { parseTarget, type ToldTarget } from './told.ts'

export interface TargetsOptions {
  /** The workload socket. */
  readonly socket: string
  readonly clock: Clock
  /** How long an agent is waited for. */
  readonly patience: Millis
}

interface Known {
  readonly route: Pick<Route, 'target' | 'spiffeId'>
  /** The agent's answer as it was. */
  readonly text: string
  /** Absent for a target that the agent connects to. */
  readonly direct: { readonly way: TargetWay; readonly pool: Pool } | undefined
  readonly asked: Millis
  used: Millis
}

const FRESH: Millis = 5_000
const IDLE: Millis = 60_000
const KNOWN_LIMIT = 1_024
const REQUESTS_LIMIT = 64
const CONNECT_TIMEOUT: Millis = 5_000

/** States of one: asked -> known -> asked again, each 5 s while it is in use -> forgotten. */
export class Targets {
  readonly #options: TargetsOptions
  readonly #resolver: Resolver
  readonly #known = new Map<string, Known>()
  readonly #ended = new AbortController()
  #cancel = () => {}

  constructor(options: TargetsOptions) {
    this.#options = options
    this.#resolver = new Resolver({ clock: options.clock })
    this.#arm()
  }

  /** The way to the target itself; undefined when the request is for the egress door. Throws agent_unreachable. */
  async find(route: Route, signal: AbortSignal): Promise<TargetWay | undefined> {
    const { clock, patience } = this.#options
    const known = this.#known.get(keyOf(route))
    const now = clock.monotonic()
    if (known) known.used = now
    if (known && now - known.asked < FRESH) return known.direct?.way
    return (await patiently(() => this.#ask(route, now, signal), { clock, patience, signal }))?.direct?.way
  }

  stop(): void {
    this.#ended.abort()
    this.#cancel()
    for (const key of [...this.#known.keys()]) this.#forget(key)
  }

  /** What the agent tells now; a refusal is for the egress door to say, and ends what is open. */
  async #ask(route: Known['route'], used: Millis, signal: AbortSignal): Promise<Known | undefined> {
    const key = keyOf(route)
    const id = route.spiffeId === undefined ? '' : `&spiffe_id=${encodeURIComponent(route.spiffeId)}`
    const path = `/v1/target?name=${route.target}${id}`
    try {
      const members = await callAgent(this.#options.socket, { method: 'GET', path, signal })
      return this.#keep(key, { route, members, used })
    } catch (caught) {
      if (signal.aborted || isPassing(caught)) throw caught
      this.#forget(key)
      return undefined
    }
  }

  #keep(
    key: string,
    told: { readonly members: Readonly<Record<string, unknown>> } & Pick<Known, 'route' | 'used'>,
  ): Known | undefined {
    if (this.#ended.signal.aborted) return undefined
    const { members, route, used } = told
    const text = JSON.stringify(members)
    const before = this.#known.get(key)
    const isSame = before?.text === text
    if (before && !isSame) this.#forget(key)
    const direct = isSame ? before.direct : this.#open(route, parseTarget(members))
    const known: Known = { route, text, direct, asked: this.#options.clock.monotonic(), used }
    this.#known.delete(key)
    this.#known.set(key, known)
    const [oldest] = this.#known.keys()
    if (this.#known.size > KNOWN_LIMIT && oldest !== undefined) this.#forget(oldest)
    return known
  }

  #open(route: Known['route'], told: ToldTarget | undefined): Known['direct'] {
    if (!told) return undefined
    const { clock, socket } = this.#options
    const trust = new Trust({
      clock,
      bundleOf: (name) => (name === told.bundle?.trustDomain ? told.bundle : undefined),
    })
    const dialer = new Dialer({ clock, resolver: this.#resolver, trust, patience: CONNECT_TIMEOUT })
    const pool = new Pool(told, {
      dial: dialWith(dialer),
      clock,
      connectTimeout: CONNECT_TIMEOUT,
      limit: told.platform.concurrency ?? REQUESTS_LIMIT,
    })
    return { pool, way: new TargetWay({ socket, told, pool, spiffeId: route.spiffeId }) }
  }

  #forget(key: string): void {
    this.#known.get(key)?.direct?.pool.close()
    this.#known.delete(key)
  }

  #arm(): void {
    if (this.#ended.signal.aborted) return
    this.#cancel = this.#options.clock.after(FRESH, () => void this.#look().finally(() => this.#arm()))
  }

  /** Asks again about what is open, forgets what is idle. Without an agent, what is open stays as it was. */
  async #look(): Promise<void> {
    const now = this.#options.clock.monotonic()
    for (const [key, { direct, route, used }] of [...this.#known]) {
      if (direct && direct.pool.open > 0)
        await this.#ask(route, used, this.#ended.signal).catch(() => undefined)
      else if (now - used > IDLE) this.#forget(key)
    }
  }
}

function keyOf({ spiffeId, target }: Known['route']): string {
  return `${spiffeId ?? ''} ${target}`
}
