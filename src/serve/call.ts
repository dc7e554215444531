/**
 * One gRPC call on an HTTP/2 stream (grpc/doc/PROTOCOL-HTTP2.md): messages in and out, and how it ended. Messages are not
 * compressed: clients do so only when they are told to, and a small one may hide a large one.
 */
import { Fault } from '../base/fault.ts'
import { writeBlock } from '../http2/hpack.ts'
import type { Fields } from '../http2/hpack-table.ts'
import type { Stream, StreamUser } from '../http2/stream.ts'
import { MessageReader } from './message-reader.ts'

/** Who reads a call: one message at a time; what it throws ends the call. */
export interface CallReader {
  /** Part of a buffer that is not kept. */
  message(bytes: Buffer): void
  /** The caller says no more. */
  end(): void
  /** Answers sent are on their way, where `write` said that they wait. */
  drained?(): void
}

/** Ends a call for what cannot be read of it, or what its reader throws. */
export type Refuse = (call: Call, caught: unknown) => void

const ANSWER: Fields = [
  [':status', '200'],
  ['content-type', 'application/grpc+proto'],
]
const DONE: Fields = [['grpc-status', '0']]
const [HEAD, TRAILERS, WHOLE] = [ANSWER, DONE, [...ANSWER, ...DONE]].map(writeBlock) as [
  Buffer,
  Buffer,
  Buffer,
]
const PREFIX = 5

/** States: open -> finished (all is said) -> closed, or open -> closed. */
export class Call implements StreamUser {
  readonly #stream: Stream
  readonly #fields: Fields
  readonly #refuse: Refuse
  readonly #messages = new MessageReader()
  #reader: CallReader | undefined
  #owed = 0
  #isPaused = false
  #isEnded = false
  #hasHead = false
  #isClosed = false
  #closing: (() => void)[] | undefined

  constructor(stream: Stream, fields: Fields, refuse: Refuse) {
    this.#stream = stream
    this.#fields = fields
    this.#refuse = refuse
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** Begins to read; nothing has come before. */
  read(reader: CallReader): void {
    this.#reader = reader
  }

  /** The values of a field of the call's head, in order. */
  field(name: string): readonly string[] {
    const values: string[] = []
    for (const [each, value] of this.#fields) if (each === name) values.push(value)
    return values
  }

  /** No message is read before `resume`; the caller cannot say much more than it has. */
  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    this.#stream.consumed(this.#owed)
    this.#owed = 0
    this.#deliver()
  }

  /**
   * Sends a message, which is wiped; `left` is called once its bytes have left or never can. False when it has to wait for
   * the caller to take some.
   */
  write(message: Buffer, left?: () => void): boolean {
    if (!this.#hasHead) this.#stream.head(HEAD)
    this.#hasHead = true
    const bytes = Buffer.allocUnsafe(PREFIX + message.length)
    bytes[0] = 0
    bytes.writeUInt32BE(message.length, 1)
    message.copy(bytes, PREFIX)
    message.fill(0)
    this.#stream.write(bytes, left)
    return !this.#stream.isFull
  }

  /** Ends it in good order, after what was written. */
  finish(): void {
    this.#stream.finish(this.#hasHead ? TRAILERS : WHOLE)
  }

  /** Ends it with a status (Responses). */
  fail(status: Fields): void {
    this.#stream.finish(writeBlock(this.#hasHead ? status : [...ANSWER, ...status]))
  }

  /** Calls `then` once it has ended, whoever ended it. */
  onClose(then: () => void): void {
    if (this.#isClosed) then()
    else if (this.#closing) this.#closing.push(then)
    else this.#closing = [then]
  }

  data(bytes: Buffer): void {
    this.#messages.push(bytes)
    if (this.#isPaused) this.#owed += bytes.length
    else this.#stream.consumed(bytes.length)
    this.#deliver()
  }

  end(): void {
    this.#isEnded = true
    this.#deliver()
  }

  drained(): void {
    this.#reader?.drained?.()
  }

  closed(): void {
    this.#isClosed = true
    const closing = this.#closing ?? []
    this.#closing = undefined
    for (const then of closing) then()
  }

  #deliver(): void {
    try {
      while (!this.#isPaused && !this.#isClosed) {
        const message = this.#messages.next()
        if (!message) break
        this.#reader?.message(message)
      }
    } catch (caught) {
      this.#refuse(this, caught)
    }
    if (this.#isClosed) return
    if (this.#messages.size > 0 || this.#stream.held > 0) this.#hold()
    if (this.#isEnded && !this.#isPaused) this.#end()
  }

  #end(): void {
    this.#isEnded = false
    try {
      if (this.#messages.size > 0) throw new Fault('invalid_request', 'a call ends within a message')
      this.#reader?.end()
    } catch (caught) {
      this.#refuse(this, caught)
    }
  }

  #hold(): void {
    this.#messages.keep()
    this.#stream.hold(this.#messages.size - this.#stream.held)
  }
}
