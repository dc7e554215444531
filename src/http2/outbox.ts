/**
 * What leaves on one connection: whatever is said in one go of the event loop leaves in one write. Data is wiped when it
 * has left: keys are among it.
 */
import type { Duplex } from 'node:stream'
import { FRAME_HEAD, type Frame, TYPE, writeFrame } from './frame.ts'

/** More than this is not taken from those who can wait. */
const FULL = 64 * 1024

/** Of one connection. */
export class Outbox {
  readonly #socket: Duplex
  readonly #onRoom: () => void
  #frames: Frame[] = []
  #size = 0
  #lefts: (() => void)[] = []

  /** `onRoom` is called when it has been full and is not any more. */
  constructor(socket: Duplex, onRoom: () => void) {
    this.#socket = socket
    this.#onRoom = onRoom
    socket.on('drain', onRoom)
  }

  /** Whether there is more than the client takes now. */
  get isFull(): boolean {
    return this.#size + this.#socket.writableLength >= FULL
  }

  /** The payload is the outbox's from now on; `left` is called once it has left, or never can. */
  send(sent: Frame, left?: () => void): void {
    if (this.#frames.length === 0) process.nextTick(() => this.flush())
    this.#frames.push(sent)
    this.#size += FRAME_HEAD + sent.payload.length
    if (left) this.#lefts.push(left)
  }

  /** Writes what there is now. */
  flush(): void {
    if (this.#frames.length === 0) return
    const wasFull = this.isFull
    const [bytes, lefts] = [this.#take(), this.#lefts]
    this.#lefts = []
    const done = () => {
      bytes.fill(0)
      for (const left of lefts) left()
    }
    if (this.#socket.writable) this.#socket.write(bytes, done)
    else done()
    // What the socket has taken at once it never calls drained.
    if (wasFull && !this.isFull) this.#onRoom()
  }

  /** One buffer for all: each of its own costs a µs. */
  #take(): Buffer {
    const [frames, bytes] = [this.#frames, Buffer.allocUnsafe(this.#size)]
    this.#frames = []
    this.#size = 0
    let at = 0
    for (const sent of frames) {
      at = writeFrame(sent, bytes, at)
      if (sent.type === TYPE.data) sent.payload.fill(0)
    }
    return bytes
  }
}
