/**
 * Names become addresses: afresh within 30 seconds, as full names without the search path, and checked here, so that
 * the address which was checked is the address that is dialled (a second look-up may answer differently).
 */
import { type LookupAddress, lookup } from 'node:dns'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { isDialable, ownAddresses } from './address.ts'

/** Asks the system for all addresses of a full name. */
export type LookUp = (name: string) => Promise<readonly LookupAddress[]>

export interface ResolverOptions {
  readonly clock: Clock
  readonly lookUp?: LookUp
  readonly own?: () => readonly string[]
  /** How long an answer is used. */
  readonly keep?: Millis
}

interface Known {
  readonly addresses: Promise<readonly LookupAddress[]>
  readonly until: Millis
}

// getaddrinfo does not tell the TTL: half a minute is less than most.
const KEEP: Millis = 30_000
const PATIENCE: Millis = 5_000
const NAMES_LIMIT = 1_024
const ADDRESSES_LIMIT = 32
const HOSTS_LIMIT = 1024 * 1024

/** Look-ups of the hosts that policy names. */
export class Resolver {
  readonly #clock: Clock
  readonly #lookUp: LookUp
  readonly #own: () => readonly string[]
  readonly #keep: Millis
  readonly #known = new Map<string, Known>()

  constructor(options: ResolverOptions) {
    this.#clock = options.clock
    this.#lookUp = options.lookUp ?? lookUpFullName
    this.#own = options.own ?? ownAddresses
    this.#keep = Math.min(options.keep ?? KEEP, KEEP)
  }

  /**
   * The addresses of `host` (a name, or an IP literal without brackets) that may be dialled; `listed` names near ones
   * that may. Throws upstream_address when there are only others, upstream_unavailable when there are none.
   */
  async resolve(host: string, listed: readonly string[]): Promise<readonly LookupAddress[]> {
    const family = isIP(host)
    const addresses = family === 0 ? await this.#find(host) : [{ address: host, family }]
    const own = this.#own()
    const usable = addresses.filter(({ address }) => isDialable(address, listed, own))
    if (usable.length > 0) return usable
    const [first] = addresses
    if (!first) throw new Fault('upstream_unavailable', `${host} has no address`)
    throw new Fault(
      'upstream_address',
      `${host} is ${first.address}: loopback, link-local or an address of this node`,
    )
  }

  /** One look-up at a time for a name. */
  #find(host: string): Promise<readonly LookupAddress[]> {
    const now = this.#clock.monotonic()
    const known = this.#known.get(host)
    if (known && now < known.until) return known.addresses
    const addresses = this.#ask(host)
    this.#known.delete(host)
    this.#known.set(host, { addresses, until: now + this.#keep })
    const [oldest] = this.#known.keys()
    if (this.#known.size > NAMES_LIMIT && oldest !== undefined) this.#known.delete(oldest)
    addresses.catch(() => {
      if (this.#known.get(host)?.addresses === addresses) this.#known.delete(host)
    })
    return addresses
  }

  async #ask(host: string): Promise<readonly LookupAddress[]> {
    let cancel = () => {}
    const late = new Promise<never>((_resolve, reject) => {
      cancel = this.#clock.after(PATIENCE, () =>
        reject(new Fault('upstream_unavailable', `${host} does not resolve in time`)),
      )
    })
    try {
      return (await Promise.race([this.#lookUp(host), late])).slice(0, ADDRESSES_LIMIT)
    } catch (error) {
      if (error instanceof Fault) throw error
      throw new Fault('upstream_unavailable', `${host} does not resolve`, { cause: error })
    } finally {
      cancel()
    }
  }
}

/** The hosts file, then DNS; a dot at the end keeps the search path out, and the hosts file has none. */
function lookUpFullName(name: string): Promise<readonly LookupAddress[]> {
  const listed = inHostsFile(name)
  if (listed.length > 0) return Promise.resolve(listed)
  return new Promise((resolve, reject) => {
    lookup(`${name}.`, { all: true }, (error, addresses) => (error ? reject(error) : resolve(addresses)))
  })
}

function inHostsFile(name: string): readonly LookupAddress[] {
  return hostsText()
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim().split(/\s+/))
    .filter(([, ...names]) => names.some((other) => other.toLowerCase() === name))
    .map(([address = '']) => ({ address, family: isIP(address) }))
    .filter(({ family }) => family !== 0)
}

function hostsText(): string {
  try {
    return readFileSync('/etc/hosts', 'utf8').slice(0, HOSTS_LIMIT)
  } catch {
    return ''
  }
}
