/**
 * What leaves on one connection: whatever is said in one go of the event loop leaves in one write. Octets are wiped when
 * they have left: keys are among them.
 */
import type { Duplex } from 'node:stream'

/** More than this is not taken from those who can wait. */
const FULL = 64 * 1024

/** Of one connection. */
export class Outbox {
  readonly #socket: Duplex
  readonly #onRoom: () => void
  #parts: Buffer[] = []
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

  /** `bytes` are the outbox's from now on; `left` is called once they have left, or never can. */
  send(bytes: Buffer, left?: () => void): void {
    if (this.#parts.length === 0) process.nextTick(() => this.flush())
    this.#parts.push(bytes)
    this.#size += bytes.length
    if (left) this.#lefts.push(left)
  }

  /** Writes what there is now. */
  flush(): void {
    if (this.#parts.length === 0) return
    const wasFull = this.isFull
    const [parts, lefts] = [this.#parts, this.#lefts]
    this.#parts = []
    this.#size = 0
    this.#lefts = []
    const bytes = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts)
    if (parts.length > 1) for (const part of parts) part.fill(0)
    const done = () => {
      bytes.fill(0)
      for (const left of lefts) left()
    }
    if (this.#socket.writable) this.#socket.write(bytes, done)
    else done()
    // What the socket has taken at once it never calls drained.
    if (wasFull && !this.isFull) this.#onRoom()
  }
}
