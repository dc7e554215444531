/**
 * HTTPS to a server of the cluster, the kubelet or the API server: who it is is verified before anything is sent, the
 * token is read anew for each request, every answer is bounded in time and size, and nothing is redirected.
 */
import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { readTrusted } from '../base/trusted.ts'
import { readLines, readWhole } from './body.ts'
import { dial, type Verification } from './dial.ts'

export type { Verification } from './dial.ts'

export interface ClusterServer {
  /** As messages call it: `the kubelet`, `the API server`. */
  readonly name: string
  /** `https://HOST:PORT`, `http:` where the verification is `plain`; anything behind it is not read. */
  readonly url: string
  readonly verification: Verification
  /** A bearer token (RFC 6750), read for each request: the kubelet renews it in place. */
  readonly tokenFile?: string | undefined
  /** From the request to the end of its answer; of a stream, to its head and between two lines. */
  readonly timeout: Millis
  readonly clock: Clock
}

export interface ClusterAsk {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Sent as JSON. */
  readonly body?: unknown
  /** The type of a patch; `application/json` when absent. */
  readonly contentType?: string
  readonly signal?: AbortSignal
  /** The most that is read of an answer, or of one line of a stream. */
  readonly maxBytes?: number
}

/** An answer that was read whole. */
export interface ClusterAnswer {
  readonly status: number
  readonly bytes: Buffer
}

const CONNECTIONS = 8
const IDLE: Millis = 30_000
const HEAD_LIMIT = 16 * 1024
const TOKEN_LIMIT = 64 * 1024
const BODY_LIMIT = 16 * 1024 * 1024
// RFC 6750 s.2.1
const TOKEN = /^[A-Za-z0-9._~+/-]+=*$/

/** One server; connections are kept until it shows another certificate authority to trust. */
export class ClusterHttps {
  readonly #server: ClusterServer
  readonly #host: string
  readonly #port: number
  #agent: Agent | undefined
  #trusted = ''

  /** Throws config_invalid when the URL is not one of an https server. */
  constructor(server: ClusterServer) {
    const url = URL.canParse(server.url) ? new URL(server.url) : undefined
    const wanted = server.verification.kind === 'plain' ? 'http:' : 'https:'
    if (url?.protocol !== wanted)
      throw new Fault('config_invalid', `${server.url}: no ${wanted} URL of ${server.name}`)
    this.#server = server
    this.#host = url.hostname.replace(/^\[(.*)\]$/, '$1')
    this.#port = Number(url.port || 443)
  }

  /** The answer to `ask`, whatever its status; throws cluster_unavailable, canceled. */
  async ask(path: string, ask: ClusterAsk = {}): Promise<ClusterAnswer> {
    const { name } = this.#server
    return this.#within(ask.signal, async (signal) => {
      const response = await this.#send(path, ask, signal)
      const bytes = await readWhole(response, ask.maxBytes ?? BODY_LIMIT, name)
      return { status: response.statusCode ?? 0, bytes }
    })
  }

  /** The JSON of an answer with a status of 2xx; throws cluster_unavailable, canceled. */
  async json(path: string, ask: ClusterAsk = {}): Promise<unknown> {
    const { status, bytes } = await this.ask(path, ask)
    if (status < 200 || status > 299) throw this.refusal(status)
    try {
      return JSON.parse(bytes.toString('utf8'))
    } catch {
      throw this.#broken('answers with something that is not JSON')
    }
  }

  /** The lines of an answer as they come, until it ends; throws cluster_unavailable, canceled. */
  async *lines(path: string, ask: ClusterAsk = {}): AsyncGenerator<string> {
    const { clock, name, timeout } = this.#server
    const controller = new AbortController()
    const unlink = follow(ask.signal, controller)
    let cancel = () => {}
    const rest = () => {
      cancel()
      cancel = clock.after(timeout, () => controller.abort(this.#broken('says nothing any more')))
    }
    try {
      rest()
      const response = await this.#send(path, ask, controller.signal)
      const status = response.statusCode ?? 0
      if (status !== 200) throw this.refusal(status)
      for await (const line of readLines(response, ask.maxBytes ?? BODY_LIMIT, name, rest)) yield line
    } catch (error) {
      throw this.#faultOf(controller.signal.aborted ? controller.signal.reason : error)
    } finally {
      cancel()
      unlink()
      controller.abort(new Fault('canceled'))
    }
  }

  /** What a status that is not 2xx means, in words. */
  refusal(status: number): Fault {
    if (status === 401)
      return this.#broken(
        'does not accept the token of the agent (401)',
        'See that the token file is current.',
      )
    if (status === 403)
      return this.#broken(
        'does not allow this to the agent (403)',
        'Bind the ClusterRole of the agent to its service account.',
      )
    return this.#broken(`answers with status ${status}`)
  }

  /** The time now, as objects of the API write it (RFC 3339). */
  now(): string {
    return new Date(this.#server.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z')
  }

  close(): void {
    this.#agent?.destroy()
    this.#agent = undefined
  }

  async #within<T>(signal: AbortSignal | undefined, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, timeout } = this.#server
    const controller = new AbortController()
    const unlink = follow(signal, controller)
    const cancel = clock.after(timeout, () => controller.abort(this.#broken('does not answer in time')))
    try {
      return await run(controller.signal)
    } catch (error) {
      throw this.#faultOf(controller.signal.aborted ? controller.signal.reason : error)
    } finally {
      cancel()
      unlink()
    }
  }

  async #send(path: string, ask: ClusterAsk, signal: AbortSignal, isAgain = false): Promise<IncomingMessage> {
    signal.throwIfAborted()
    const body = ask.body === undefined ? undefined : Buffer.from(JSON.stringify(ask.body))
    const sent = request({
      method: ask.method ?? 'GET',
      path,
      headers: { ...this.#headers(), ...bodyHeaders(body, ask.contentType) },
      agent: this.#openAgent(),
      maxHeaderSize: HEAD_LIMIT,
      signal,
    })
    sent.end(body)
    try {
      return await responseOf(sent)
    } catch (error) {
      // A kept connection may be closed just when a request goes over it (RFC 9112 s.9.3.1).
      const isStale = sent.reusedSocket && !isAgain && ask.body === undefined && !signal.aborted
      if (isStale) return this.#send(path, ask, signal, true)
      throw error
    }
  }

  #headers(): Readonly<Record<string, string>> {
    const host = this.#host.includes(':') ? `[${this.#host}]` : this.#host
    const head = { host: `${host}:${this.#port}`, accept: 'application/json' }
    const { tokenFile } = this.#server
    return tokenFile === undefined ? head : { ...head, authorization: `Bearer ${readToken(tokenFile)}` }
  }

  /** A new agent, without the connections of the old one, when what it trusts has changed. */
  #openAgent(): Agent {
    const { verification } = this.#server
    const trusted = 'file' in verification ? readTrusted(verification.file, TRUST).toString('latin1') : ''
    if (this.#agent && trusted === this.#trusted) return this.#agent
    this.#agent?.destroy()
    const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS, timeout: IDLE })
    const place = { host: this.#host, port: this.#port, kind: verification.kind, trusted }
    agent.createConnection = (_options, done) => {
      dial(place).then(
        (socket) => done?.(null, socket),
        (error: Error) => done?.(error, undefined as never),
      )
      return undefined
    }
    this.#agent = agent
    this.#trusted = trusted
    return agent
  }

  #broken(what: string, action?: string): Fault {
    return new Fault(
      'cluster_unavailable',
      `${this.#server.name} ${what}`,
      action === undefined ? {} : { action },
    )
  }

  #faultOf(caught: unknown): Fault {
    if (caught instanceof Fault) return caught
    const { code, message } = caught as { readonly code?: unknown; readonly message?: unknown }
    const why = typeof code === 'string' ? code : String(message ?? '')
    return new Fault('cluster_unavailable', `${this.#server.name} cannot be reached: ${why}`, {
      cause: caught,
    })
  }
}

const TRUST = { maxBytes: 1024 * 1024 }

function readToken(file: string): string {
  const token = readTrusted(file, { maxBytes: TOKEN_LIMIT }).toString('latin1').trim()
  if (!TOKEN.test(token)) throw new Fault('cluster_unavailable', `${file}: holds no bearer token`)
  return token
}

function bodyHeaders(
  body: Buffer | undefined,
  type = 'application/json',
): Readonly<Record<string, string | number>> {
  return body === undefined ? {} : { 'content-type': type, 'content-length': body.length }
}

function responseOf(sent: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    sent.once('response', resolve)
    sent.once('error', reject)
  })
}

/** `controller` ends with `signal`; the returned function ends that. */
function follow(signal: AbortSignal | undefined, controller: AbortController): () => void {
  const leave = () => controller.abort(new Fault('canceled'))
  if (signal?.aborted) leave()
  signal?.addEventListener('abort', leave, { once: true })
  return () => signal?.removeEventListener('abort', leave)
}
