/**
 * The HTTP/2 frames of one client, forwarded as they come (RFC 9113 s.4); header blocks are held until they are whole
 * and then shown to `edit`. Holds at most one header block and one incomplete frame.
 */

/** RFC 9113 s.3.4. */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
const HEAD = 9
const HEADERS = 1
const CONTINUATION = 9
const END_HEADERS = 0x04
const PADDED = 0x08
const PRIORITY = 0x20
/** The agent advertises no larger frames (SETTINGS_MAX_FRAME_SIZE). */
const FRAME_LIMIT = 16_384
const BLOCK_LIMIT = 65_536
const BLOCK_FRAMES_LIMIT = 64

interface Head {
  readonly length: number
  readonly type: number
  readonly flags: number
  readonly stream: number
}

/** A header block that is not whole yet: its frames, and where in them the block's fragments are. */
interface OpenBlock {
  readonly stream: number
  readonly frames: Buffer[]
  readonly fragments: Buffer[]
  size: number
}

/** What came in beyond the rules; the connection ends. */
export class FrameError extends Error {}

/** Takes what a client sent, in any pieces, and gives it back in order with header blocks edited. */
export class Frames {
  readonly #edit: (block: Buffer) => boolean
  #isStarted = false
  #rest = Buffer.alloc(0)
  /** Octets of the current frame that need no look. */
  #passing = 0
  #block: OpenBlock | undefined

  constructor(edit: (block: Buffer) => boolean) {
    this.#edit = edit
  }

  /** What can be forwarded after `chunk`, which is changed in place; throws FrameError, and what `edit` throws. */
  push(chunk: Buffer): readonly Buffer[] {
    const out: Buffer[] = []
    let data: Buffer = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk
    for (;;) {
      const used = this.#take(data, out)
      if (used === 0) break
      data = data.subarray(used)
    }
    // A copy: what is left is small and must not keep the large buffer it came in.
    this.#rest = Buffer.from(data)
    return out
  }

  /** Takes the next piece of `data` if it is whole; how many octets it was. */
  #take(data: Buffer, out: Buffer[]): number {
    if (!this.#isStarted) return this.#takePreface(data, out)
    if (this.#passing > 0) return this.#pass(data, out, Math.min(this.#passing, data.length))
    if (data.length < HEAD) return 0
    const head = readHead(data)
    if (head.length > FRAME_LIMIT) throw new FrameError()
    const isHeaders = head.type === HEADERS || head.type === CONTINUATION
    if (this.#block && head.type !== CONTINUATION) throw new FrameError()
    if (isHeaders) return this.#takeHeaders(data, head, out)
    out.push(data.subarray(0, HEAD))
    this.#passing = head.length
    return HEAD
  }

  #takePreface(data: Buffer, out: Buffer[]): number {
    const seen = Math.min(data.length, PREFACE.length)
    if (data.compare(PREFACE, 0, seen, 0, seen) !== 0) throw new FrameError()
    if (seen < PREFACE.length) return 0
    this.#isStarted = true
    out.push(data.subarray(0, seen))
    return seen
  }

  #pass(data: Buffer, out: Buffer[], count: number): number {
    if (count > 0) out.push(data.subarray(0, count))
    this.#passing -= count
    return count
  }

  #takeHeaders(data: Buffer, head: Head, out: Buffer[]): number {
    const end = HEAD + head.length
    if (data.length < end) return 0
    const frame = data.subarray(0, end)
    const block = this.#block ?? openBlock(head)
    if (block.stream !== head.stream) throw new FrameError()
    const fragment = fragmentOf(frame, head)
    block.frames.push(frame)
    block.fragments.push(fragment)
    block.size += fragment.length
    if (block.size > BLOCK_LIMIT || block.frames.length > BLOCK_FRAMES_LIMIT) throw new FrameError()
    if (head.flags & END_HEADERS) {
      this.#block = undefined
      editBlock(block, this.#edit)
      out.push(...block.frames)
    } else this.#block = block
    return end
  }
}

function readHead(data: Buffer): Head {
  return {
    length: data.readUIntBE(0, 3),
    type: data.readUInt8(3),
    flags: data.readUInt8(4),
    stream: data.readUInt32BE(5) & 0x7fffffff,
  }
}

function openBlock(head: Head): OpenBlock {
  if (head.type !== HEADERS) throw new FrameError()
  return { stream: head.stream, frames: [], fragments: [], size: 0 }
}

/** The part of a frame that belongs to the header block: without padding and priority (RFC 9113 s.6.2). */
function fragmentOf(frame: Buffer, { type, flags }: Head): Buffer {
  if (type === CONTINUATION) return frame.subarray(HEAD)
  const padding = flags & PADDED ? (frame[HEAD] ?? 0) : 0
  const start = HEAD + (flags & PADDED ? 1 : 0) + (flags & PRIORITY ? 5 : 0)
  const end = frame.length - padding
  if (end < start) throw new FrameError()
  return frame.subarray(start, end)
}

/** A block in one frame is edited where it is; one in several is joined, edited and written back. */
function editBlock({ fragments }: OpenBlock, edit: (block: Buffer) => boolean): void {
  const [only] = fragments
  if (only && fragments.length === 1) {
    edit(only)
    return
  }
  const joined = Buffer.concat(fragments)
  if (!edit(joined)) return
  let at = 0
  for (const fragment of fragments) {
    joined.copy(fragment, 0, at, at + fragment.length)
    at += fragment.length
  }
}
