/** Two-way calls in which the agent sends what is new by itself, not only when it is asked. */
import { Fault } from '../base/fault.ts'
import type { Message } from './messages.ts'

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

/** The call as the gRPC library gives it. */
export interface Wire {
  write(message: Message, done: (error?: Error | null) => void): unknown
  pause(): unknown
  resume(): unknown
  end(): unknown
  on(event: 'data', then: (message: Message) => void): unknown
  on(event: 'error' | 'end', then: () => void): unknown
}

/** Nothing is read while something waits to leave: who does not read is not listened to either. */
export class WireFeed implements Feed {
  readonly #wire: Wire
  readonly #fail: (caught: unknown) => void
  readonly onClose: Feed['onClose']
  #waiting: Make | undefined
  #isWriting = false
  #isClosed = false

  constructor(wire: Wire, onClose: Feed['onClose'], fail: (caught: unknown) => void) {
    this.#wire = wire
    this.#fail = fail
    this.onClose = onClose
    onClose(() => {
      this.#isClosed = true
      this.#waiting = undefined
    })
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

  /** Begins to read. */
  listen(hear: Hear): void {
    this.#wire.on('data', (message) => {
      if (this.#isClosed) return
      try {
        hear(message)
      } catch (caught) {
        this.end(Fault.from(caught))
      }
    })
    this.#wire.on('error', () => {})
    this.#wire.on('end', () => {
      this.#isClosed = true
      this.#wire.end()
    })
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
    this.#wire.pause()
    this.#wire.write(message, (error) => {
      left?.()
      this.#isWriting = false
      const next = this.#waiting
      this.#waiting = undefined
      if (error || this.#isClosed) return
      this.#wire.resume()
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
