/** Two-way calls in which the agent sends what is new by itself, not only when it is asked. */
import { Fault } from '../base/fault.ts'
import type { Call, CallReader } from './call.ts'
import type { Message, Method } from './messages.ts'

/** A message, and what to do once its bytes have left or the call has failed. */
export interface Outgoing {
  readonly message: Message
  readonly left?: () => void
}

type Make = () => Outgoing | undefined

/** The sending half. */
export interface Feed {
  /**
   * Sends the message that `make` returns, once what was sent before has left: a slow reader costs one message on its way and one
   * that is not made yet. While one is waiting, further calls change nothing. A Fault that it throws ends the call.
   */
  push(make: Make): void
  end(fault: Fault): void
  /** Calls `then` once the call has ended, whoever ended it. */
  onClose(then: () => void): void
}

/** Hears each message, in order; what it throws ends the call. */
export type Hear = (message: Message) => void

/** Nothing is read while something waits to leave: who does not read is not listened to either. */
export class OpenFeed implements Feed {
  readonly #call: Call
  readonly #method: Method
  readonly #fail: (fault: Fault) => void
  #waiting: Make | undefined
  #isWriting = false
  #isClosed = false

  /** `fail` ends the call with a Fault. */
  constructor(call: Call, method: Method, fail: (fault: Fault) => void) {
    this.#call = call
    this.#method = method
    this.#fail = fail
    call.onClose(() => {
      this.#isClosed = true
      this.#waiting = undefined
    })
  }

  onClose(then: () => void): void {
    this.#call.onClose(then)
  }

  push(make: Make): void {
    if (this.#isClosed) return
    if (this.#isWriting) this.#waiting = make
    else this.#write(make)
  }

  end(fault: Fault): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#fail(fault)
  }

  /** Reads into `hear` until either side ends the call. */
  reader(hear: Hear): CallReader {
    return {
      message: (bytes) => {
        if (!this.#isClosed) hear(this.#method.requestDeserialize(bytes))
      },
      end: () => {
        this.#isClosed = true
        this.#call.finish()
      },
    }
  }

  #write(make: Make): void {
    const made = this.#made(make)
    if (!made) return
    const { message, left } = made
    if (this.#isClosed) {
      left?.()
      return
    }
    this.#isWriting = true
    this.#call.pause()
    this.#call.write(this.#method.responseSerialize(message), () => {
      left?.()
      this.#isWriting = false
      const next = this.#waiting
      this.#waiting = undefined
      if (this.#isClosed) return
      this.#call.resume()
      if (next) this.#write(next)
    })
  }

  #made(make: Make): Outgoing | undefined {
    try {
      return make()
    } catch (caught) {
      this.end(Fault.from(caught))
      return undefined
    }
  }
}
