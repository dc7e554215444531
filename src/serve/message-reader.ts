/** Messages out of the body of a call, in any pieces (grpc/doc/PROTOCOL-HTTP2.md, Length-Prefixed-Message). */
import { Fault } from '../base/fault.ts'

const PREFIX = 5
const MESSAGE_LIMIT = 1024 * 1024

/** Of one call. Holds what is not read yet, and at most one message that is not whole. */
export class MessageReader {
  #parts: Buffer[] = []
  #size = 0

  /** Octets that came and are not read. */
  get size(): number {
    return this.#size
  }

  push(bytes: Buffer): void {
    this.#parts.push(bytes)
    this.#size += bytes.length
  }

  /**
   * The next message that is whole, part of a buffer that is not kept here; undefined when there is none. Throws
   * unimplemented for a compressed one, body_too_large.
   */
  next(): Buffer | undefined {
    if (this.#size < PREFIX) return undefined
    const head = this.#head()
    if (head[0] !== 0) throw new Fault('unimplemented', 'messages are not read compressed here')
    const length = head.readUInt32BE(1)
    if (length > MESSAGE_LIMIT)
      throw new Fault('body_too_large', `a message of ${length} bytes, over ${MESSAGE_LIMIT}`)
    if (this.#size < PREFIX + length) return undefined
    const data = this.#joined()
    this.#size -= PREFIX + length
    this.#parts = this.#size > 0 ? [data.subarray(PREFIX + length)] : []
    return data.subarray(PREFIX, PREFIX + length)
  }

  /** Copies what is left: it must not keep the large buffers that it came in. */
  keep(): void {
    const last = this.#parts.length - 1
    const part = this.#parts[last]
    if (part && part.buffer.byteLength > part.length) this.#parts[last] = Buffer.from(part)
  }

  #head(): Buffer {
    const [first] = this.#parts
    return first && first.length >= PREFIX ? first : this.#joined()
  }

  #joined(): Buffer {
    const [first] = this.#parts
    if (first && this.#parts.length === 1) return first
    const joined = Buffer.concat(this.#parts)
    this.#parts = [joined]
    return joined
  }
}
