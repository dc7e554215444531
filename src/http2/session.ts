/**
 * One connection of an HTTP/2 client (RFC 9113), served. Whoever answers is given streams; frames, header blocks and flow
 * control stay here. All that a client can make the agent hold is bounded: streams, a header block, unread data, unsent
 * answers; and how often it may give up what it asked for.
 */
import type { Duplex } from 'node:stream'
import type { Clock, Millis } from '../base/clock.ts'
import { Churn } from './churn.ts'
import { CutStreams } from './cut-streams.ts'
import {
  CODE,
  type Code,
  ConnectionError,
  FLAG,
  type Frame,
  frame,
  StreamError,
  TYPE,
  unpadded,
  wordFrame,
} from './frame.ts'
import { FrameReader } from './frame-reader.ts'
import { type HeaderBlock, HeaderBlocks } from './header-blocks.ts'
import { HpackError } from './hpack-error.ts'
import { Outbox } from './outbox.ts'
import { areTrailers, type RequestHead, requestHead } from './request-fields.ts'
import { settingsOf, settingsTaken, windowIn } from './settings.ts'
import { Stream, type StreamUser, type StreamWire, WINDOW, WINDOW_LIMIT } from './stream.ts'
import { costOf, type Turn } from './turn.ts'

export interface SessionOptions {
  readonly clock: Clock
  readonly turn: Turn
  /** SETTINGS_MAX_CONCURRENT_STREAMS. */
  readonly streams: number
  /** Who answers a request; undefined when it has been answered or reset. */
  readonly open: (stream: Stream, head: RequestHead) => StreamUser | undefined
  /** Counts octets that are held for the client, below zero when they are not any more; whether that is not too much. */
  readonly hold: (octets: number) => boolean
  /** Hears of what should not have happened; it ends the connection. */
  readonly onBug: (caught: unknown) => void
}

/** So that it is seldom told of what was taken: each time would be a write of its own. */
const CONNECTION_WINDOW = 1024 * 1024
/** What may be held for the client in all: messages that are not whole, or not read yet. */
const HELD_LIMIT = 4 * 1024 * 1024

/** How long a client may take what is still to be said when its connection ends. */
const PATIENCE: Millis = 1_000

/** States: open -> leaving (no new streams) -> closed. */
export class Session implements StreamWire {
  readonly #socket: Duplex
  readonly #options: SessionOptions
  readonly #reader: FrameReader
  readonly #blocks = new HeaderBlocks()
  readonly #outbox: Outbox
  readonly #churn: Churn
  readonly #streams = new Map<number, Stream>()
  readonly #waiting = new Set<Stream>()
  readonly #cut = new CutStreams()
  /** The newest that was begun, and the newest that was served: none is after leave(). */
  #lastStream = 0
  #lastServed = 0
  /** Of the newest request: a client that repeats itself has its head checked once. */
  #lastHead: RequestHead | undefined
  #toSend = WINDOW
  #toReceive = CONNECTION_WINDOW
  #streamWindow = WINDOW
  #held = 0
  #isPumpDue = false
  /** For a turn in which to read on. */
  #isWaiting = false
  #isLeaving = false
  #isEnding = false
  #isClosed = false

  /** Begins to serve `socket`, of which nothing has been read. */
  constructor(socket: Duplex, options: SessionOptions) {
    this.#socket = socket
    this.#options = options
    this.#outbox = new Outbox(socket, () => this.#drained())
    this.#churn = new Churn(options.clock)
    this.#reader = new FrameReader((received) => this.#take(received))
    this.#outbox.send(settingsOf(options.streams))
    this.#outbox.send(wordFrame(TYPE.windowUpdate, 0, CONNECTION_WINDOW - WINDOW))
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    socket.on('end', () => this.destroy())
    socket.on('error', () => this.destroy())
    socket.on('close', () => this.destroy())
    socket.resume()
  }

  get room(): number {
    return this.#outbox.isFull ? 0 : this.#toSend
  }

  send(sent: Frame, left?: () => void): void {
    if (sent.type === TYPE.data) this.#toSend -= sent.payload.length
    this.#outbox.send(sent, left)
  }

  wait(stream: Stream): void {
    this.#waiting.add(stream)
  }

  hold(stream: Stream, octets: number): void {
    this.#held += octets
    const isBounded = this.#options.hold(octets) && this.#held <= HELD_LIMIT
    if (octets > 0 && !isBounded) throw new StreamError(stream.id, CODE.calm)
  }

  over(stream: Stream): void {
    this.#streams.delete(stream.id)
    this.#waiting.delete(stream)
    if (!stream.isEnded) this.#cut.add(stream.id)
    this.#held -= stream.held
    if (stream.held > 0) this.#options.hold(-stream.held)
    if (this.#isLeaving && this.#streams.size === 0) this.#end()
  }

  /** Takes no new streams and closes when those that are open have ended (s.6.8). */
  leave(): void {
    if (this.#isLeaving || this.#isClosed) return
    this.#isLeaving = true
    this.#outbox.send(goAway(this.#lastServed, CODE.none))
    if (this.#streams.size === 0) this.#end()
  }

  /** Ends it and all its streams now. */
  destroy(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#isEnding = true
    this.#socket.destroy()
    for (const stream of [...this.#streams.values()]) stream.close()
  }

  #read(chunk: Buffer): void {
    if (this.#isEnding) return
    this.#reader.push(chunk)
    if (!this.#isWaiting) this.#readOn()
  }

  /** Reads what came, as far as the turn allows, and while the client takes answers: each frame may want one. */
  #readOn(): void {
    if (this.#isEnding) return
    try {
      const isMore = this.#reader.read(this.#goesOn)
      if (isMore && !this.#options.turn.isOpen()) this.#waitForTurn()
    } catch (caught) {
      this.#fail(this.#codeOf(caught))
      return
    }
    // Once for all that was read: what a frame of 13 bytes may cost must not depend on how many streams wait.
    if (this.#isPumpDue) this.#pump()
    if (this.#isWaiting || this.#outbox.isFull) this.#socket.pause()
    else if (this.#socket.isPaused()) this.#socket.resume()
  }

  readonly #goesOn = () => !this.#isEnding && !this.#outbox.isFull && this.#options.turn.isOpen()

  #waitForTurn(): void {
    this.#isWaiting = true
    this.#options.turn.later(() => {
      this.#isWaiting = false
      this.#readOn()
    })
  }

  #drained(): void {
    if (!this.#isWaiting) this.#readOn()
    this.#pump()
  }

  /** Goes round those that wait; who still does enters again. */
  #pump(): void {
    this.#isPumpDue = false
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const stream of waiting) stream.pump()
  }

  #take(received: Frame): void {
    // Whoever answers may have ended it, in the middle of what was read.
    if (this.#isEnding) return
    this.#blocks.check(received.type)
    this.#options.turn.spend(costOf(received))
    try {
      this.#takers[received.type]?.(received)
    } catch (caught) {
      if (!(caught instanceof StreamError)) throw caught
      this.#churn.count()
      this.#reset(caught)
    }
  }

  #reset({ stream, code }: StreamError): void {
    const open = this.#streams.get(stream)
    if (open) open.reset(code)
    else this.#outbox.send(wordFrame(TYPE.reset, stream, code))
  }

  /** By type; frames of others are ignored (s.5.5). */
  readonly #takers: readonly ((received: Frame) => void)[] = [
    (received) => this.#data(received),
    (received) => this.#request(this.#blocks.begin(received)),
    (received) => this.#priority(received),
    (received) => this.#resetByClient(received),
    (received) => this.#settings(received),
    () => {
      throw new ConnectionError(CODE.protocol)
    },
    (received) => this.#ping(received),
    ({ stream, payload }) => {
      if (stream !== 0) throw new ConnectionError(CODE.protocol)
      if (payload.length < 8) throw new ConnectionError(CODE.frameSize)
    },
    (received) => this.#widen(received),
    (received) => this.#request(this.#blocks.go(received)),
  ]

  #data(received: Frame): void {
    const { flags, payload, stream: id } = received
    this.#checkKnown(id)
    this.#toReceive -= payload.length
    if (this.#toReceive < 0) throw new ConnectionError(CODE.flowControl)
    // The window of the connection is for all: what one stream does not read is bounded by its own.
    const owed = CONNECTION_WINDOW - this.#toReceive
    if (owed >= CONNECTION_WINDOW / 2) {
      this.#outbox.send(wordFrame(TYPE.windowUpdate, 0, owed))
      this.#toReceive = CONNECTION_WINDOW
    }
    const body = unpadded(received)
    const isLast = (flags & FLAG.endStream) !== 0
    const stream = this.#streams.get(id)
    if (stream) stream.receive(body, payload.length, isLast)
    else this.#discard(id, isLast)
  }

  /** Throws StreamError for a stream that the client has ended. */
  #discard(id: number, isLast: boolean): void {
    if (!this.#cut.has(id)) throw new StreamError(id, CODE.streamClosed)
    if (isLast) this.#cut.delete(id)
  }

  #request(block: HeaderBlock | undefined): void {
    if (!block) return
    const { fields, isLast, stream: id } = block
    const open = this.#streams.get(id)
    if (open) {
      if (!isLast || !fields || !areTrailers(fields)) throw new StreamError(id, CODE.protocol)
      open.receiveEnd()
      return
    }
    if (this.#cut.delete(id)) return
    if (id <= this.#lastStream) throw new ConnectionError(CODE.streamClosed)
    this.#lastStream = id
    try {
      if (!this.#isLeaving) this.#begin(block)
    } finally {
      // Where it was not begun, or is over already, the client may be saying the rest of it.
      if (isLast) this.#cut.delete(id)
      else if (!this.#streams.has(id)) this.#cut.add(id)
    }
  }

  /** Throws StreamError for a request that is not served. */
  #begin({ fields, isLast, stream: id }: HeaderBlock): void {
    this.#lastServed = id
    if (this.#streams.size >= this.#options.streams) throw new StreamError(id, CODE.refused)
    const head = fields && (this.#lastHead?.fields === fields ? this.#lastHead : requestHead(fields))
    this.#lastHead = head
    if (!head) throw new StreamError(id, fields ? CODE.protocol : CODE.calm)
    const stream = new Stream(id, this, { window: this.#streamWindow, length: head.length })
    this.#streams.set(id, stream)
    stream.attend(this.#options.open(stream, head))
    if (isLast) stream.receiveEnd()
  }

  #priority({ payload, stream }: Frame): void {
    if (stream === 0) throw new ConnectionError(CODE.protocol)
    if (payload.length !== 5) throw new StreamError(stream, CODE.frameSize)
  }

  #resetByClient({ payload, stream }: Frame): void {
    this.#checkKnown(stream)
    if (payload.length !== 4) throw new ConnectionError(CODE.frameSize)
    const open = this.#streams.get(stream)
    // What has been answered is not given up: some proxies end each call so, Envoy's ext_proc without its graceful close.
    if (open) this.#churn.count()
    open?.close()
    this.#cut.delete(stream)
  }

  #settings({ flags, payload, stream }: Frame): void {
    if (stream !== 0) throw new ConnectionError(CODE.protocol)
    if (payload.length % 6 !== 0 || (flags & FLAG.ack && payload.length > 0))
      throw new ConnectionError(CODE.frameSize)
    if (flags & FLAG.ack) return
    const window = windowIn(payload) ?? this.#streamWindow
    this.#outbox.send(settingsTaken())
    if (window === this.#streamWindow) return
    this.#churn.count()
    this.#setWindow(window)
  }

  /** s.6.9.2: it counts for streams that are open too. */
  #setWindow(window: number): void {
    const more = window - this.#streamWindow
    this.#streamWindow = window
    for (const stream of this.#streams.values()) {
      if (!stream.takes(more)) throw new ConnectionError(CODE.flowControl)
      stream.widen(more)
    }
    this.#isPumpDue = true
  }

  #ping({ flags, payload, stream }: Frame): void {
    if (stream !== 0) throw new ConnectionError(CODE.protocol)
    if (payload.length !== 8) throw new ConnectionError(CODE.frameSize)
    if (!(flags & FLAG.ack)) this.#outbox.send(frame(TYPE.ping, FLAG.ack, 0, Buffer.from(payload)))
  }

  #widen({ payload, stream: id }: Frame): void {
    if (payload.length !== 4) throw new ConnectionError(CODE.frameSize)
    const more = payload.readUInt32BE(0) & 0x7fffffff
    if (id !== 0) {
      this.#checkKnown(id)
      if (more === 0) throw new StreamError(id, CODE.protocol)
      const stream = this.#streams.get(id)
      if (stream && !stream.takes(more)) throw new StreamError(id, CODE.flowControl)
      stream?.widen(more)
      stream?.pump()
      return
    }
    if (more === 0) throw new ConnectionError(CODE.protocol)
    this.#toSend += more
    if (this.#toSend > WINDOW_LIMIT) throw new ConnectionError(CODE.flowControl)
    this.#isPumpDue = true
  }

  /** Throws for a stream that was never begun, and for the connection as a whole. */
  #checkKnown(stream: number): void {
    if (stream === 0 || stream % 2 === 0 || stream > this.#lastStream)
      throw new ConnectionError(CODE.protocol)
  }

  /** Says why, as far as the client listens, and ends. */
  #fail(code: Code): void {
    this.#outbox.send(goAway(this.#lastServed, code))
    this.#end()
  }

  /** Closes when all has left that was said, or the client does not take it; what is still said is not heard. */
  #end(): void {
    if (this.#isEnding) return
    this.#isEnding = true
    this.#outbox.flush()
    const cancel = this.#options.clock.after(PATIENCE, () => this.destroy())
    this.#socket.end(() => {
      cancel()
      this.destroy()
    })
  }

  #codeOf(caught: unknown): Code {
    if (caught instanceof ConnectionError) return caught.code
    if (caught instanceof HpackError) return CODE.compression
    this.#options.onBug(caught)
    return CODE.internal
  }
}

function goAway(last: number, code: Code): Frame {
  const payload = Buffer.alloc(8)
  payload.writeUInt32BE(last)
  payload.writeUInt32BE(code, 4)
  return frame(TYPE.goAway, 0, 0, payload)
}
