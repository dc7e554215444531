/** Header blocks out of the frames that they come in (RFC 9113 s.4.3): HEADERS, and the CONTINUATION frames after it. */
import { CODE, ConnectionError, FLAG, type Frame, TYPE, unpadded } from './frame.ts'
import { HpackReader } from './hpack.ts'
import type { Fields } from './hpack-table.ts'

const BLOCK_LIMIT = 65_536
const FRAMES_LIMIT = 64
/** What HEADERS may say of priority, which nobody asks for. */
const PRIORITY_SIZE = 5

/** A header block that is not whole yet. */
interface OpenBlock {
  readonly stream: number
  readonly isLast: boolean
  readonly parts: Buffer[]
  size: number
}

/** A block that is whole. */
export interface HeaderBlock {
  readonly stream: number
  /** Undefined where they are over LIST_LIMIT. */
  readonly fields: Fields | undefined
  /** Whether the client has said its last with it. */
  readonly isLast: boolean
}

/** Of one connection. */
export class HeaderBlocks {
  readonly #hpack = new HpackReader()
  #open: OpenBlock | undefined

  /** Throws ConnectionError for a frame of a `type` that must not come now: nothing comes between those of one block. */
  check(type: number): void {
    if (this.#open && type !== TYPE.continuation) throw new ConnectionError(CODE.protocol)
  }

  /** HEADERS came; the block, when it is whole. Throws ConnectionError, HpackError. */
  begin(received: Frame): HeaderBlock | undefined {
    const { flags, stream } = received
    if (stream % 2 === 0) throw new ConnectionError(CODE.protocol)
    let part = unpadded(received)
    if (flags & FLAG.priority) {
      if (part.length < PRIORITY_SIZE) throw new ConnectionError(CODE.frameSize)
      part = part.subarray(PRIORITY_SIZE)
    }
    const isLast = (flags & FLAG.endStream) !== 0
    return this.#add({ stream, isLast, parts: [], size: 0 }, part, flags)
  }

  /** CONTINUATION came; as above. */
  go({ flags, payload, stream }: Frame): HeaderBlock | undefined {
    if (!this.#open || this.#open.stream !== stream) throw new ConnectionError(CODE.protocol)
    return this.#add(this.#open, payload, flags)
  }

  #add(block: OpenBlock, part: Buffer, flags: number): HeaderBlock | undefined {
    const { isLast, parts, stream } = block
    const isWhole = (flags & FLAG.endHeaders) !== 0
    parts.push(isWhole ? part : Buffer.from(part))
    block.size += part.length
    if (block.size > BLOCK_LIMIT || parts.length > FRAMES_LIMIT) throw new ConnectionError(CODE.calm)
    this.#open = isWhole ? undefined : block
    if (!isWhole) return undefined
    const fields = this.#hpack.read(parts.length === 1 ? part : Buffer.concat(parts))
    return { stream, fields, isLast }
  }
}
