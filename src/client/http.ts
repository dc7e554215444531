/** The client of the agent's JSON doors: one call on one connection, bounded in size and time. */
import { type Agent, type ClientRequest, type IncomingMessage, request } from 'node:http'
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { faultOfRefusal } from './refusal.ts'

export interface AgentCall {
  readonly method: 'GET' | 'POST'
  readonly path: string
  /** Sent as JSON. */
  readonly body?: object
  /** For the answer's head, and again between two parts of it; 10 s when absent. */
  readonly timeout?: Millis
  /** Ends the call. */
  readonly signal?: AbortSignal
  /** Connections that are kept for later calls; the call has one of its own when absent. */
  readonly connections?: Agent
}

/** An answer that was read whole, whatever its status. */
export interface AgentAnswer {
  readonly status: number
  readonly text: string
  readonly retryAfter: string | undefined
}

type Members = Readonly<Record<string, unknown>>

const TIMEOUT: Millis = 10_000
// The status of ten thousand entries has some megabytes.
const ANSWER_LIMIT = 16 * 1024 * 1024
const LINE_LIMIT = 1024 * 1024
const DEPTH_LIMIT = 16

/** What the agent on `socket` answers; throws the Fault it answers with, agent_unreachable, deadline, canceled. */
export async function callAgent(socket: string, call: AgentCall): Promise<Members> {
  const { status, text, retryAfter } = await askAgent(socket, call)
  if (status === 200) return parseAnswer(text)
  throw faultOfAnswer(text, status, retryAfter)
}

/** Any answer of the agent on `socket`; throws agent_unreachable, deadline, canceled. */
export async function askAgent(socket: string, call: AgentCall): Promise<AgentAnswer> {
  const response = await send(socket, call)
  const text = await textOf(response, call)
  return { status: response.statusCode ?? 0, text, retryAfter: response.headers['retry-after'] }
}

/** The lines of an answer without an end, until the agent or `signal` ends it; throws as callAgent. */
export async function* followAgent(
  socket: string,
  path: string,
  signal: AbortSignal,
): AsyncGenerator<Members> {
  yield* await openAgentLines(socket, path, signal)
}

/** The same; resolves when the agent has begun to answer, so that nothing after that is missed. */
export async function openAgentLines(
  socket: string,
  path: string,
  signal: AbortSignal,
): Promise<AsyncGenerator<Members>> {
  const response = await send(socket, { method: 'GET', path, signal })
  if (response.statusCode !== 200) {
    const text = await textOf(response, { method: 'GET', path })
    throw faultOfAnswer(text, response.statusCode ?? 0, undefined)
  }
  // Between two decisions any time may pass.
  response.setTimeout(0)
  response.socket.setTimeout(0)
  return linesOf(response, signal)
}

function send(socket: string, call: AgentCall): Promise<IncomingMessage> {
  const body = call.body === undefined ? undefined : JSON.stringify(call.body)
  const headers = {
    'workload.spiffe.io': 'true',
    ...(body === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
  }
  const { method, path, timeout = TIMEOUT, signal, connections } = call
  return new Promise((resolve, reject) => {
    let isAnswered = false
    const options = { socketPath: socket, method, path, headers, agent: connections ?? false, timeout }
    const sent = request(signal ? { ...options, signal } : options, (response) => {
      isAnswered = true
      resolve(response)
    })
    sent.on('timeout', () => sent.destroy(slow(timeout)))
    sent.on('error', (error: NodeJS.ErrnoException) => {
      if (!isAnswered && isStale(sent, error)) send(socket, withoutKept(call)).then(resolve, reject)
      else reject(connectionFault(error, signal))
    })
    sent.end(body)
  })
}

/** A kept connection that the agent closed before it answered anything. */
function isStale({ reusedSocket }: ClientRequest, { code }: NodeJS.ErrnoException): boolean {
  return reusedSocket && (code === 'ECONNRESET' || code === 'EPIPE')
}

function withoutKept({ connections: _, ...call }: AgentCall): AgentCall {
  return call
}

function slow(timeout: Millis): Fault {
  return new Fault('deadline', `the agent did not answer within ${timeout / 1000} s`, {
    action: 'See `holdfast check`; the agent may be stopped or overloaded.',
  })
}

function connectionFault(error: unknown, signal: AbortSignal | undefined): Fault {
  if (error instanceof Fault) return error
  if (signal?.aborted) return new Fault('canceled')
  return new Fault('agent_unreachable', 'the agent closed the connection before it answered', {
    cause: error,
  })
}

async function textOf(response: IncomingMessage, { timeout = TIMEOUT, signal }: AgentCall): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  response.setTimeout(timeout, () => response.destroy(slow(timeout)))
  try {
    for await (const chunk of response) {
      size += (chunk as Buffer).length
      if (size > ANSWER_LIMIT) throw new Fault('bug', `the agent's answer is over ${ANSWER_LIMIT} bytes`)
      chunks.push(chunk as Buffer)
    }
  } catch (error) {
    throw connectionFault(error, signal)
  }
  return Buffer.concat(chunks).toString('utf8')
}

async function* linesOf(response: IncomingMessage, signal: AbortSignal): AsyncGenerator<Members> {
  let rest = ''
  response.setEncoding('utf8')
  try {
    for await (const chunk of response) {
      const lines = (rest + String(chunk)).split('\n')
      rest = lines.pop() ?? ''
      if (rest.length > LINE_LIMIT)
        throw new Fault('bug', `a line of the agent is over ${LINE_LIMIT} characters`)
      for (const line of lines) yield parseAnswer(line)
    }
  } catch (error) {
    if (signal.aborted) return
    throw connectionFault(error, signal)
  }
}

function parseAnswer(text: string): Members {
  try {
    return parseJsonObject(text, { maxBytes: ANSWER_LIMIT, maxDepth: DEPTH_LIMIT })
  } catch (error) {
    throw new Fault('bug', 'the answer is not one of an agent: no JSON object', {
      action: 'Check which program listens on the socket.',
      cause: error,
    })
  }
}

/** The Fault in `{"error":{…}}`, with its Retry-After. */
export function faultOfAnswer(text: string, status: number, retryAfter: string | undefined): Fault {
  const { error } = parseAnswer(text)
  if (typeof error !== 'object' || error === null)
    return new Fault('bug', `the agent answered with status ${status} and no reason`)
  const fault = faultOfRefusal(error)
  if (!/^\d{1,6}$/.test(retryAfter ?? '')) return fault
  const { reason, message, action, owner } = fault
  return new Fault(reason, message, { action, owner, retryAfterSeconds: Number(retryAfter) })
}
