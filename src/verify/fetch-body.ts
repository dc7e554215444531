/** The body of a request of fetch, read whole. */
import { Fault } from '../base/fault.ts'

/** Throws body_too_large over `limit` bytes. */
export async function readBody({ body }: Request, limit: number): Promise<Buffer> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of (body ?? []) as AsyncIterable<Uint8Array>) {
    size += part.length
    if (size > limit) throw new Fault('body_too_large', `the signed body is over ${limit} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts)
}

/** The same request, with a body that nobody has read. */
export function withBody(request: Request, body: Buffer): Request {
  const { headers, method, signal } = request
  return body.length === 0 ? request : new Request(request.url, { headers, method, signal, body })
}
