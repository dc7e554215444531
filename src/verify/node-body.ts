/**
 * The body of a request of node, read whole and put back: whoever reads the request later finds it as it arrived. By
 * `readable` and `unshift`, since a request that has told its end gives nothing any more.
 */
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { Fault } from '../base/fault.ts'

type Message = IncomingMessage | Http2ServerRequest

/** Throws body_too_large over `limit` bytes, invalid_request for a body that is cut, bug for one that was read before. */
export async function peekBody(request: Message, limit: number): Promise<Buffer> {
  if (isBodiless(request)) return Buffer.alloc(0)
  if (request.readableDidRead)
    throw new Fault('bug', 'the body of a signed request was read before the verifier came to it', {
      action: 'Register the verifier before whatever parses bodies.',
    })
  return readAndReturn(request, limit)
}

/** RFC 9112 s.6.3: HTTP/1.1 says so ahead. */
function isBodiless({ headers, httpVersionMajor }: Message): boolean {
  const length = headers['content-length']
  if (length !== undefined) return length === '0'
  return httpVersionMajor < 2 && headers['transfer-encoding'] === undefined
}

function readAndReturn(request: Message, limit: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    let size = 0
    const settle = (fault?: Fault) => {
      request.off('readable', onReadable).off('end', onEnd).off('close', onCut).off('error', onCut)
      if (fault) return reject(fault)
      const body = Buffer.concat(parts)
      // In the same turn: at the end of it the request tells its end, and takes nothing back.
      if (body.length > 0) request.unshift(body)
      resolve(body)
    }
    const onReadable = () => {
      for (let part = partOf(request); part; part = partOf(request)) {
        size += part.length
        if (size > limit) return settle(tooLarge(limit))
        parts.push(part)
      }
      if (isWhole(request)) settle()
    }
    const onEnd = () => settle()
    const onCut = () => settle(new Fault('invalid_request', 'the request ended before its body'))
    request.on('readable', onReadable).on('end', onEnd).on('close', onCut).on('error', onCut)
  })
}

const partOf = (request: Message): Buffer | null => request.read() as Buffer | null

/** All of it has arrived. `complete` of HTTP/2 waits until somebody has read it. */
function isWhole(request: Message): boolean {
  return 'stream' in request ? request.stream.readableEnded : request.complete
}

function tooLarge(limit: number): Fault {
  return new Fault('body_too_large', `the signed body is over ${limit} bytes`, {
    action: 'Send less, or let the application raise bodyLimit of the verifier.',
  })
}
