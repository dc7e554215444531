/** The body of an answer: whole, or line by line, bounded either way. */
import type { IncomingMessage } from 'node:http'
import { Fault } from '../base/fault.ts'

/** All of it; throws cluster_unavailable when it is longer than `maxBytes` or cut off. */
export async function readWhole(response: IncomingMessage, maxBytes: number, name: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > maxBytes) throw tooLong(name, maxBytes)
    chunks.push(chunk)
  }
  if (!response.complete) throw new Fault('cluster_unavailable', `${name} cuts its answer off`)
  return Buffer.concat(chunks)
}

const NEWLINE = 0x0a

/** Each line without its end, empty ones left out; `heard` is called for each piece that arrives. */
export async function* readLines(
  response: IncomingMessage,
  maxBytes: number,
  name: string,
  heard: () => void,
): AsyncGenerator<string> {
  let pieces: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    heard()
    let start = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      pieces.push(chunk.subarray(start, end))
      const line = Buffer.concat(pieces).toString('utf8')
      pieces = []
      size = 0
      start = end + 1
      if (line !== '') yield line
    }
    pieces.push(chunk.subarray(start))
    size += chunk.length - start
    if (size > maxBytes) throw tooLong(name, maxBytes)
  }
}

function tooLong(name: string, maxBytes: number): Fault {
  return new Fault('cluster_unavailable', `${name} answers with over ${maxBytes} bytes`)
}
