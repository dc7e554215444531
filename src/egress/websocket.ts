/** WebSocket through the egress door (RFC 6455 s.4): a handshake like any request, then bytes both ways. */
import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { type Clock, nowSeconds, type Seconds } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { relay } from './answer.ts'
import type { Answer, Outgoing } from './attempt.ts'
import { type Exchange, type ExchangeOptions, poolFor, settle, type Try } from './exchange.ts'
import { firstOf, hasBody, lists, pairsOf, passResponse, type RawHeaders, valuesOf } from './headers.ts'
import type { Switched } from './http1.ts'
import type { Lifeline } from './lifeline.ts'
import type { Permit } from './permit.ts'
import type { Ending } from './record.ts'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const KEY = /^[A-Za-z0-9+/]{21}[AQgw]==$/

/** Throws invalid_request unless it is a WebSocket handshake: there is no other upgrade. */
export function checkHandshake(method: string, raw: RawHeaders): void {
  const upgrades = valuesOf(raw, 'upgrade')
  if (upgrades.length !== 1 || upgrades[0]?.toLowerCase() !== 'websocket')
    throw new Fault('invalid_request', 'the only upgrade is websocket')
  const isHandshake =
    method === 'GET' &&
    lists(raw, 'connection', 'upgrade') &&
    firstOf(raw, 'sec-websocket-version') === '13' &&
    KEY.test(firstOf(raw, 'sec-websocket-key') ?? '') &&
    !hasBody(raw)
  if (!isHandshake)
    throw new Fault('invalid_request', 'not a WebSocket handshake of version 13 (RFC 6455 s.4.1)')
}

/** What the target made of the handshake. */
type Outcome = Answer | (Switched & { readonly status: 101 })

/** The caller's side: its connection and what it sent behind the handshake. */
export interface CallerSide {
  readonly socket: Duplex
  readonly head: Buffer
  /** Takes the connection away from HTTP. */
  leave(): void
}

/** Carries out a handshake and what follows; how it ended. The tunnel ends with the lease, the token or silence. */
export async function tunnel(
  options: ExchangeOptions,
  exchange: Exchange,
  caller: CallerSide,
): Promise<Ending> {
  const { line, permit, request, response } = exchange
  const pool = poolFor(options, exchange)
  const release = pool.take()
  try {
    const { bound, outcome } = await settle<Outcome>(options, exchange, undefined, async (sending) => {
      const attempt = pool.upgrade(handshake(sending))
      attempt.finish([])
      const switched = attempt.switched.then((to) => ({ ...to, status: 101 as const }))
      return { attempt, outcome: Promise.race([switched, attempt.answer]) } satisfies Try<Outcome>
    })
    line.wait(options.limits.idleTimeout, 'the connection stands still')
    if (!('socket' in outcome)) {
      await relay(outcome, response, line)
      return { status: outcome.status }
    }
    checkAnswer(outcome, firstOf(request.rawHeaders, 'sec-websocket-key') ?? '')
    caller.leave()
    caller.socket.write(switchingHead(outcome.headers))
    const cancel = endWithToken(options.clock, permit, line, bound.tokenExpires)
    await join(caller, outcome, line).finally(cancel)
    const { aborted, reason } = line.signal
    return aborted ? { status: outcome.status, fault: Fault.from(reason) } : { status: outcome.status }
  } finally {
    release()
  }
}

/** The handshake as it leaves: `sending` with the upgrade. */
export function handshake(sending: Outgoing): Outgoing {
  return { ...sending, headers: [...sending.headers, 'Connection', 'Upgrade', 'Upgrade', 'websocket'] }
}

/** RFC 6455 s.4.1: a 101 that does not answer this very key is no WebSocket. */
export function checkAnswer({ headers, socket }: Switched, key: string): void {
  const accept = createHash('sha1')
    .update(key + GUID, 'latin1')
    .digest('base64')
  const isRight =
    valuesOf(headers, 'upgrade').join().toLowerCase() === 'websocket' &&
    lists(headers, 'connection', 'upgrade') &&
    valuesOf(headers, 'sec-websocket-accept').join() === accept
  if (isRight) return
  socket.destroy()
  throw new Fault('upstream_malformed', 'the target switches to something else than this WebSocket')
}

/** The answer to the caller whose connection is a tunnel from now on. */
export function switchingHead(headers: RawHeaders): string {
  const passed = pairsOf(passResponse(headers)).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${passed.join('')}\r\n`
}

function endWithToken(
  clock: Clock,
  { target }: Permit,
  line: Lifeline,
  expires: Seconds | undefined,
): () => void {
  if (expires === undefined) return () => {}
  const fault = new Fault(
    'token_expired',
    `the token that opened the connection to ${target.name} has expired`,
  )
  return clock.after((expires - nowSeconds(clock)) * 1000, () => line.end(fault))
}

/** Resolves when both sides have closed; whatever ends the line closes them. */
export function join(caller: CallerSide, target: Switched, line: Lifeline): Promise<void> {
  const [near, far] = [caller.socket, target.socket]
  const end = () => {
    near.destroy()
    far.destroy()
  }
  line.signal.addEventListener('abort', end, { once: true })
  for (const side of [near, far]) {
    side.on('data', line.touch)
    side.on('error', end)
  }
  near.write(target.head)
  far.write(caller.head)
  near.pipe(far)
  far.pipe(near)
  if (line.signal.aborted) end()
  const closed = (side: Duplex) =>
    new Promise<void>((resolve) => {
      if (side.closed) resolve()
      side.once('close', () => {
        end()
        resolve()
      })
    })
  return Promise.all([closed(near), closed(far)]).then(() => {
    line.signal.removeEventListener('abort', end)
  })
}
