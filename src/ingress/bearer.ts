/** Bearer tokens that security excepts: whose, for how long, how often, from where, and whether one has moved. */
import type { Clock, Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { isInRanges } from '../policy/address.ts'
import type { RouteException } from '../policy/route.ts'

/** A bearer token about to be taken. */
export interface BearerUse {
  /** Its `client_id`, or `sub` where it has none. */
  readonly client: string
  /** Hash of what names the token: the same for all texts that are one token. */
  readonly name: string
  /** From `iat`, or now, to `exp`. */
  readonly life: Seconds
  readonly address: string | undefined
}

export interface BearersOptions {
  readonly clock: Clock
  /** Hears of a token that came from a second address: whoever holds it is not who was given it, or is behind many. */
  readonly onMoved: (exception: RouteException, client: string) => void
}

interface Turn {
  readonly second: number
  count: number
}

const CLIENTS_LIMIT = 10_000
const TOKENS_LIMIT = 10_000

/** Counts and watches excepted tokens. */
export class Bearers {
  readonly #options: BearersOptions
  readonly #turns = new Map<string, Turn>()
  readonly #sources = new Map<string, string>()

  constructor(options: BearersOptions) {
    this.#options = options
  }

  /** Throws token_unbound without an exception that covers it, token_too_long, rate_limited, caller_unexpected. */
  check(exception: RouteException | undefined, use: BearerUse): void {
    const { client } = use
    if (!exception?.clients.includes(client)) throw new Fault('token_unbound')
    if (use.life > exception.maxTtl)
      throw new Fault(
        'token_too_long',
        `the bearer token lives ${Math.ceil(use.life)} s, security accepts ${exception.maxTtl} s`,
      )
    const { sources } = exception
    if (sources.length > 0 && !(use.address !== undefined && isInRanges(use.address, sources)))
      throw new Fault(
        'caller_unexpected',
        'the bearer token comes from an address that security does not accept',
      )
    this.#count(exception, client)
    this.#watch(exception, client, use)
  }

  #count({ route, rate }: RouteException, client: string): void {
    if (rate === undefined) return
    const second = Math.floor(this.#options.clock.monotonic() / 1000)
    const key = JSON.stringify([route, client])
    const turn = this.#turns.get(key)
    if (turn?.second !== second) put(this.#turns, key, { second, count: 1 }, CLIENTS_LIMIT)
    else if (turn.count >= rate)
      throw new Fault('rate_limited', `over ${rate} requests a second with bearer tokens`, {
        retryAfterSeconds: 1,
      })
    else turn.count += 1
  }

  #watch(exception: RouteException, client: string, { address, name }: BearerUse): void {
    if (address === undefined) return
    const known = this.#sources.get(name)
    if (known === address) return
    put(this.#sources, name, address, TOKENS_LIMIT)
    if (known !== undefined) this.#options.onMoved(exception, client)
  }
}

/** The newest last; the oldest goes when there are too many. */
function put<T>(map: Map<string, T>, key: string, value: T, limit: number): void {
  map.delete(key)
  map.set(key, value)
  const [oldest] = map.keys()
  if (map.size > limit && oldest !== undefined) map.delete(oldest)
}
