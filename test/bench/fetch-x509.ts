/**
 * FetchX509SVID with frames made beforehand (RFC 9113): thousands of callers on the agent's own machine must not cost
 * more than what they measure, and a burst must arrive as one.
 */
import { connect } from 'node:net'
import { blockOf, FLAG, FRAME, frame, opening } from '../support/h2.ts'

export interface FetchOptions {
  readonly socket: string
  /** Hears of each message of the stream. */
  readonly onMessage: () => void
  /** Hears once that nothing more will come. */
  readonly onEnd?: () => void
}

const HEAD = 9
const MESSAGE_HEAD = 5
const ACK = 1
const STREAM = 1
const INITIAL_WINDOW = 4

/** What a caller sends first: the opening of its connection and the call. */
export const REQUEST = Buffer.concat([
  opening([[INITIAL_WINDOW, 65_535]]),
  frame(
    FRAME.headers,
    FLAG.endHeaders,
    STREAM,
    await blockOf({
      ':method': 'POST',
      ':path': '/SpiffeWorkloadAPI/FetchX509SVID',
      'content-type': 'application/grpc',
      te: 'trailers',
      'workload.spiffe.io': 'true',
    }),
  ),
  frame(FRAME.data, FLAG.endStream, STREAM, Buffer.alloc(MESSAGE_HEAD)),
])
const SETTINGS_ACK = frame(FRAME.settings, ACK, 0)

/** Opens a connection and a stream on it; the returned function closes the connection. */
export function openFetch({ socket: path, onMessage, onEnd = () => {} }: FetchOptions): () => void {
  const socket = connect(path)
  const count = messageCounter(onMessage)
  socket.on('error', () => {})
  socket.once('close', onEnd)
  socket.on(
    'data',
    pieces(
      HEAD,
      (bytes) => bytes.readUIntBE(0, 3),
      (head, payload) => {
        const [type, flags] = [head[3], head[4] ?? 0]
        if (type === FRAME.data) count(payload)
        else if (type === FRAME.settings && (flags & ACK) === 0) socket.write(SETTINGS_ACK)
        else if (type === FRAME.headers && (flags & FLAG.endStream) !== 0) socket.destroy()
      },
    ),
  )
  socket.write(REQUEST)
  return () => socket.destroy()
}

/** gRPC puts a flag and four bytes of length before a message; one may come in several frames. */
function messageCounter(onMessage: () => void): (payload: Buffer) => void {
  return pieces(MESSAGE_HEAD, (bytes) => bytes.readUInt32BE(1), onMessage)
}

/** Cuts a stream of chunks into pieces of a head of `size` bytes and as many more as it says. */
function pieces(
  size: number,
  lengthOf: (bytes: Buffer) => number,
  take: (head: Buffer, payload: Buffer) => void,
): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0)
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    while (rest.length >= size) {
      const end = size + lengthOf(rest)
      if (rest.length < end) return
      const [head, payload] = [rest.subarray(0, size), rest.subarray(size, end)]
      rest = rest.subarray(end)
      take(head, payload)
    }
  }
}

/** One whole visit: connect, first SVID, close; false when there was no SVID to have. */
export function visit(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    let hasSvid = false
    const close = openFetch({
      socket,
      onMessage: () => {
        hasSvid = true
        close()
      },
      onEnd: () => resolve(hasSvid),
    })
  })
}
