/** Frames (RFC 9113 s.4): their numbers, what is wrong with them, and how they are written. */

/** s.3.4: what every client sends first. */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')

/** s.6. */
export const TYPE = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

export const FLAG = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 0x20 } as const

/** s.6.5.2. */
export const SETTING = { push: 2, streams: 3, window: 4, frame: 5, listSize: 6 } as const

/** s.7. */
export const CODE = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refused: 7,
  cancel: 8,
  compression: 9,
  calm: 11,
} as const

export type Code = (typeof CODE)[keyof typeof CODE]

/** Ends the connection (s.5.4.1). */
export class ConnectionError extends Error {
  readonly code: Code

  constructor(code: Code) {
    super(`HTTP/2 error ${code}`)
    this.code = code
  }
}

/** Ends one stream (s.5.4.2). */
export class StreamError extends Error {
  readonly stream: number
  readonly code: Code

  constructor(stream: number, code: Code) {
    super(`HTTP/2 error ${code} of stream ${stream}`)
    this.stream = stream
    this.code = code
  }
}

export const FRAME_HEAD = 9
/** SETTINGS_MAX_FRAME_SIZE where nobody says another; the smallest that may be said. */
export const FRAME_LIMIT = 16_384

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  /** Of one that came it is part of the buffer that it was read into: who keeps it copies it. */
  readonly payload: Buffer
}

export function frame(type: number, flags: number, stream: number, payload: Buffer): Frame {
  return { type, flags, stream, payload }
}

/** A frame whose payload is one number. */
export function wordFrame(type: number, stream: number, value: number): Frame {
  const payload = Buffer.allocUnsafe(4)
  payload.writeUInt32BE(value)
  return frame(type, 0, stream, payload)
}

/** Writes a frame to `bytes` at `at`, where there is room for it; where it ends. */
export function writeFrame({ type, flags, stream, payload }: Frame, bytes: Buffer, at: number): number {
  bytes.writeUIntBE(payload.length, at, 3)
  bytes[at + 3] = type
  bytes[at + 4] = flags
  bytes.writeUInt32BE(stream, at + 5)
  payload.copy(bytes, at + FRAME_HEAD)
  return at + FRAME_HEAD + payload.length
}

/** The payload without padding (s.6.1, s.6.2). */
export function unpadded({ flags, payload }: Frame): Buffer {
  if (!(flags & FLAG.padded)) return payload
  const padding = payload[0]
  if (padding === undefined || padding >= payload.length) throw new ConnectionError(CODE.protocol)
  return payload.subarray(1, payload.length - padding)
}
