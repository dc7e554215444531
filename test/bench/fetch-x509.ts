/** FetchX509SVID by HTTP/2 alone: thousands of callers on one machine must not cost more than what they measure. */
import { type ClientHttp2Session, connect } from 'node:http2'
import { connect as connectSocket } from 'node:net'

export interface FetchOptions {
  readonly socket: string
  /** Hears of each message of the stream. */
  readonly onMessage: () => void
  /** Hears once that nothing more will come. */
  readonly onEnd?: () => void
}

const PATH = '/SpiffeWorkloadAPI/FetchX509SVID'
const FRAME_HEAD = 5
const EMPTY_MESSAGE = Buffer.alloc(FRAME_HEAD)

/** Opens a connection and a stream on it; the returned function closes the connection. */
export function openFetch({ socket, onMessage, onEnd = () => {} }: FetchOptions): () => void {
  const session: ClientHttp2Session = connect('http://localhost', {
    createConnection: () => connectSocket(socket),
  })
  session.on('error', () => {})
  session.once('close', onEnd)
  const stream = session.request({
    ':method': 'POST',
    ':path': PATH,
    'content-type': 'application/grpc',
    te: 'trailers',
    'workload.spiffe.io': 'true',
  })
  stream.on('error', () => {})
  stream.once('end', () => session.destroy())
  countMessages(stream, onMessage)
  stream.end(EMPTY_MESSAGE)
  return () => session.destroy()
}

/** gRPC frames a message by a flag and four bytes of length; one may come in several pieces. */
function countMessages(stream: NodeJS.ReadableStream, onMessage: () => void): void {
  let rest: Buffer = Buffer.alloc(0)
  stream.on('data', (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    while (rest.length >= FRAME_HEAD) {
      const length = FRAME_HEAD + rest.readUInt32BE(1)
      if (rest.length < length) return
      rest = rest.subarray(length)
      onMessage()
    }
  })
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
