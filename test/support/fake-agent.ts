/** An agent whose streams are played by hand: what the client sent, what it hears, when it ends. */
import { Fault, type Reason } from '../../src/base/fault.ts'
import type { Agent } from '../../src/client/agent.ts'
import type { Call, Ending, Listener, Message } from '../../src/client/grpc.ts'

/** One stream as the agent sees it. */
export class FakeStream implements Call {
  readonly method: string
  readonly sent: Message[] = []
  isCancelled = false
  /** What `send` says; false makes the client wait for `ready`. */
  takesMore = true
  readonly #listener: Listener

  constructor(method: string, listener: Listener) {
    this.method = method
    this.#listener = listener
  }

  send(message: Message): boolean {
    this.sent.push(structuredClone(message))
    return this.takesMore
  }

  cancel(): void {
    this.isCancelled = true
  }

  ready(): this {
    this.#listener.onReady?.()
    return this
  }

  say(message: Message): void {
    this.#listener.onMessage(message)
  }

  /** Ends the stream; in the agent's own words when there is a `reason`. */
  end(code: number, reason?: Reason): void {
    const fault = new Fault(reason ?? 'agent_unreachable')
    const ending: Ending = { code, fault, isAnswer: reason !== undefined }
    this.#listener.onEnd(ending)
  }

  /** The requests of message `index`. */
  requests(index: number): readonly { readonly id: number; readonly dpop: Message }[] {
    return this.sent[index]?.['requests'] as readonly { id: number; dpop: Message }[]
  }

  /** Answers message `index` with a proof for each request: `proof of URL`. */
  prove(index: number): void {
    const results = this.requests(index).map(({ id, dpop }) => ({
      id,
      proof: { proof: `proof of ${String(dpop['url'])}`, jkt: 'k', jti: 'j', iat: 1 },
    }))
    this.say({ results })
  }
}

/** Collects the streams that the client opens, and calls. */
export class FakeAgent implements Agent {
  readonly streams: FakeStream[] = []
  readonly asked: { readonly method: string; readonly request: Message }[] = []
  answer: (method: string, request: Message) => Message = () => ({})

  stream(method: string, listener: Listener): Call {
    const stream = new FakeStream(method, listener)
    this.streams.push(stream)
    return stream
  }

  async ask(method: string, request: Message): Promise<Message> {
    this.asked.push({ method, request })
    return this.answer(method, request)
  }

  close(): void {}

  /** The stream that was opened last. */
  get last(): FakeStream {
    const stream = this.streams.at(-1)
    if (!stream) throw new Error('no stream was opened')
    return stream
  }
}

/** Lets everything run that is due now: microtasks and immediates, no timers. */
export async function tick(): Promise<void> {
  for (let round = 0; round < 3; round++) await new Promise((resolve) => setImmediate(resolve))
}
