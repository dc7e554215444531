/** HTTP/2 by hand: frames and header blocks as bytes, and those that Node's own client makes. */
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2'
import { Duplex } from 'node:stream'
import type { Turn } from '../../src/http2/turn.ts'

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
export const FRAME = { data: 0, headers: 1, settings: 4, continuation: 9 } as const
export const FLAG = { endStream: 1, endHeaders: 4, padded: 8, priority: 32 } as const

/** A turn that never ends. */
export const OPEN_TURN: Turn = { isOpen: () => true, spend: () => {}, later: (then) => setImmediate(then) }

export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** The preface and a SETTINGS frame of `pairs`. */
export function opening(pairs: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(pairs.length * 6)
  pairs.forEach(([id, value], index) => {
    payload.writeUInt16BE(id, index * 6)
    payload.writeUInt32BE(value, index * 6 + 2)
  })
  return Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0, payload)])
}

/** A string literal without Huffman coding (RFC 7541 s.5.2), under 127 octets. */
export function raw(text: string): Buffer {
  return Buffer.concat([Buffer.from([text.length]), Buffer.from(text, 'latin1')])
}

/** What Node's client sends for one request: the header block of its first HEADERS frame. */
export async function blockOf(headers: OutgoingHttpHeaders): Promise<Buffer> {
  const { bytes, client } = await captureRequest(headers)
  client.destroy()
  for (let at = PREFACE.length; at < bytes.length; ) {
    const length = bytes.readUIntBE(at, 3)
    if (bytes[at + 3] === FRAME.headers) return bytes.subarray(at + 9, at + 9 + length)
    at += 9 + length
  }
  throw new Error('the client sent no HEADERS frame')
}

function captureRequest(
  headers: OutgoingHttpHeaders,
): Promise<{ readonly bytes: Buffer; readonly client: ClientHttp2Session }> {
  return new Promise((resolve) => {
    const written: Buffer[] = []
    const wire = new Duplex({
      read: () => {},
      write: (chunk: Buffer, _encoding, done) => {
        written.push(chunk)
        done()
        const bytes = Buffer.concat(written)
        if (hasHeaders(bytes)) resolve({ bytes, client })
      },
    })
    const client = connect('http://localhost', { createConnection: () => wire })
    client.on('error', () => {})
    client.request(headers).on('error', () => {})
  })
}

function hasHeaders(bytes: Buffer): boolean {
  for (let at = PREFACE.length; at + 9 <= bytes.length; at += 9 + bytes.readUIntBE(at, 3)) {
    if (bytes[at + 3] === FRAME.headers) return at + 9 + bytes.readUIntBE(at, 3) <= bytes.length
  }
  return false
}
