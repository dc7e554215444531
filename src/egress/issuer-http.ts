/**
 * One request to an authorization server: over TLS that is verified, bounded in time and size, never redirected. What
 * goes wrong is issuer_unavailable with its cause.
 */
import { type IncomingMessage, request } from 'node:http'
import type { Socket } from 'node:net'
import type { CustomFetchOptions } from 'oauth4webapi'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { ServerPlatform } from '../policy/grant.ts'
import { type Dialer, placeOf } from './dial.ts'
import type { RawHeaders } from './headers.ts'
import type { TlsClient } from './trust.ts'

/** How the server is reached, and the certificate that is shown to it. */
export interface IssuerRoute {
  readonly platform: Pick<ServerPlatform, 'tls' | 'addresses'>
  readonly client: TlsClient | undefined
  readonly signal: AbortSignal
  /** The longest answer, in bytes; 256 KiB when absent. */
  readonly bodyLimit?: number
}

/** An answer that was read whole. */
export interface IssuerAnswer {
  readonly status: number
  readonly raw: RawHeaders
  readonly body: string
}

export interface IssuerHttpOptions {
  readonly dialer: Dialer
  readonly clock: Clock
  /** How long a request may take, connecting included. */
  readonly timeout: Millis
  /** Who is asked; an authorization server when absent. */
  readonly speaker?: Speaker
}

/** How failures are told: `discovery_failed: the target does not answer in time`. */
export interface Speaker {
  readonly reason: 'issuer_unavailable' | 'discovery_failed'
  readonly name: string
}

const SERVER: Speaker = { reason: 'issuer_unavailable', name: 'the authorization server' }

const BODY_LIMIT = 256 * 1024
const HEAD_LIMIT = 16 * 1024

type Ask = CustomFetchOptions<string, URLSearchParams | undefined>

/** Requests to authorization servers, each on a connection of its own: they are few, and certificates differ. */
export class IssuerHttp {
  readonly #options: IssuerHttpOptions

  constructor(options: IssuerHttpOptions) {
    this.#options = options
  }

  /** The answer to `ask`; throws the reason of the speaker, canceled. */
  async call(
    url: string,
    ask: Pick<Ask, 'method' | 'headers' | 'body'>,
    route: IssuerRoute,
  ): Promise<IssuerAnswer> {
    const { clock, timeout, speaker = SERVER } = this.#options
    const controller = new AbortController()
    const cancel = clock.after(timeout, () => controller.abort(broken('does not answer in time')))
    const leave = () => controller.abort(new Fault('canceled'))
    route.signal.addEventListener('abort', leave, { once: true })
    if (route.signal.aborted) leave()
    try {
      return await this.#call(url, ask, { ...route, signal: controller.signal })
    } catch (error) {
      throw faultOf(controller.signal.aborted ? controller.signal.reason : error, speaker)
    } finally {
      cancel()
      route.signal.removeEventListener('abort', leave)
      controller.abort(new Fault('canceled'))
    }
  }

  /** The same as `fetch`, as oauth4webapi wants it; `seen` hears of the raw answer. */
  fetchBy(
    route: IssuerRoute,
    seen: (answer: IssuerAnswer) => void = () => {},
  ): (url: string, ask: Ask) => Promise<Response> {
    return async (url, ask) => {
      const answer = await this.call(url, ask, route)
      seen(answer)
      return responseOf(answer)
    }
  }

  async #call(
    url: string,
    ask: Pick<Ask, 'method' | 'headers' | 'body'>,
    route: IssuerRoute,
  ): Promise<IssuerAnswer> {
    const { origin, protocol, host, pathname, search } = new URL(url)
    if (protocol !== 'https:') throw broken('is not an https server')
    const { platform, client, signal, bodyLimit = BODY_LIMIT } = route
    const socket = await this.#options.dialer.dialTls({
      ...placeOf(origin),
      ...platform,
      client,
      signal,
      alpn: ['http/1.1'],
    })
    const close = () => socket.destroy()
    signal.addEventListener('abort', close, { once: true })
    const body = ask.body === undefined ? undefined : Buffer.from(String(ask.body))
    const length = body ? { 'content-length': String(body.length) } : {}
    const headers = { ...ask.headers, host, connection: 'close', ...length }
    const answer = await send(
      socket,
      { method: ask.method, path: pathname + search, headers },
      body,
      bodyLimit,
    )
    if (answer.status >= 300 && answer.status < 400)
      throw broken('answers with a redirect, which is not followed')
    return answer
  }
}

interface Head {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}

function send(
  socket: Socket,
  head: Head,
  body: Buffer | undefined,
  bodyLimit: number,
): Promise<IssuerAnswer> {
  return new Promise((resolve, reject) => {
    const cutOff = () => reject(broken('cuts its answer off'))
    const outgoing = request({ ...head, maxHeaderSize: HEAD_LIMIT, createConnection: () => socket })
    outgoing.on('error', cutOff).on('close', cutOff)
    outgoing.on('response', (response) => readWhole(response, bodyLimit).then(resolve, reject))
    outgoing.end(body)
  })
}

async function readWhole(response: IncomingMessage, limit: number): Promise<IssuerAnswer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > limit) throw broken(`answers with over ${limit} bytes`)
    chunks.push(chunk)
  }
  if (!response.complete) throw broken('cuts its answer off')
  const { statusCode: status = 0, rawHeaders: raw } = response
  return { status, raw, body: Buffer.concat(chunks).toString('utf8') }
}

function responseOf({ status, raw, body }: IssuerAnswer): Response {
  if (status < 200 || status > 599) throw unavailable(`answers with status ${status}`)
  const headers = new Headers()
  for (let at = 0; at + 1 < raw.length; at += 2) headers.append(raw[at] ?? '', raw[at + 1] ?? '')
  return new Response(status === 204 || status === 205 ? null : body, { status, headers })
}

/** What goes wrong with an exchange, said of a speaker whom `faultOf` names. */
class Broken extends Error {}

const broken = (what: string) => new Broken(what)

/** Faults of connecting keep their words and their owner: the platform has to act on them. */
function faultOf(caught: unknown, { reason, name }: Speaker): Fault {
  if (caught instanceof Broken) return new Fault(reason, `${name} ${caught.message}`)
  if (!(caught instanceof Fault)) return new Fault(reason, `${name} cuts its answer off`, { cause: caught })
  const { action, owner, message } = caught
  return CONNECTING.has(caught.reason) ? new Fault(reason, `${name}: ${message}`, { action, owner }) : caught
}

const CONNECTING: ReadonlySet<string> = new Set(['upstream_unavailable', 'upstream_address', 'upstream_tls'])

export function unavailable(what: string, retryAfterSeconds?: number): Fault {
  return new Fault('issuer_unavailable', `the authorization server ${what}`, {
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  })
}
