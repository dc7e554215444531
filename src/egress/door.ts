/** The egress door put together: what `public/egress.sock` serves, and how it hears of policy and revocation. */
import type { Clock, Millis } from '../base/clock.ts'
import type { HttpSide } from '../serve/http.ts'
import type { BindOptions } from './bound.ts'
import { type Dialer, placeOf } from './dial.ts'
import { Nonces } from './nonces.ts'
import type { PermitOptions } from './permit.ts'
import type { Dial } from './pool.ts'
import { openProxy } from './proxy.ts'
import type { RecordOptions } from './record.ts'
import { type PoolFilter, Upstreams } from './upstreams.ts'

/** The settings of the door; times are in seconds. */
export interface EgressSettings {
  readonly bufferKib: number
  readonly connectTimeout: number
  readonly responseTimeout: number
  readonly idleTimeout: number
  readonly connectionsPerTarget: number
}

export interface EgressDoorOptions extends Omit<BindOptions, 'nonces'>, PermitOptions, RecordOptions {
  readonly clock: Clock
  readonly dial: Dial
  readonly settings: EgressSettings
  /** Throws not_ready or draining. */
  readonly admit: () => void
  readonly headerTimeout: Millis
}

/** The HTTP side of the egress socket. */
export interface EgressDoor extends HttpSide {
  /** Makes headers of one request for those who send it themselves; shares the door's nonces. */
  readonly binding: BindOptions
  /** Open connections to targets. */
  readonly connections: () => number
  /** Ends matching connections to targets, and all that goes over them; how many workloads' targets. */
  close(filter: PoolFilter): number
}

const MILLIS = 1000
const KIB = 1024

/** Opens the door; connections are injected. What policy withdraws ends at once. */
export function openEgressDoor(options: EgressDoorOptions): EgressDoor {
  const { book, clock, dial, settings } = options
  const upstreams = new Upstreams({
    dial,
    clock,
    connectTimeout: settings.connectTimeout * MILLIS,
    limit: settings.connectionsPerTarget,
  })
  const binding = { ...options, nonces: new Nonces() }
  const limits = {
    bufferBytes: settings.bufferKib * KIB,
    answerTimeout: settings.responseTimeout * MILLIS,
    idleTimeout: settings.idleTimeout * MILLIS,
  }
  const proxy = openProxy({ ...binding, upstreams, limits })
  const unwatch = book.watch((next) => upstreams.applyBook(next))
  return {
    inject: proxy.inject,
    drain: proxy.drain,
    binding,
    connections: () => upstreams.connections,
    close: (filter) => upstreams.close(filter),
    stop: () => {
      unwatch()
      proxy.stop()
      upstreams.stop()
    },
  }
}

/** Connections through `dialer`: checked addresses, verified servers. */
export function dialWith(dialer: Dialer): Dial {
  return ({ origin, platform, alpn }, signal) => {
    const ask = { ...placeOf(origin), addresses: platform.addresses, signal }
    return origin.startsWith('https:')
      ? dialer.dialTls({ ...ask, tls: platform.tls, alpn })
      : dialer.dial(ask)
  }
}
