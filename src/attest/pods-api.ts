/**
 * The Pods API of a kubelet (KEP-4188): gRPC on a unix socket of the node, for which no token, no right and no API server
 * is needed. The list is the truth; the watch only says when to ask for it. DELETED means that the containers of a pod have
 * ended: a Job that is done is still listed, a pod that was deleted by force is not listed long before. Events may be lost.
 */
import { backoff } from '../base/backoff.ts'
import type { Clock, Millis } from '../base/clock.ts'
import type { PodList } from './pod-list.ts'
import { parsePodMessages } from './pod-messages.ts'
import { type PodLists, parseChanged } from './pod-source.ts'
import { isRateLimit, podsApiFault, trustedSocket } from './pods-api-trouble.ts'

/** gRPC with messages as bytes, on one socket. */
export interface PodsApiDoor {
  /** The answer; rejects with an Error that has the `code` and `details` of gRPC. */
  unary(
    method: string,
    request: Buffer,
    options: { readonly timeout: Millis; readonly signal: AbortSignal },
  ): Promise<Buffer>
  /** Opens a stream of the server; `onEnd` comes once, never after `cancel`. */
  stream(
    method: string,
    request: Buffer,
    listener: { readonly onMessage: () => void; readonly onEnd: () => void },
  ): PodsApiStream
  close(): void
}

export interface PodsApiStream {
  pause(): void
  resume(): void
  cancel(): void
}

export interface PodsApiOptions {
  readonly socket: string
  readonly connect: () => Promise<PodsApiDoor>
  readonly clock: Clock
  /** Of one list. */
  readonly timeout: Millis
  readonly maxBytes: number
}

const LIST = 'v1alpha1.Pods/ListPods'
const WATCH = 'v1alpha1.Pods/WatchPods'
/** Both requests have no members. */
const EMPTY = Buffer.alloc(0)
/** The kubelet allows 100 a second and 10 at once, to all who ask together. */
const LIMITED_TRIES = 5
/** What is read of the watch before the rest waits for the end of `WINDOW`. */
const EVENTS_LIMIT = 256
const WINDOW: Millis = 100
/** A watch that lasted so long is opened again soon, as if for the first time. */
const LASTING: Millis = 10_000

/** Asks the kubelet behind one socket. */
export class PodsApi implements PodLists {
  readonly #options: PodsApiOptions
  readonly #parse: (bytes: Buffer) => PodList
  #door: Promise<PodsApiDoor> | undefined
  #stream: PodsApiStream | undefined
  #isClosed = false
  #events = 0
  #opened: Millis = 0
  #attempt = 0
  #cancel = () => {}

  constructor(options: PodsApiOptions) {
    this.#options = options
    this.#parse = parseChanged(parsePodMessages)
  }

  /** Throws pod_facts_unavailable, canceled. */
  async ask(signal: AbortSignal): Promise<PodList> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return this.#parse(await this.#list(signal))
      } catch (error) {
        signal.throwIfAborted()
        if (!isRateLimit(error) || attempt + 1 >= LIMITED_TRIES) throw podsApiFault(error, this.#options)
        await this.#pause(backoff(attempt, 50, 500))
      }
    }
  }

  listen(ring: () => void): void {
    void this.#open(ring)
  }

  close(): void {
    this.#isClosed = true
    this.#cancel()
    this.#stream?.cancel()
    this.#door?.then(
      (door) => door.close(),
      () => {},
    )
  }

  async #list(signal: AbortSignal): Promise<Buffer> {
    const { timeout } = this.#options
    const door = await this.#trusted()
    return door.unary(LIST, EMPTY, { timeout, signal })
  }

  /** Whoever can put a socket there decides who every pod is. */
  #trusted(): Promise<PodsApiDoor> {
    trustedSocket(this.#options.socket)
    this.#door ??= this.#options.connect()
    return this.#door
  }

  async #open(ring: () => void): Promise<void> {
    try {
      const door = await this.#trusted()
      if (this.#isClosed) return
      this.#opened = this.#options.clock.monotonic()
      const onMessage = () => {
        this.#count()
        ring()
      }
      this.#stream = door.stream(WATCH, EMPTY, { onMessage, onEnd: () => this.#again(ring) })
    } catch {
      // The list says the same, and to people.
      this.#again(ring)
    }
  }

  /** The kubelet may have gone, or have dropped a watcher that was slow: the list says which. */
  #again(ring: () => void): void {
    if (this.#isClosed) return
    const { clock } = this.#options
    const hasLasted = this.#stream !== undefined && clock.monotonic() - this.#opened > LASTING
    this.#stream = undefined
    this.#events = 0
    ring()
    this.#attempt = hasLasted ? 0 : this.#attempt + 1
    this.#cancel()
    this.#cancel = clock.after(backoff(this.#attempt, 200, 10_000), () => void this.#open(ring))
  }

  /** A server that never stops sending gets no more than its share of the agent. */
  #count(): void {
    this.#events += 1
    if (this.#events === 1) this.#window()
    if (this.#events === EVENTS_LIMIT) this.#stream?.pause()
  }

  #window(): void {
    this.#cancel()
    this.#cancel = this.#options.clock.after(WINDOW, () => {
      this.#events = 0
      this.#stream?.resume()
    })
  }

  #pause(wait: Millis): Promise<void> {
    return new Promise((resolve) => void this.#options.clock.after(wait, resolve))
  }
}
