/** What a client sends, in any pieces, as frames. Holds at most one that is not whole. */
import { CODE, ConnectionError, FRAME_HEAD, FRAME_LIMIT, type Frame, PREFACE, TYPE } from './frame.ts'

/** A frame in more pieces is joined before it is whole: each costs more than the octet it may hold. */
const PARTS_LIMIT = 64

/** Of one connection. */
export class FrameReader {
  readonly #take: (frame: Frame) => void
  readonly #parts: Buffer[] = []
  #size = 0
  #wanted = PREFACE.length
  #isStarted = false
  #isFirst = true

  /** `take` is given each frame, in order; what it throws ends the reading. */
  constructor(take: (frame: Frame) => void) {
    this.#take = take
  }

  /** Throws ConnectionError, and what `take` throws. */
  push(chunk: Buffer): void {
    this.#size += chunk.length
    this.#parts.push(chunk)
    if (this.#parts.length > PARTS_LIMIT) this.#join()
    if (this.#size < this.#wanted) return
    const data = this.#join()
    this.#parts.length = 0
    const used = this.#read(data)
    this.#size = data.length - used
    // A copy: what is left is small and must not keep the large buffer it came in.
    if (this.#size > 0) this.#parts.push(Buffer.from(data.subarray(used)))
  }

  /** What is there, in one piece. */
  #join(): Buffer {
    const [only] = this.#parts
    if (only && this.#parts.length === 1) return only
    const joined = Buffer.concat(this.#parts)
    this.#parts.length = 0
    this.#parts.push(joined)
    return joined
  }

  /** Reads what is whole; how many octets that was. */
  #read(data: Buffer): number {
    let at = this.#isStarted ? 0 : this.#preface(data)
    while (data.length - at >= FRAME_HEAD) {
      const length = data.readUIntBE(at, 3)
      if (length > FRAME_LIMIT) throw new ConnectionError(CODE.frameSize)
      const end = at + FRAME_HEAD + length
      if (end > data.length) {
        this.#wanted = FRAME_HEAD + length
        return at
      }
      this.#one(data, at, end)
      at = end
    }
    this.#wanted = FRAME_HEAD
    return at
  }

  #one(data: Buffer, at: number, end: number): void {
    const type = data[at + 3] as number
    // s.3.4: the first frame is SETTINGS.
    if (this.#isFirst && type !== TYPE.settings) throw new ConnectionError(CODE.protocol)
    this.#isFirst = false
    this.#take({
      type,
      flags: data[at + 4] as number,
      stream: data.readUInt32BE(at + 5) & 0x7fffffff,
      payload: data.subarray(at + FRAME_HEAD, end),
    })
  }

  #preface(data: Buffer): number {
    if (!data.subarray(0, PREFACE.length).equals(PREFACE)) throw new ConnectionError(CODE.protocol)
    this.#isStarted = true
    return PREFACE.length
  }
}
