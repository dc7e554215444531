/** The agent as the SDK reaches it: found anew for each stream, so that a restart, a takeover or a move is survived. */
import type { Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import { problemsOf, problemText } from '../base/problem.ts'
import {
  type Call,
  CODE,
  type Connect,
  type Connection,
  type Ending,
  type Listener,
  loadServices,
  type Message,
  type StreamMethod,
  type UnaryMethod,
} from './grpc.ts'
import {
  endpointFromEnvironment,
  findSocket,
  onlySocket,
  type SocketPlace,
  workloadSockets,
} from './socket.ts'

/** Which agent to use. */
export interface AgentOptions {
  /** A path or `unix:` URI; SPIFFE_ENDPOINT_SOCKET and then the well-known places when absent. */
  readonly socket?: string | undefined
}

export interface AskOptions {
  readonly timeout: Millis
  readonly signal?: AbortSignal | undefined
}

/** Calls to the agent. */
export interface Agent {
  /** Opens a stream on a connection of its own, which ends with it. Never throws: failure is an Ending. */
  stream(method: StreamMethod, listener: Listener, request?: Message): Call
  /** One call; tried once more on a new connection when the old one was at fault. Throws a Fault. */
  ask(method: UnaryMethod, request: Message, options: AskOptions): Promise<Message>
  close(): void
}

/** The agent that `options` name; throws invalid_request for a socket that is not a unix one. Nothing is sent yet. */
export function openAgent({ socket }: AgentOptions = {}, load: () => Connect = loadServices): Agent {
  return new UnixAgent(workloadSockets({ socket, endpoint: endpointFromEnvironment() }), load())
}

class UnixAgent implements Agent {
  readonly #places: readonly SocketPlace[]
  readonly #connect: Connect
  #asking: Promise<Connection> | undefined

  constructor(places: readonly SocketPlace[], connect: Connect) {
    this.#places = places
    this.#connect = connect
  }

  stream(method: StreamMethod, listener: Listener, request?: Message): Call {
    let call: Call | undefined
    let connection: Connection | undefined
    let isCancelled = false
    const tell = (ending: Ending) => {
      if (!isCancelled) listener.onEnd(ending)
    }
    const end = async (ending: Ending) => {
      connection?.close()
      tell(await this.#explained(ending))
    }
    const begin = async () => {
      const opened = this.#connect(await this.#locate())
      connection = opened
      if (isCancelled) return opened.close()
      const waiting = { ...listener, onEnd: (ending: Ending) => void end(ending) }
      call = opened.open(method, waiting, request)
      listener.onReady?.()
    }
    begin().catch((error: unknown) => tell(unreachable(error)))
    return {
      send: (message) => call?.send(message) ?? false,
      cancel: () => {
        isCancelled = true
        call?.cancel()
        connection?.close()
      },
    }
  }

  async ask(method: UnaryMethod, request: Message, options: AskOptions): Promise<Message> {
    options.signal?.throwIfAborted()
    const isFirst = this.#asking === undefined
    const first = await this.#askOnce(method, request, options)
    if ('message' in first) return first.message
    const last =
      isFirst || !isOfConnection(first.ending) ? first : await this.#askOnce(method, request, options)
    if ('message' in last) return last.message
    throw (await this.#explained(last.ending)).fault
  }

  close(): void {
    const asking = this.#asking
    this.#asking = undefined
    asking?.then(
      (connection) => connection.close(),
      () => {},
    )
  }

  /** The answer or how the call ended; throws only the reason of the caller's signal. */
  async #askOnce(method: UnaryMethod, request: Message, options: AskOptions): Promise<Asked> {
    this.#asking ??= this.#locate().then(this.#connect)
    const asking = this.#asking
    try {
      const connection = await asking
      options.signal?.throwIfAborted()
      return { message: await connection.unary(method, request, options) }
    } catch (caught) {
      options.signal?.throwIfAborted()
      const ending = endingOf(caught)
      if (isOfConnection(ending) && this.#asking === asking) this.close()
      return { ending }
    }
  }

  async #locate(): Promise<string> {
    return onlySocket(this.#places) ?? (await findSocket(this.#places))
  }

  /** Says of a connection that failed what was tried and why nobody answered there. */
  async #explained(ending: Ending): Promise<Ending> {
    if (ending.isAnswer || ending.code !== CODE.UNAVAILABLE) return ending
    try {
      await findSocket(this.#places)
      return ending
    } catch (caught) {
      return unreachable(caught)
    }
  }
}

type Asked = { readonly message: Message } | { readonly ending: Ending }

const CONNECTION_REASONS: ReadonlySet<string> = new Set(['lease_ended', 'peer_gone', 'peer_changed'])

/** A new connection is attested anew, and leads to whichever agent is there now. */
function isOfConnection({ code, fault }: Ending): boolean {
  return code === CODE.UNAVAILABLE || CONNECTION_REASONS.has(fault.reason)
}

function endingOf(caught: unknown): Ending {
  return typeof caught === 'object' && caught !== null && 'fault' in caught && 'code' in caught
    ? (caught as Ending)
    : unreachable(caught)
}

function unreachable(caught: unknown): Ending {
  const fault = Fault.from(caught)
  const problems = problemsOf(fault)
  const told =
    problems.length === 0
      ? fault
      : new Fault(fault.reason, `no agent answers: ${problems.map(problemText).join('; ')}`, {
          cause: caught,
        })
  return { code: CODE.UNAVAILABLE, fault: told, isAnswer: false }
}
