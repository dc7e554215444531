/** One request and its answer (RFC 9113 s.5): what may be sent when (s.5.2), and which side has said its last. */
import {
  CODE,
  type Code,
  FLAG,
  FRAME_LIMIT,
  type Frame,
  frame,
  StreamError,
  TYPE,
  wordFrame,
} from './frame.ts'

/** s.6.9.2, of both sides where nobody says another. */
export const WINDOW = 65_535
export const WINDOW_LIMIT = 2 ** 31 - 1
/** Of what was taken the client is told when it is this much. */
const OWED = WINDOW >> 1

/** Who answers a stream. */
export interface StreamUser {
  /** Some of the body, in order; who keeps it copies it. What was taken is said by `consumed`. */
  data(bytes: Buffer): void
  /** The client has said its last. */
  end(): void
  /** Data that waited for the client to take some is on its way. */
  drained(): void
  /** It is over, whoever ended it; called once. */
  closed(): void
}

/** The connection, as a stream sees it. */
export interface StreamWire {
  /** How many octets of data the connection takes now. */
  readonly room: number
  /** Sends a frame, whose payload is the connection's from now on; `left` is called once it has left, or never can. */
  send(sent: Frame, left?: () => void): void
  /** Has `stream` pumped when there may be room. */
  wait(stream: Stream): void
  /** Counts what is held for the client; throws StreamError where it is too much. */
  hold(stream: Stream, octets: number): void
  over(stream: Stream): void
}

/** How a stream begins. */
export interface StreamStart {
  /** What the client takes of a stream before it says more. */
  readonly window: number
  /** How long its body is, where it says so. */
  readonly length: number | undefined
}

/** Data on its way, sent up to `at`. */
interface Waiting {
  readonly bytes: Buffer
  readonly left: (() => void) | undefined
  at: number
}

/** States: open -> ended by one side -> closed, or open -> closed. */
export class Stream {
  readonly id: number
  readonly #wire: StreamWire
  readonly #queue: Waiting[] = []
  readonly #length: number | undefined
  #user: StreamUser | undefined
  #came = 0
  #toSend: number
  #toReceive = WINDOW
  #owed = 0
  #held = 0
  #last: Buffer | undefined
  #isEnded = false
  #isClosed = false

  constructor(id: number, wire: StreamWire, { window, length }: StreamStart) {
    this.id = id
    this.#wire = wire
    this.#toSend = window
    this.#length = length
  }

  /** Whether data waits for the client to take some. */
  get isFull(): boolean {
    return this.#queue.length > 0
  }

  /** Whether the client has said its last. */
  get isEnded(): boolean {
    return this.#isEnded
  }

  /** Octets that are held for the client. */
  get held(): number {
    return this.#held
  }

  /** Has `user` hear of it; who answers may have ended it before. */
  attend(user: StreamUser | undefined): void {
    this.#user = user
    if (this.#isClosed) user?.closed()
  }

  /** Sends the head of the answer. */
  head(block: Buffer): void {
    if (!this.#isClosed) this.#headers(block, 0)
  }

  /** Sends `bytes`, then wiped, when the client takes them; `left` is called once they have left, or never can. */
  write(bytes: Buffer, left?: () => void): void {
    if (this.#isClosed || this.#last) {
      bytes.fill(0)
      left?.()
      return
    }
    this.#queue.push({ bytes, left, at: 0 })
    this.#pump()
  }

  /** Sends the last of the answer, a header block, after all data. */
  finish(block: Buffer): void {
    if (this.#isClosed || this.#last) return
    this.#last = block
    this.#pump()
  }

  /** Ends it unanswered. */
  reset(code: Code): void {
    if (this.#isClosed) return
    this.#wire.send(wordFrame(TYPE.reset, this.id, code))
    this.close()
  }

  /** `octets` of the body need no more room: the client may send as many more. */
  consumed(octets: number): void {
    this.#owed += octets
    if (this.#isEnded || this.#isClosed || this.#owed < OWED) return
    this.#wire.send(wordFrame(TYPE.windowUpdate, this.id, this.#owed))
    this.#toReceive += this.#owed
    this.#owed = 0
  }

  /** `octets` more (or less, below zero) are held for the client; throws StreamError where that is too much. */
  hold(octets: number): void {
    if (this.#isClosed) return
    this.#held += octets
    this.#wire.hold(this, octets)
  }

  /** Data came: `size` with its padding. Throws StreamError. */
  receive(body: Buffer, size: number, isLast: boolean): void {
    if (this.#isEnded) throw new StreamError(this.id, CODE.streamClosed)
    this.#toReceive -= size
    if (this.#toReceive < 0) throw new StreamError(this.id, CODE.flowControl)
    if (size > body.length) this.consumed(size - body.length)
    this.#came += body.length
    if (body.length > 0) this.#user?.data(body)
    if (isLast) this.receiveEnd()
  }

  /** Throws StreamError. */
  receiveEnd(): void {
    if (this.#isEnded) throw new StreamError(this.id, CODE.streamClosed)
    this.#isEnded = true
    // s.8.1.1.
    if (this.#length !== undefined && this.#length !== this.#came)
      throw new StreamError(this.id, CODE.protocol)
    if (!this.#isClosed) this.#user?.end()
  }

  /** Whether the client may take `more` octets. */
  takes(more: number): boolean {
    return this.#toSend + more <= WINDOW_LIMIT
  }

  /** The client takes `more` octets, or less by that many (s.6.9.2). */
  widen(more: number): void {
    this.#toSend += more
  }

  /** Sends what it can. */
  pump(): void {
    if (this.#isClosed || !this.isFull) return
    this.#pump()
    if (!this.#isClosed && !this.isFull) this.#user?.drained()
  }

  /** Nothing is sent any more. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#wire.over(this)
    for (const { bytes, left } of this.#queue.splice(0)) {
      bytes.fill(0)
      left?.()
    }
    this.#user?.closed()
  }

  #pump(): void {
    for (let first = this.#queue[0]; first; first = this.#queue[0]) {
      const rest = first.bytes.length - first.at
      const size = Math.min(rest, FRAME_LIMIT, this.#toSend, this.#wire.room)
      if (size <= 0) {
        this.#wire.wait(this)
        return
      }
      this.#data(first, size, size === rest)
    }
    if (this.#last) this.#finish(this.#last)
  }

  #data(first: Waiting, size: number, isWhole: boolean): void {
    const { at, bytes, left } = first
    this.#toSend -= size
    first.at += size
    this.#wire.send(frame(TYPE.data, 0, this.id, bytes.subarray(at, at + size)), isWhole ? left : undefined)
    if (isWhole) this.#queue.shift()
  }

  #finish(block: Buffer): void {
    this.#headers(block, FLAG.endStream)
    // s.8.1: what the client still says is of no use.
    if (!this.#isEnded) this.#wire.send(wordFrame(TYPE.reset, this.id, CODE.none))
    this.close()
  }

  #headers(block: Buffer, flags: number): void {
    const first = block.subarray(0, FRAME_LIMIT)
    const isWhole = first.length === block.length
    this.#wire.send(frame(TYPE.headers, isWhole ? flags | FLAG.endHeaders : flags, this.id, first))
    for (let at = FRAME_LIMIT; at < block.length; at += FRAME_LIMIT) {
      const next = block.subarray(at, at + FRAME_LIMIT)
      const end = at + FRAME_LIMIT >= block.length ? FLAG.endHeaders : 0
      this.#wire.send(frame(TYPE.continuation, end, this.id, next))
    }
  }
}
