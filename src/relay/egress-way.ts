/**
 * The way by the agent's egress door, over connections of this process: the agent attests it, and decides. A connection
 * is waited for while an agent starts; nothing has been sent by then.
 */
import { Agent } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { backoff } from '../base/backoff.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Answer, Outgoing } from '../egress/attempt.ts'
import type { Body } from '../egress/body.ts'
import type { Try } from '../egress/exchange.ts'
import { framingOf, hasBody, lists, relayRequest, relayResponse } from '../egress/headers.ts'
import { sendHttp1, upgradeHttp1 } from '../egress/http1.ts'
import { orAborted } from '../egress/lifeline.ts'
import { expects, mayResend } from '../egress/sending.ts'
import type { Relayed, Settled, Way } from './way.ts'

export interface EgressWayOptions {
  /** The egress socket. */
  readonly path: string
  readonly clock: Clock
  /** Connections at a time. */
  readonly connections: number
  /** How long an agent is waited for. */
  readonly patience: Millis
}

const FREE_SOCKETS = 16
// Less than the agent keeps an idle connection.
const FREE_FOR: Millis = 30_000
const FIRST_WAIT: Millis = 50
const LONGEST_WAIT: Millis = 1_000

/** Connections to one egress door. */
export class EgressWay implements Way {
  readonly #options: EgressWayOptions
  readonly #agent: Agent
  readonly #single = new Agent({ keepAlive: false })
  readonly #ended = new AbortController()

  constructor(options: EgressWayOptions) {
    this.#options = options
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: options.connections,
      maxFreeSockets: FREE_SOCKETS,
      timeout: FREE_FOR,
    })
    for (const agent of [this.#agent, this.#single]) this.#connectWith(agent)
  }

  readonly pass = relayResponse

  /** The agent counts. */
  take(): () => void {
    return () => {}
  }

  async send(outgoing: Outgoing) {
    return sendHttp1(this.#agent, outgoing)
  }

  upgrade(outgoing: Outgoing) {
    return upgradeHttp1(this.#single, outgoing)
  }

  async settle<T extends Pick<Answer, 'headers'> & { readonly status: number }>(
    relayed: Relayed,
    body: Body | undefined,
    send: (outgoing: Outgoing) => Promise<Try<T>>,
  ): Promise<Settled<T>> {
    const { line, method } = relayed
    for (let isFresh = false; ; isFresh = true) {
      const { attempt, outcome } = await send(outgoingOf(relayed))
      try {
        return { outcome: await orAborted(outcome, line.signal) }
      } catch (caught) {
        attempt.abort()
        if (isFresh || line.signal.aborted || !mayResend(caught, attempt, method, body))
          throw agentFault(caught)
        body?.detach()
      }
    }
  }

  /** Ends all connections. */
  stop(): void {
    this.#ended.abort(new Fault('canceled'))
    this.#agent.destroy()
    this.#single.destroy()
  }

  #connectWith(agent: Agent): void {
    const { clock, path, patience } = this.#options
    const { signal } = this.#ended
    const make = (_options: object, done: (error: Error | null, socket?: Duplex) => void) => {
      patiently(() => connectTo(path), { clock, patience, signal }).then(
        (socket) => done(null, socket),
        (caught) => done(Fault.from(caught)),
      )
      return undefined
    }
    // The type says that a connection is returned at once; the agent waits for `done` when none is.
    Object.assign(agent, { createConnection: make })
  }
}

function outgoingOf({ method, request, route }: Relayed): Outgoing {
  const { rawHeaders: raw } = request
  const wantsTrailers = lists(raw, 'te', 'trailers')
  const framing = [
    ...framingOf(raw, method),
    ...(expects(request) ? ['Expect', '100-continue'] : []),
    ...(wantsTrailers ? ['TE', 'trailers', 'Connection', 'TE'] : []),
  ]
  return {
    method,
    path: route.path + route.query,
    origin: `http://${route.target}`,
    headers: ['Host', route.target, ...relayRequest(raw), ...framing],
    hasBody: hasBody(raw),
    wantsTrailers,
  }
}

/** What goes wrong on this way is the agent's: no target was spoken to. */
function agentFault(caught: unknown): Fault {
  const fault = Fault.from(caught)
  if (fault.reason !== 'upstream_unavailable') return fault
  return new Fault('agent_unreachable', 'the agent closed the connection before it answered', {
    cause: fault,
  })
}

function connectTo(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path })
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
    socket.once('error', reject)
  }).catch((error: NodeJS.ErrnoException) => {
    throw new Fault('agent_unreachable', `no agent answers on ${path} (${error.code ?? 'unknown'})`, {
      action: 'Start the agent, with `egress: { socket: on }` in its configuration.',
      cause: error,
    })
  }) as Promise<Socket>
}

interface Patience {
  readonly clock: Clock
  readonly patience: Millis
  readonly signal: AbortSignal
}

const PASSING: ReadonlySet<string> = new Set(['agent_unreachable', 'not_ready', 'draining'])

/** Whether an agent may answer by and by where it does not now. */
export function isPassing(caught: unknown): boolean {
  return caught instanceof Fault && PASSING.has(caught.reason)
}

/** What `ask` resolves to, asked again with growing waits while there is no agent to answer. */
export async function patiently<T>(ask: () => Promise<T>, { clock, patience, signal }: Patience): Promise<T> {
  const end = clock.monotonic() + patience
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask()
    } catch (caught) {
      if (signal.aborted || !isPassing(caught) || clock.monotonic() >= end) throw caught
      await orAborted(
        new Promise<void>((resolve) => clock.after(backoff(attempt, FIRST_WAIT, LONGEST_WAIT), resolve)),
        signal,
      )
    }
  }
}
