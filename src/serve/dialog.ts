/** Two-way streams that answer when they can: messages are heard one at a time, and none is read ahead of its turn. */
import { Fault } from '../base/fault.ts'
import type { Call, CallReader } from './call.ts'
import type { Message, Method } from './messages.ts'

/** The agent's side of one open stream. */
export interface Dialog {
  /** Says `message`; nothing once the stream has ended. */
  say(message: Message): void
  /** Ends it: in good order, or with the Fault that says why. */
  end(fault?: Fault): void
  /** Calls `then` once the stream has ended, whoever ended it. */
  onClose(then: () => void): void
  /** What the caller said of the stream when it opened it, where it said it once. */
  told(name: string): string | undefined
}

/** Hears one message; the next is read when this is over. What it throws ends the stream. */
export type Hear = (message: Message) => void | Promise<void>

/** States: open -> ending (the caller says no more, the last message is being heard) -> closed. */
export class OpenDialog implements Dialog {
  readonly #call: Call
  readonly #method: Method
  readonly #fail: (fault: Fault) => void
  readonly #enter: () => Promise<void> | undefined
  #isHearing = false
  #isFull = false
  #isEnding = false
  #isClosed = false

  /** `fail` ends the call with a Fault; `enter` says when a message may be heard, where that is not now. */
  constructor(
    call: Call,
    method: Method,
    fail: (fault: Fault) => void,
    enter: () => Promise<void> | undefined,
  ) {
    this.#call = call
    this.#method = method
    this.#fail = fail
    this.#enter = enter
    call.onClose(() => {
      this.#isClosed = true
    })
  }

  onClose(then: () => void): void {
    this.#call.onClose(then)
  }

  say(message: Message): void {
    if (!this.#isClosed) this.#isFull = !this.#call.write(this.#method.responseSerialize(message))
  }

  end(fault?: Fault): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (fault) this.#fail(fault)
    else this.#call.finish()
  }

  told(name: string): string | undefined {
    const [value, ...more] = this.#call.field(name)
    return more.length === 0 ? value : undefined
  }

  /** Reads into `hear` until either side ends the call. */
  reader(hear: Hear): CallReader {
    return {
      message: (bytes) => {
        this.#call.pause()
        this.#isHearing = true
        void this.#hear(hear, bytes)
      },
      end: () => {
        this.#isEnding = true
        if (!this.#isHearing) this.end()
      },
      drained: () => {
        this.#isFull = false
        this.#readOn()
      },
    }
  }

  async #hear(hear: Hear, bytes: Buffer): Promise<void> {
    try {
      const message = this.#method.requestDeserialize(bytes)
      const wait = this.#enter()
      if (wait) await wait
      if (!this.#isClosed) await hear(message)
    } catch (caught) {
      this.end(Fault.from(caught))
    }
    this.#isHearing = false
    if (this.#isEnding) this.end()
    else this.#readOn()
  }

  /** A caller that takes no answers is not read either. */
  #readOn(): void {
    if (!this.#isHearing && !this.#isFull && !this.#isClosed) this.#call.resume()
  }
}
