/** Verification by the agent: policy, replays and revocations are its own. Each request is one question on its socket. */
import { Agent } from 'node:http'
import { isAbsolute } from 'node:path'
import { Fault } from '../base/fault.ts'
import { parseJsonObject } from '../base/json.ts'
import { askAgent, faultOfAnswer } from '../client/http.ts'
import type { Answer } from '../ingress/answer.ts'
import type { Challenge } from '../ingress/challenge.ts'
import { NAME, NAME_ERROR } from '../policy/forms-routes.ts'
import { STATUS } from '../serve/status.ts'
import { checkFunction, countOf, invalid, type Members, membersOf, textOf } from './form.ts'
import type { Verifying } from './local.ts'
import type { AgentVerifierOptions } from './options.ts'
import { type Outcome, tell, verifiedOf } from './outcome.ts'
import type { Received } from './received.ts'

const MEMBERS = ['socket', 'route', 'timeoutMs', 'bodyLimit', 'onRefused'] as const
const TIMEOUT = 5_000
const CONNECTIONS = 16
// sockaddr_un.sun_path.
const PATH_LIMIT = 107
const ANSWER_LIMITS = { maxBytes: 256 * 1024, maxDepth: 12 }
const UNTOLD: Challenge = { status: 503, headers: { 'cache-control': 'no-store', 'retry-after': '1' } }
/** What an agent may say to callers by way of the application. */
const TOLD: ReadonlySet<string> = new Set(['www-authenticate', 'dpop-nonce', 'retry-after', 'cache-control'])

interface Question {
  readonly socket: string
  readonly route: string | undefined
  readonly timeout: number
  readonly connections: Agent
}

/** Throws policy_invalid. Nothing is sent until a request comes. */
export function openByAgent(given: AgentVerifierOptions): Verifying {
  const { socket, route, timeoutMs = TIMEOUT, onRefused } = membersOf(given, 'options', MEMBERS)
  checkFunction(onRefused, 'onRefused')
  const connections = new Agent({ keepAlive: true, maxSockets: CONNECTIONS })
  const question: Question = {
    socket: socketOf(socket),
    route: route === undefined ? undefined : textOf(route, 'route', NAME, NAME_ERROR),
    timeout: countOf(timeoutMs, 'timeoutMs', [10, 60_000]),
    connections,
  }
  return {
    ask: async (receive) => {
      let method = ''
      try {
        const received = receive()
        method = received.method
        const { fault, outcome } = await askOnce(question, received)
        if (fault) tell(given.onRefused, fault, { method, ...routeFact(question) })
        return outcome
      } catch (caught) {
        const fault = Fault.from(caught)
        tell(given.onRefused, fault, { method, ...routeFact(question) })
        return { verified: undefined, challenge: untold(fault) }
      }
    },
    close: () => connections.destroy(),
  }
}

const routeFact = ({ route }: Question) => (route === undefined ? {} : { route })

function socketOf(given: unknown): string {
  const path = typeof given === 'string' ? given.replace(/^unix:(?:\/\/)?(?=\/)/, '') : ''
  if (isAbsolute(path) && Buffer.byteLength(path) <= PATH_LIMIT) return path
  throw invalid('socket', `is not the absolute path of a unix socket, of ${PATH_LIMIT} bytes at most`)
}

async function askOnce(
  { socket, route, timeout, connections }: Question,
  received: Received,
): Promise<{ readonly fault: Fault | undefined; readonly outcome: Outcome }> {
  const body = { ...(route === undefined ? {} : { route }), ...questionOf(received) }
  const call = { method: 'POST', path: '/v1/verify', body, timeout, connections } as const
  const { status, text, retryAfter } = await askAgent(socket, call)
  if (status === 200) {
    const { nonce, ...verified } = answerIn(text)
    return { fault: undefined, outcome: verifiedOf(verified, nonce) }
  }
  const fault = faultOfAnswer(text, status, retryAfter)
  const challenge = challengeIn(text) ?? untold(fault)
  return { fault, outcome: { verified: undefined, challenge } }
}

function questionOf({ method, path, query, headers, peer }: Received): object {
  const [certificate, ...intermediates] = peer.chain.map((der) => der.toString('base64'))
  const pairs = headers.flatMap((name, at) => (at % 2 === 0 ? [[name, headers[at + 1] ?? '']] : []))
  return {
    method,
    path: path + query,
    headers: pairs,
    peer: {
      ...(certificate === undefined ? {} : { certificate, intermediates }),
      ...(peer.address === undefined ? {} : { address: peer.address }),
    },
  }
}

/** The agent is trusted; another program on its path must not pass for one by a 200 alone. */
function answerIn(text: string): Answer {
  const answer = objectIn(text)
  const { route, caller, binding, claims } = answer
  const objects = [caller, binding, claims].every((one) => typeof one === 'object' && one !== null)
  if (typeof route === 'string' && objects && Array.isArray((caller as { names?: unknown }).names))
    return answer as unknown as Answer
  throw foreign()
}

function objectIn(text: string): Members {
  try {
    return parseJsonObject(text, ANSWER_LIMITS)
  } catch {
    throw foreign()
  }
}

function foreign(): Fault {
  return new Fault('bug', 'the answer is not one of an agent', {
    action: 'Check which program listens on the socket.',
  })
}

function challengeIn(text: string): Challenge | undefined {
  const { challenge } = objectIn(text)
  if (typeof challenge !== 'object' || challenge === null) return undefined
  const { status, headers } = challenge as { status?: unknown; headers?: unknown }
  if (typeof status !== 'number' || status < 400 || status > 599) return undefined
  const told = Object.entries(headers ?? {}).filter(
    ([name, value]) => TOLD.has(name) && typeof value === 'string',
  )
  return { status, headers: Object.fromEntries(told) }
}

/** What the agent refuses the application itself is no news for the caller, but for a request that is too large. */
function untold({ reason }: Fault): Challenge {
  const { http } = STATUS[reason]
  return http === 400 || http === 413 ? { status: 400, headers: { 'cache-control': 'no-store' } } : UNTOLD
}
