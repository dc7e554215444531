/**
 * The newest value of a stream of full states. A failed or unreadable update leaves the last good value; the agent's
 * word that this process has no identity takes it away (SPIFFE_Workload_API.md s.5.2.1).
 */
import type { Clock } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Agent } from './agent.ts'
import { CODE, type Ending, type Message, type StreamMethod } from './grpc.ts'
import { watchStream } from './watch.ts'

export interface OpenOptions {
  /** Ends the wait for the first update, which has no limit of its own: workloads wait for their identity. */
  readonly signal?: AbortSignal | undefined
}

export interface SourceParts<T> {
  readonly agent: Agent
  readonly clock: Clock
  readonly method: StreamMethod
  /** The value in a message; throws a Fault when it holds none. */
  readonly parse: (message: Message) => T
}

/** Follows one stream. */
export class Source<T> {
  readonly #parse: (message: Message) => T
  readonly #listeners = new Set<() => void>()
  readonly #stop: () => void
  readonly #first: Promise<void>
  #tellFirst: (error?: Fault) => void = () => {}
  #value: T | undefined
  #problem: Fault | undefined
  #isClosed = false

  constructor({ parse, ...parts }: SourceParts<T>) {
    this.#parse = parse
    this.#first = new Promise((resolve, reject) => {
      this.#tellFirst = (error) => (error ? reject(error) : resolve())
    })
    this.#stop = watchStream({
      ...parts,
      onMessage: (message) => this.#onMessage(message),
      onEnd: (ending, isFinal) => this.#onEnd(ending, isFinal),
    })
  }

  /** Why no newer value comes; undefined while all is well. */
  get problem(): Fault | undefined {
    return this.#problem
  }

  /** Resolves with the first value. Throws what ended the stream for good, or why nothing came until `signal` aborted. */
  async ready({ signal }: OpenOptions): Promise<void> {
    const abort = () =>
      this.#tellFirst(this.#problem ?? new Fault('deadline', 'the agent has not answered yet'))
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort, { once: true })
    try {
      await this.#first
    } catch (caught) {
      this.close()
      throw caught
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  /** The newest value; throws why there is none. */
  get(): T {
    if (this.#isClosed) throw new Fault('canceled', 'the source is closed')
    if (this.#value === undefined) throw this.#problem ?? new Fault('not_ready')
    return this.#value
  }

  onUpdated(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  close(): void {
    this.#isClosed = true
    this.#listeners.clear()
    this.#stop()
  }

  #onMessage(message: Message): void {
    try {
      this.#value = this.#parse(message)
    } catch (caught) {
      this.#problem = Fault.from(caught)
      return
    }
    this.#problem = undefined
    this.#tellFirst()
    for (const listener of [...this.#listeners]) listener()
  }

  #onEnd({ code, fault }: Ending, isFinal: boolean): void {
    this.#problem = fault
    if (isFinal) this.#tellFirst(fault)
    if (code !== CODE.PERMISSION_DENIED || this.#value === undefined) return
    this.#value = undefined
    for (const listener of [...this.#listeners]) listener()
  }
}
