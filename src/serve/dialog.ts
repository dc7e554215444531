/** Two-way streams that answer when they can: messages are heard one at a time, and none is read ahead of its turn. */
import { Fault } from '../base/fault.ts'
import type { Message } from './messages.ts'

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

/** As much of a call as is used here. */
interface OpenCall {
  readonly metadata: { get(name: string): readonly (string | Buffer)[] }
  write(message: Message): boolean
  end(): void
  pause(): unknown
  resume(): unknown
  on(event: 'data', then: (message: Message) => void): unknown
  on(event: 'end' | 'error', then: () => void): unknown
  once(event: 'drain', then: () => void): unknown
}

/** States: open -> ending (the caller says no more, the last message is being heard) -> closed. */
export class OpenDialog implements Dialog {
  readonly onClose: Dialog['onClose']
  readonly #call: OpenCall
  readonly #fail: (fault: Fault) => void
  #isHearing = false
  #isFull = false
  #isEnding = false
  #isClosed = false

  /** `fail` ends the call with a Fault. */
  constructor(call: OpenCall, fail: (fault: Fault) => void, onClose: Dialog['onClose']) {
    this.#call = call
    this.#fail = fail
    this.onClose = onClose
    onClose(() => {
      this.#isClosed = true
    })
  }

  say(message: Message): void {
    if (this.#isClosed || this.#call.write(message)) return
    this.#isFull = true
    this.#call.once('drain', () => {
      this.#isFull = false
      this.#readOn()
    })
  }

  end(fault?: Fault): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (fault) this.#fail(fault)
    else this.#call.end()
  }

  told(name: string): string | undefined {
    const [value, ...more] = this.#call.metadata.get(name)
    return more.length === 0 && typeof value === 'string' ? value : undefined
  }

  /** Reads into `hear` until either side ends the stream. */
  listen(hear: Hear): void {
    this.#call.on('data', (message) => {
      this.#call.pause()
      this.#isHearing = true
      void this.#hear(hear, message)
    })
    this.#call.on('end', () => {
      this.#isEnding = true
      if (!this.#isHearing) this.end()
    })
    this.#call.on('error', () => {})
  }

  async #hear(hear: Hear, message: Message): Promise<void> {
    try {
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
