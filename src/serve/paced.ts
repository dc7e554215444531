/**
 * A connection whose client is heard in turns. Node's HTTP/1.1 server parses all that was read in one go, up to 64 KiB:
 * thousands of requests, before anybody else is heard. So it is given little at a time, and nothing when the turn is over.
 */
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { type Turn, toDecode } from '../http2/turn.ts'
import { Unread } from '../http2/unread.ts'

/** More than most heads; fewer than sixty requests fit in it. */
const SLICE = 1024

/** A connection as it is heard. */
export interface Paced {
  readonly near: Duplex
  /** Says, in the event of a request, that so many octets of body follow its head: they are heard in larger pieces. */
  expect(octets: number): void
}

/** `socket` as it is heard when `turn` allows it; both end together. */
export function paced(socket: Socket, turn: Turn): Paced {
  const near = new Duplex({
    allowHalfOpen: false,
    // What waits here is heard whenever Node's server wants it, whatever the turn says.
    readableHighWaterMark: 1,
    read: () => reader.readOn(),
    write: (chunk, _encoding, done) => void socket.write(chunk, done),
    writev: (chunks, done) => writeAll(socket, chunks, done),
    final: (done) => void socket.end(done),
    destroy: (error, done) => {
      socket.destroy()
      done(error)
    },
  })
  const reader = new Reader(socket, near, turn)
  socket.on('error', () => near.destroy())
  socket.on('close', () => near.destroy())
  socket.on('timeout', () => near.emit('timeout'))
  // As Node's server takes a socket: its idle time, and the end after the last answer.
  Object.assign(near, {
    setTimeout: (millis: number) => socket.setTimeout(millis),
    destroySoon: () => near.end(() => near.destroy()),
  })
  return { near, expect: (octets) => reader.expect(octets) }
}

/** In one system call, as Node's server means it. */
function writeAll(
  socket: Socket,
  chunks: readonly { readonly chunk: Buffer }[],
  done: (error?: Error | null) => void,
): void {
  const last = chunks.length - 1
  socket.cork()
  for (const [at, { chunk }] of chunks.entries()) socket.write(chunk, at === last ? done : undefined)
  socket.uncork()
}

/** Holds what Node had read before it was told to wait: one chunk, and what came with it. */
class Reader {
  readonly #socket: Socket
  readonly #near: Duplex
  readonly #turn: Turn
  readonly #unread = new Unread()
  #expected = 0
  #isWaiting = false
  #isEnded = false

  constructor(socket: Socket, near: Duplex, turn: Turn) {
    this.#socket = socket
    this.#near = near
    this.#turn = turn
    socket.on('data', (chunk: Buffer) => {
      this.#unread.push(chunk)
      this.readOn()
    })
    socket.on('end', () => {
      this.#isEnded = true
      this.readOn()
    })
  }

  readOn(): void {
    if (this.#isWaiting || this.#near.destroyed) return
    while (this.#unread.size > 0) {
      if (this.#turn.isOpen() && this.#push()) continue
      this.#socket.pause()
      if (!this.#turn.isOpen()) this.#wait()
      return
    }
    if (this.#isEnded) this.#near.push(null)
    else if (this.#socket.isPaused()) this.#socket.resume()
  }

  /** What Node's server has been given, and may have passed on, is less than all of it. */
  expect(octets: number): void {
    this.#expected = Math.max(0, octets - SLICE - this.#near.readableLength)
  }

  #push(): boolean {
    const slice = this.#unread.octets.subarray(0, Math.max(SLICE, this.#expected))
    this.#turn.spend(this.#expected > 0 ? 1 : 1 + toDecode(slice.length))
    this.#expected = Math.max(0, this.#expected - slice.length)
    this.#unread.drop(slice.length)
    return this.#near.push(slice)
  }

  #wait(): void {
    this.#isWaiting = true
    this.#turn.later(() => {
      this.#isWaiting = false
      this.readOn()
    })
  }
}
