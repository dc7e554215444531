/** Bytes to a socket as they are, and what comes back: for requests that no HTTP library would send. */
import { connect, type Socket } from 'node:net'
import { until } from './until.ts'

/** A raw connection and all it received. */
export interface Wire extends Disposable {
  readonly socket: Socket
  /** What came so far. */
  readonly received: Buffer
  readonly isClosed: boolean
  write(bytes: string | Uint8Array): Promise<void>
  closed(): Promise<void>
}

/** Connects; resolves when the kernel has taken the connection. */
export async function openWire(path: string): Promise<Wire> {
  const socket = connect({ path })
  const chunks: Buffer[] = []
  let isClosed = false
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.on('error', () => {})
  socket.on('close', () => {
    isClosed = true
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', () => resolve())
    socket.once('error', reject)
  })
  return {
    socket,
    get received() {
      return Buffer.concat(chunks)
    },
    get isClosed() {
      return isClosed
    },
    write: (bytes) =>
      new Promise((resolve) => {
        socket.write(bytes, () => resolve())
      }),
    closed: async () => void (await until('the connection to be closed', () => isClosed)),
    [Symbol.dispose]: () => socket.destroy(),
  }
}

/** A parsed HTTP/1.1 answer. */
export interface RawAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  // biome-ignore lint/suspicious/noExplicitAny: tests read members of answers they assert on.
  readonly body: any
}

/** Sends `bytes` on a new connection and waits for one whole answer. */
export async function ask(path: string, bytes: string | Uint8Array): Promise<RawAnswer> {
  using wire = await openWire(path)
  await wire.write(bytes)
  return await until(`an answer to ${bytes.slice(0, 60).toString()}`, () => answerIn(wire.received))
}

/** The first answer in `received` once it is whole. */
export function answerIn(received: Buffer): RawAnswer | undefined {
  const text = received.toString('latin1')
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const [line = '', ...rest] = text.slice(0, end).split('\r\n')
  const headers = Object.fromEntries(
    rest.map((header) => {
      const at = header.indexOf(':')
      return [header.slice(0, at).toLowerCase(), header.slice(at + 1).trim()]
    }),
  )
  const body = text.slice(end + 4)
  if (body.length < Number(headers['content-length'] ?? 0)) return undefined
  return { status: Number(line.split(' ')[1]), headers, body: body === '' ? undefined : JSON.parse(body) }
}
