/** The egress door put together: what `public/egress.sock` serves, and how it hears of policy and revocation. */
import type { Socket } from 'node:net'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { HttpSide } from '../serve/http.ts'
import type { OwnerLimits } from '../serve/limits.ts'
import type { Turns } from '../serve/turns.ts'
import type { BindOptions } from './bound.ts'
import { type DialAsk, type Dialer, placeOf } from './dial.ts'
import { openHttp1Side } from './http1-side.ts'
import { openHttp2Side } from './http2-side.ts'
import { Nonces } from './nonces.ts'
import type { EgressPermitOptions } from './permit.ts'
import type { Dial } from './pool.ts'
import type { RecordOptions } from './record.ts'
import type { TlsClient } from './trust.ts'
import { type PoolFilter, Upstreams } from './upstreams.ts'

/** The settings of the door; times are in seconds. */
export interface EgressSettings {
  readonly bufferKib: number
  readonly connectTimeout: number
  readonly responseTimeout: number
  readonly idleTimeout: number
  readonly connectionsPerTarget: number
}

export interface EgressDoorOptions extends Omit<BindOptions, 'nonces'>, EgressPermitOptions, RecordOptions {
  readonly clock: Clock
  readonly dial: Dial
  readonly settings: EgressSettings
  /** Throws not_ready or draining. */
  readonly admit: () => void
  readonly headerTimeout: Millis
  /** HTTP/2 requests at a time on one connection. */
  readonly streamsPerConnection: number
  /** Open HTTP/2 requests by uid; an HTTP/1.1 request has a connection of its own, which is counted. */
  readonly calls: OwnerLimits
  /** When HTTP/1.1 connections are heard. */
  readonly turns: Turns
}

/** What the egress socket serves: HTTP/1.1, and `http2` beside it. `drain` and `stop` are both sides'. */
export interface EgressDoor extends HttpSide {
  readonly http2: Pick<HttpSide, 'inject'>
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
  const proxy = { ...binding, upstreams, limits }
  const [http1, http2] = [openHttp1Side(proxy), openHttp2Side(proxy)]
  const unwatch = book.watch((next) => upstreams.applyBook(next))
  return {
    inject: http1.inject,
    http2,
    drain: () => {
      http1.drain()
      http2.drain()
    },
    binding,
    connections: () => upstreams.connections,
    close: (filter) => upstreams.close(filter),
    stop: () => {
      unwatch()
      http1.stop()
      http2.stop()
      upstreams.stop()
    },
  }
}

/** Connections through `dialer`: checked addresses, verified servers. */
export function dialWith(dialer: Dialer): Dial {
  return ({ origin, platform, alpn, client }, signal) => {
    const ask = { ...placeOf(origin), addresses: platform.addresses, signal }
    return origin.startsWith('https:')
      ? dialer.dialTls({ ...ask, tls: platform.tls, alpn, client })
      : dialPlain(dialer, ask, client)
  }
}

async function dialPlain(dialer: Dialer, ask: DialAsk, client: TlsClient | undefined): Promise<Socket> {
  if (client) throw new Fault('upstream_tls', 'a certificate can be shown to an https origin only')
  return await dialer.dial(ask)
}
