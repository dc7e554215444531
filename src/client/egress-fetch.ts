/**
 * `fetch` over the agent's egress door: the application names a target of policy, `http://orders/v1/items`, and holds
 * neither key nor token. The agent adds both and speaks TLS.
 */
import { Agent, type IncomingMessage, request as open } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { ReadableStream as WebStream } from 'node:stream/web'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { faultOfAnswer } from './http.ts'
import {
  egressFromEnvironment,
  egressSockets,
  endpointFromEnvironment,
  findSocket,
  onlySocket,
  type SocketPlace,
} from './socket.ts'

export interface HoldfastFetchOptions {
  /**
   * The egress socket: a path or `unix:` URI. When absent HOLDFAST_EGRESS_SOCKET, then the one beside
   * SPIFFE_ENDPOINT_SOCKET or in the well-known places.
   */
  readonly socket?: string | undefined
  /** Which identity asks, where the workload has several. */
  readonly spiffeId?: string | undefined
  /** On whose behalf: the handle that the agent gave for an inbound token. */
  readonly subject?: string | undefined
}

const FREE_FOR: Millis = 30_000
const REFUSAL_LIMIT = 64 * 1024
/** Statuses that never have a body (Fetch s.2.2.3). */
const BODILESS: ReadonlySet<number> = new Set([204, 205, 304])

/**
 * A `fetch` whose URLs are `http://TARGET/PATH`. Bodies stream both ways. An answer of the target resolves, whatever
 * its status; a refusal of the agent rejects with its Fault, which says the reason, the owner and what to do; an
 * aborted call rejects with its signal's reason. Redirects are returned: whether they are followed policy says. Bodies
 * come as they are sent: none is asked for in an encoding.
 *
 * @example
 * const api = createHoldfastFetch({ subject: handle })
 * const response = await api('http://orders/v1/items', { method: 'POST', body: JSON.stringify(item) })
 */
export function createHoldfastFetch(options: HoldfastFetchOptions = {}): typeof fetch {
  const agent = new Agent({ keepAlive: true, timeout: FREE_FOR })
  const locate = locator(options)
  return async (input, init = {}) => {
    const asked = new Request(input, { duplex: 'half', ...init } as RequestInit)
    asked.signal.throwIfAborted()
    checkUrl(asked.url)
    const headers = headersOf(asked, options, lengthOf(init.body))
    try {
      const answer = await send(await locate(), agent, asked, headers)
      return await responseOf(asked, answer)
    } catch (caught) {
      asked.signal.throwIfAborted()
      throw faultOf(caught)
    }
  }
}

let shared: typeof fetch | undefined

/** `createHoldfastFetch()` with the socket that the environment names, made when it is first called. */
export const holdfastFetch: typeof fetch = (input, init) => {
  shared ??= createHoldfastFetch()
  return shared(input, init)
}

function locator({ socket }: HoldfastFetchOptions): () => Promise<string> {
  let places: readonly SocketPlace[] | undefined
  return async () => {
    places ??= egressSockets({
      socket,
      egress: egressFromEnvironment(),
      endpoint: endpointFromEnvironment(),
    })
    return onlySocket(places) ?? (await findSocket(places))
  }
}

function checkUrl(url: string): void {
  const { protocol, port, username, password } = new URL(url)
  if (protocol === 'http:' && `${port}${username}${password}` === '') return
  throw new Fault('invalid_request', 'the URL is not http://TARGET/PATH', {
    action:
      'Write http:// and the name of a target, without port or user: it is the agent that speaks TLS to it.',
  })
}

function headersOf(
  asked: Request,
  { spiffeId, subject }: HoldfastFetchOptions,
  length: number | undefined,
): Record<string, string> {
  const headers = Object.fromEntries(asked.headers)
  return {
    ...headers,
    host: new URL(asked.url).hostname,
    ...(asked.body && length !== undefined ? { 'content-length': String(length) } : {}),
    ...(spiffeId === undefined ? {} : { 'holdfast-spiffe-id': spiffeId }),
    ...(subject === undefined ? {} : { 'holdfast-subject': subject }),
  }
}

/** The length of a body in bytes, where it is known before it is sent. */
function lengthOf(body: RequestInit['body']): number | undefined {
  if (typeof body === 'string') return Buffer.byteLength(body)
  if (body instanceof URLSearchParams) return Buffer.byteLength(body.toString())
  if (body instanceof Blob) return body.size
  return body instanceof ArrayBuffer || ArrayBuffer.isView(body) ? body.byteLength : undefined
}

function send(
  socketPath: string,
  agent: Agent,
  asked: Request,
  headers: Record<string, string>,
): Promise<IncomingMessage> {
  const { pathname, search } = new URL(asked.url)
  const { body, method, signal } = asked
  return new Promise((resolve, reject) => {
    const sent = open({ socketPath, agent, method, path: pathname + search, headers, signal })
    sent.once('response', resolve)
    sent.on('error', reject)
    if (!body) return void sent.end()
    // What fails on the way shows in the answer, or in its absence.
    pipeline(Readable.fromWeb(body as WebStream), sent).catch((error) => sent.destroy(error))
  })
}

/** Throws the Fault that the agent answered with. */
async function responseOf(asked: Request, answer: IncomingMessage): Promise<Response> {
  const { statusCode: status = 0, statusMessage: statusText = '', rawHeaders } = answer
  const headers = new Headers()
  for (let at = 0; at + 1 < rawHeaders.length; at += 2)
    headers.append(rawHeaders[at] ?? '', rawHeaders[at + 1] ?? '')
  if (headers.has('holdfast-reason'))
    throw faultOfAnswer(await textOf(answer), status, headers.get('retry-after') ?? undefined)
  const isBodiless = asked.method === 'HEAD' || BODILESS.has(status)
  if (isBodiless) answer.resume()
  const body = isBodiless ? null : streamOf(asked, answer)
  return Object.defineProperty(
    new Response(body as ReadableStream | null, { status, statusText, headers }),
    'url',
    {
      value: asked.url,
    },
  )
}

async function textOf(answer: IncomingMessage): Promise<string> {
  let text = ''
  answer.setEncoding('utf8')
  for await (const part of answer) {
    text += String(part)
    if (text.length > REFUSAL_LIMIT) throw new Fault('bug', `a refusal is over ${REFUSAL_LIMIT} characters`)
  }
  return text
}

/** Read as it is asked for; a reader that cancels ends the request, even before it has read. */
function streamOf(asked: Request, answer: IncomingMessage): WebStream<Uint8Array> {
  const chunks = chunksOf(asked, answer)
  return new WebStream<Uint8Array>(
    {
      pull: async (controller) => {
        const { done, value } = await chunks.next()
        if (done) controller.close()
        else controller.enqueue(value)
      },
      cancel: () => {
        answer.destroy()
      },
    },
    { highWaterMark: 0 },
  )
}

async function* chunksOf(asked: Request, answer: IncomingMessage): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of answer) yield chunk as Uint8Array
  } catch (caught) {
    asked.signal.throwIfAborted()
    throw faultOf(caught)
  }
}

function faultOf(caught: unknown): unknown {
  if (caught instanceof Fault || !(caught instanceof Error)) return caught
  return new Fault(
    'agent_unreachable',
    'the connection to the egress door failed, or ended before the answer did',
    {
      action:
        'See that the agent runs with its egress socket on; `holdfast watch` shows why it ends a connection.',
      cause: caught,
    },
  )
}
