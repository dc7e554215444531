/** What a client sends, in any pieces, as frames. Holds at most one that is not whole. */
import { CODE, ConnectionError, FRAME_HEAD, FRAME_LIMIT, type Frame, PREFACE, TYPE } from './frame.ts'
import { Unread } from './unread.ts'

/** Of one connection. */
export class FrameReader {
  readonly #take: (frame: Frame) => void
  readonly #unread = new Unread()
  #wanted = PREFACE.length
  #isStarted = false
  #isFirst = true

  /** `take` is given each frame, in order; what it throws ends the reading. */
  constructor(take: (frame: Frame) => void) {
    this.#take = take
  }

  push(chunk: Buffer): void {
    this.#unread.push(chunk)
  }

  /**
   * Reads what is whole, while it `goesOn`; whether there is more that is whole. Throws ConnectionError, and what `take`
   * throws.
   */
  read(goesOn: () => boolean): boolean {
    const { octets } = this.#unread
    if (octets.length < this.#wanted) {
      this.#unread.keep()
      return false
    }
    let at = this.#isStarted ? 0 : this.#preface(octets)
    let end = endOf(octets, at)
    while (end <= octets.length && goesOn()) {
      this.#one(octets, at, end)
      at = end
      end = endOf(octets, at)
    }
    this.#wanted = end - at
    this.#unread.drop(at)
    this.#unread.keep()
    return end <= octets.length
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

/** Where the frame that begins at `at` ends, or its head where that is not whole. */
function endOf(octets: Buffer, at: number): number {
  if (octets.length - at < FRAME_HEAD) return at + FRAME_HEAD
  const length = octets.readUIntBE(at, 3)
  if (length > FRAME_LIMIT) throw new ConnectionError(CODE.frameSize)
  return at + FRAME_HEAD + length
}
