/**
 * A server stream that is followed for as long as it is wanted. States: `open` (a stream is under way), `waiting`
 * (for the next try), `over` (closed, or ended for good). INVALID_ARGUMENT, and CANCELLED as the agent's own word, end it
 * for good, as in other SPIFFE clients; everything else is tried again (SPIFFE_Workload_API.md s.5.2.1, s.6.2.1).
 */
import { backoff } from '../base/backoff.ts'
import type { Clock, Millis } from '../base/clock.ts'
import type { Agent } from './agent.ts'
import { CODE, type Ending, type Message, type StreamMethod } from './grpc.ts'

export interface WatchOptions {
  readonly agent: Agent
  readonly method: StreamMethod
  readonly clock: Clock
  readonly onMessage: (message: Message) => void
  /** The stream ended; `isFinal` when no other try follows. */
  readonly onEnd: (ending: Ending, isFinal: boolean) => void
}

const FIRST_WAIT: Millis = 2_000
const LONGEST_WAIT: Millis = 30_000
// An agent that hands over is back at once; one that fails at once is not asked at once.
const STEADY: Millis = 1_000
const SHORT_WAIT: Millis = 100

/** Follows the stream until the returned function is called. */
export function watchStream(options: WatchOptions): () => void {
  const watch = new Watch(options)
  watch.open()
  return () => watch.close()
}

class Watch {
  readonly #options: WatchOptions
  #attempt = 0
  #isOver = false
  #cancel = () => {}

  constructor(options: WatchOptions) {
    this.#options = options
  }

  open(): void {
    const { agent, method, clock, onMessage } = this.#options
    let since: Millis | undefined
    const call = agent.stream(
      method,
      {
        onMessage: (message) => {
          since ??= clock.monotonic()
          this.#attempt = 0
          onMessage(message)
        },
        onEnd: (ending) => this.#onEnd(ending, since !== undefined && clock.monotonic() - since >= STEADY),
      },
      {},
    )
    this.#cancel = () => call.cancel()
  }

  close(): void {
    this.#isOver = true
    this.#cancel()
  }

  #onEnd(ending: Ending, wasSteady: boolean): void {
    if (this.#isOver) return
    this.#isOver = isFinal(ending)
    this.#options.onEnd(ending, this.#isOver)
    if (this.#isOver) return
    const wait = wasSteady ? backoff(0, SHORT_WAIT) : backoff(this.#attempt, FIRST_WAIT, LONGEST_WAIT)
    if (!wasSteady) this.#attempt += 1
    this.#cancel = this.#options.clock.after(wait, () => this.open())
  }
}

/** A stream that is merely cut off ends with CANCELLED too, as when an agent has to stop at once. */
function isFinal({ code, isAnswer }: Ending): boolean {
  return code === CODE.INVALID_ARGUMENT || (code === CODE.CANCELLED && isAnswer)
}
