/**
 * Proof requests on one two-way stream. Calls of one tick leave as one message, and calls that arrive while `WINDOW`
 * messages are unanswered join the next: that is what makes a proof cheap. States: `idle` (no stream; the next call
 * opens one), `open`, `waiting` (for the next try, while calls are pending), `closed`.
 *
 * A request is safe to repeat: what a stream has not answered when it ends is asked again on the next one.
 */
import { backoff } from '../base/backoff.ts'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Agent } from './agent.ts'
import { type Call, CODE, type Ending, type Message } from './grpc.ts'
import { faultOfRefusal, type WireRefusal } from './refusal.ts'

/** One request of a message; `id` is this stream's to set. */
export type ProofItem = { id: number } & Message

export interface AskProofOptions {
  /** How long to wait for the answer, over all tries; 5 s when absent. */
  readonly timeoutMs?: number | undefined
  /** Ends the wait: the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

export interface ProofStreamOptions {
  readonly agent: Agent
  readonly clock: Clock
}

interface Waiting {
  readonly item: ProofItem
  /** Characters: what bounds a message. */
  readonly size: number
  readonly until: Millis
  readonly resolve: (proof: Message) => void
  readonly reject: (error: unknown) => void
  isDone: boolean
  /** Stops listening to the caller's signal, which may outlive many calls. */
  forget: (() => void) | undefined
}

interface Batch {
  readonly calls: readonly Waiting[]
  readonly sentAt: Millis
}

/** The agent takes no more in one message. */
const BATCH_LIMIT = 64
// Two, so that the agent signs one message while the other travels.
const WINDOW = 2
const PENDING_LIMIT = 8_192
// A message is at most 1 MiB for the agent, and a character at most three bytes of UTF-8.
const ITEM_LIMIT = 64 * 1024
const MESSAGE_LIMIT = 256 * 1024
const TIMEOUT: Millis = 5_000
const SILENCE: Millis = 5_000
const FIRST_WAIT: Millis = 100
const LONGEST_WAIT: Millis = 5_000

/** The queue of proof requests and the stream that it drains into. */
export class ProofStream {
  readonly #agent: Agent
  readonly #clock: Clock
  #queue: Waiting[] = []
  #sent: Batch[] = []
  #pending = 0
  #call: Call | undefined
  #isReady = false
  #hasAnswered = false
  #attempt = 0
  #isScheduled = false
  #isClosed = false
  #now: Millis = 0
  #last: Fault | undefined
  #nextSweep = Number.POSITIVE_INFINITY
  #cancelSweep = () => {}
  #cancelWait: (() => void) | undefined

  constructor({ agent, clock }: ProofStreamOptions) {
    this.#agent = agent
    this.#clock = clock
  }

  /** The `Proof` message for `item`, which holds `size` characters; rejects with the agent's refusal as a Fault. */
  ask(item: ProofItem, size: number, options: AskProofOptions): Promise<Message> {
    const refusal = this.#refusal(size)
    if (refusal) return Promise.reject(refusal)
    this.#schedule()
    const { signal, timeoutMs = TIMEOUT } = options
    const until = this.#now + timeoutMs
    return new Promise((resolve, reject) => {
      const call: Waiting = { item, size, until, resolve, reject, isDone: false, forget: undefined }
      this.#queue.push(call)
      this.#pending += 1
      if (until < this.#nextSweep) this.#sweepAt(until)
      if (signal) this.#watch(signal, call)
    })
  }

  /** Ends the stream; pending calls reject with canceled. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#cancelSweep()
    this.#cancelWait?.()
    this.#call?.cancel()
    this.#rejectAll(new Fault('canceled', 'the signer was closed'))
  }

  #refusal(size: number): Fault | undefined {
    if (this.#isClosed) return new Fault('canceled', 'the signer is closed')
    if (size > ITEM_LIMIT) return new Fault('invalid_request', `the request is over ${ITEM_LIMIT} characters`)
    if (this.#pending >= PENDING_LIMIT)
      return new Fault('overloaded', `${PENDING_LIMIT} proof requests wait for an answer already`, {
        action: 'Await proofs before you ask for more.',
        owner: 'caller',
      })
    return undefined
  }

  #watch(signal: AbortSignal, call: Waiting): void {
    const abort = () => this.#settle(call, () => call.reject(signal.reason))
    signal.addEventListener('abort', abort, { once: true })
    call.forget = () => signal.removeEventListener('abort', abort)
    if (signal.aborted) abort()
  }

  /** After the poll phase, all calls of this tick are there, also those that earlier answers led to. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#now = this.#clock.monotonic()
    setImmediate(() => {
      this.#isScheduled = false
      this.#flush()
    })
  }

  #flush(): void {
    if (this.#isClosed || this.#cancelWait || this.#pending === 0) return
    if (this.#isSilent(this.#now)) {
      this.#abandon()
      return
    }
    if (!this.#call) this.#open()
    while (this.#isReady && this.#queue.length > 0 && this.#sent.length < WINDOW) {
      const calls = this.#cut()
      if (calls.length === 0) continue
      this.#sent.push({ calls, sentAt: this.#clock.monotonic() })
      this.#isReady = this.#call?.send({ requests: calls.map(({ item }) => item) }) ?? false
    }
  }

  /** The next calls that fit into one message; they are numbered from 1. */
  #cut(): readonly Waiting[] {
    const calls: Waiting[] = []
    let taken = 0
    let size = 0
    for (const call of this.#queue) {
      if (calls.length === BATCH_LIMIT || size + call.size > MESSAGE_LIMIT) break
      taken += 1
      if (call.isDone) continue
      size += call.size
      call.item.id = calls.push(call)
    }
    this.#queue.splice(0, taken)
    return calls
  }

  #open(): void {
    this.#hasAnswered = false
    this.#call = this.#agent.stream('holdfast.v1.ProofService/SignProofs', {
      onReady: () => {
        this.#isReady = true
        this.#flush()
      },
      onMessage: (message) => this.#onAnswer(message),
      onEnd: (ending) => this.#onEnd(ending),
    })
  }

  #onAnswer(message: Message): void {
    const batch = this.#sent.shift()
    if (!batch) return
    this.#hasAnswered = true
    this.#attempt = 0
    this.#last = undefined
    const results = (message['results'] ?? []) as readonly Result[]
    for (const { id = 0, proof, refusal } of results) {
      const call = batch.calls[id - 1]
      if (!call) continue
      if (proof) this.#settle(call, () => call.resolve(proof))
      else this.#settle(call, () => call.reject(faultOfRefusal(refusal ?? {})))
    }
    for (const call of batch.calls)
      this.#settle(call, () => call.reject(new Fault('bug', 'the agent left a request out of its answer')))
    if (this.#queue.length > 0) this.#schedule()
  }

  #onEnd(ending: Ending): void {
    this.#call = undefined
    this.#isReady = false
    const open = this.#sent.flatMap(({ calls }) => calls).filter(({ isDone }) => !isDone)
    this.#sent = []
    this.#queue = [...open, ...this.#queue]
    if (this.#isClosed || this.#pending === 0) return
    // A stream that has worked ends with its connection, its lease or its agent: a new one may work again.
    if (this.#hasAnswered) this.#flush()
    else if (MAY_PASS.has(ending.code)) this.#wait(ending.fault)
    else this.#rejectAll(ending.fault)
  }

  #wait(fault: Fault): void {
    this.#last = fault
    const wait = backoff(this.#attempt, FIRST_WAIT, LONGEST_WAIT)
    this.#attempt += 1
    this.#cancelWait = this.#clock.after(wait, () => {
      this.#cancelWait = undefined
      this.#flush()
    })
  }

  #settle(call: Waiting, tell: () => void): void {
    if (call.isDone) return
    call.isDone = true
    this.#pending -= 1
    call.forget?.()
    tell()
  }

  #rejectAll(fault: Fault): void {
    const calls = [...this.#sent.flatMap((batch) => batch.calls), ...this.#queue]
    this.#sent = []
    this.#queue = []
    for (const call of calls) this.#settle(call, () => call.reject(fault))
  }

  #sweepAt(until: Millis): void {
    this.#cancelSweep()
    this.#nextSweep = until
    this.#cancelSweep = this.#clock.after(until - this.#clock.monotonic(), () => this.#sweep())
  }

  /** One timer for all calls: it looks who has waited too long, and whether the stream has gone silent. */
  #sweep(): void {
    const now = this.#clock.monotonic()
    this.#nextSweep = Number.POSITIVE_INFINITY
    let next = this.#nextSweep
    for (const call of [...this.#sent.flatMap(({ calls }) => calls), ...this.#queue]) {
      if (call.isDone) continue
      if (call.until <= now) this.#settle(call, () => call.reject(this.#tooLate()))
      else next = Math.min(next, call.until)
    }
    if (next < Number.POSITIVE_INFINITY) this.#sweepAt(next)
    if (this.#isSilent(now)) this.#abandon()
  }

  #isSilent(now: Millis): boolean {
    const oldest = this.#sent[0]
    return oldest !== undefined && now - oldest.sentAt >= SILENCE
  }

  /** Why the last try failed, where there was one: more useful than that time has passed. */
  #tooLate(): Fault {
    if (this.#last) return this.#last
    return new Fault('deadline', 'the agent did not answer in time', {
      action: 'See `holdfast check`; the agent may be stopped or overloaded.',
      owner: 'agent',
    })
  }

  #abandon(): void {
    this.#call?.cancel()
    const fault = new Fault('deadline', 'the agent has stopped answering')
    this.#onEnd({ code: CODE.DEADLINE_EXCEEDED, fault, isAnswer: false })
  }
}

interface Result {
  readonly id?: number
  readonly proof?: Message
  readonly refusal?: WireRefusal
}

/** What a stream that never answered may end with and yet be worth another try. */
const MAY_PASS: ReadonlySet<number> = new Set([
  CODE.OK,
  CODE.CANCELLED,
  CODE.UNKNOWN,
  CODE.DEADLINE_EXCEEDED,
  CODE.INTERNAL,
  CODE.UNAVAILABLE,
])
