/** Messages out of the body of a call, in any pieces (grpc/doc/PROTOCOL-HTTP2.md, Length-Prefixed-Message). */
import { Fault } from '../base/fault.ts'
import { Unread } from '../http2/unread.ts'

const PREFIX = 5
const MESSAGE_LIMIT = 1024 * 1024

/** Of one call. Holds what is not read yet, and at most one message that is not whole. */
export class MessageReader {
  readonly #unread = new Unread()

  /** Octets that came and are not read. */
  get size(): number {
    return this.#unread.size
  }

  push(bytes: Buffer): void {
    this.#unread.push(bytes)
  }

  /**
   * The next message that is whole, part of a buffer that is not kept here; undefined when there is none. Throws
   * unimplemented for a compressed one, body_too_large.
   */
  next(): Buffer | undefined {
    const { octets } = this.#unread
    if (octets.length < PREFIX) return undefined
    if (octets[0] !== 0) throw new Fault('unimplemented', 'messages are not read compressed here')
    const length = octets.readUInt32BE(1)
    if (length > MESSAGE_LIMIT)
      throw new Fault('body_too_large', `a message of ${length} bytes, over ${MESSAGE_LIMIT}`)
    const end = PREFIX + length
    if (octets.length < end) return undefined
    this.#unread.drop(end)
    return octets.subarray(PREFIX, end)
  }

  /** Copies what is left: it must not keep the large buffer that it came in. */
  keep(): void {
    this.#unread.keep()
  }
}
