/**
 * The way to a target with `via: sidecar`: the agent gives the headers of each request, and this process connects, so
 * that the DNS, the network policy and the mesh of its pod apply. Redirects are the caller's to see, never followed.
 */
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { callAgent } from '../client/http.ts'
import type { Answer, Outgoing } from '../egress/attempt.ts'
import type { Body } from '../egress/body.ts'
import { nonceIn } from '../egress/challenge.ts'
import type { Try } from '../egress/exchange.ts'
import {
  framingOf,
  hasBody,
  lists,
  outgoing,
  passRequest,
  passResponse,
  valuesOf,
} from '../egress/headers.ts'
import { orAborted } from '../egress/lifeline.ts'
import type { Pool } from '../egress/pool.ts'
import { discard, expects, mayResend } from '../egress/sending.ts'
import { type CanonicalUrl, canonicalUrl } from '../proof/target.ts'
import { parseHeaders, type ToldHeaders, type ToldTarget } from './told.ts'
import type { Relayed, Settled, Way } from './way.ts'

export interface TargetWayOptions {
  /** The workload socket. */
  readonly socket: string
  readonly told: ToldTarget
  readonly pool: Pool
  /** Which of its identities the caller chose. */
  readonly spiffeId: string | undefined
}

/** A person may have to agree first: policy lets a request wait for ten minutes. */
const HEADERS_TIMEOUT: Millis = 660_000
const ANSWER_TIMEOUT: Millis = 60_000
const UNAUTHORIZED = 401
const CHALLENGE_LIMIT = 4096

/** Sends to one target, as one identity. */
export class TargetWay implements Way {
  readonly #options: TargetWayOptions
  #nonce: string | undefined

  constructor(options: TargetWayOptions) {
    this.#options = options
  }

  readonly pass = passResponse

  take(): () => void {
    return this.#options.pool.take()
  }

  send(sending: Outgoing) {
    return this.#options.pool.send(sending)
  }

  upgrade(sending: Outgoing) {
    return this.#options.pool.upgrade(sending)
  }

  async settle<T extends Pick<Answer, 'headers'> & { readonly status: number }>(
    relayed: Relayed,
    body: Body | undefined,
    send: (sending: Outgoing) => Promise<Try<T>>,
  ): Promise<Settled<T>> {
    const { line, method, route } = relayed
    const place = this.#options.told.origin + route.path + route.query
    const url = canonicalUrl(place)
    let [isRetry, isFresh] = [false, false]
    for (;;) {
      const told = await this.#headersFor(method, place, line.signal)
      line.wait(ANSWER_TIMEOUT, 'the target does not answer in time')
      const { attempt, outcome } = await send(this.#outgoing(relayed, url, told))
      try {
        const answer = await orAborted(outcome, line.signal)
        const isWanted = await this.#report(place, answer, line.signal)
        if (isRetry || !isWanted) return { outcome: answer, expires: told.tokenExpires }
        isRetry = true
        if (body && !body.isReplayable) throw new Fault('body_not_replayable')
        body?.detach()
        await discard(attempt, answer, line)
      } catch (caught) {
        attempt.abort()
        if (isFresh || line.signal.aborted || !mayResend(caught, attempt, method, body)) throw caught
        isFresh = true
        body?.detach()
      }
    }
  }

  async #headersFor(method: string, url: string, signal: AbortSignal): Promise<ToldHeaders> {
    const body = { method, url, ...this.#identity() }
    const call = { method: 'POST', path: '/v1/headers', body, timeout: HEADERS_TIMEOUT, signal } as const
    return parseHeaders(await callAgent(this.#options.socket, call))
  }

  /** Tells the agent what concerns it; whether the request is to be sent once more. */
  async #report(
    url: string,
    { headers, status }: Pick<Answer, 'headers' | 'status'>,
    signal: AbortSignal,
  ): Promise<boolean> {
    const nonce = nonceIn(headers)
    if (status !== UNAUTHORIZED && (nonce === undefined || nonce === this.#nonce)) return false
    const challenge = valuesOf(headers, 'www-authenticate').join(', ').slice(0, CHALLENGE_LIMIT)
    const body = {
      url,
      status,
      ...(nonce === undefined ? {} : { dpop_nonce: nonce }),
      ...(challenge === '' ? {} : { www_authenticate: challenge }),
      ...this.#identity(),
    }
    try {
      const answer = await callAgent(this.#options.socket, {
        method: 'POST',
        path: '/v1/responses',
        body,
        signal,
      })
      this.#nonce = nonce ?? this.#nonce
      return answer['retry'] === true
    } catch {
      // The answer is the caller's all the same; without an agent there would be no second one.
      return false
    }
  }

  #identity(): { readonly spiffe_id?: string } {
    const { spiffeId } = this.#options
    return spiffeId === undefined ? {} : { spiffe_id: spiffeId }
  }

  #outgoing({ method, request, route }: Relayed, url: CanonicalUrl, { injected }: ToldHeaders): Outgoing {
    const { rawHeaders: raw } = request
    const host = url.origin.slice(url.origin.indexOf('://') + 3)
    const framing = [...framingOf(raw, method), ...(expects(request) ? ['Expect', '100-continue'] : [])]
    const passed = passRequest(raw, { transaction: this.#options.told.passesTransaction })
    return {
      method,
      path: url.path + route.query,
      origin: url.origin,
      headers: outgoing(host, passed, framing, injected),
      hasBody: hasBody(raw),
      wantsTrailers: lists(raw, 'te', 'trailers'),
    }
  }
}
