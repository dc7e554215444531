/** What a new connection speaks: the first 24 bytes decide between HTTP/2 and HTTP/1.1, within a deadline. */
import type { Socket } from 'node:net'
import type { Clock, Millis } from '../base/clock.ts'

/** RFC 9113 s.3.4: what every HTTP/2 client sends first. */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
const FRAME_HEAD = 9
const SETTINGS_LIMIT = 1024

/** `http2` comes with what was read: the preface and the client's first frame, which is its SETTINGS. */
export type FirstBytes = { readonly speaks: 'http1' } | { readonly speaks: 'http2'; readonly bytes: Buffer }

/**
 * Reads until it is clear what `socket` speaks and puts everything back; undefined when the client went away, stayed
 * silent for `timeout` or sent an impossible start. Bounded by one SETTINGS frame.
 */
export function firstBytes(socket: Socket, clock: Clock, timeout: Millis): Promise<FirstBytes | undefined> {
  return new Promise((resolve) => {
    let seen = Buffer.alloc(0)
    const finish = (answer: FirstBytes | undefined) => {
      cancel()
      socket.off('readable', look)
      socket.off('close', gone)
      socket.off('error', gone)
      if (answer && seen.length > 0) socket.unshift(seen)
      resolve(answer)
    }
    const gone = () => finish(undefined)
    const look = () => {
      for (let chunk = readChunk(socket); chunk; chunk = readChunk(socket))
        seen = Buffer.concat([seen, chunk])
      const answer = classify(seen)
      if (answer !== 'more') finish(answer)
    }
    const cancel = clock.after(timeout, gone)
    socket.on('readable', look)
    socket.once('close', gone)
    socket.once('error', gone)
    look()
  })
}

function readChunk(socket: Socket): Buffer | undefined {
  return (socket.read() as Buffer | null) ?? undefined
}

function classify(seen: Buffer): FirstBytes | 'more' | undefined {
  const common = Math.min(seen.length, PREFACE.length)
  if (seen.compare(PREFACE, 0, common, 0, common) !== 0) return { speaks: 'http1' }
  const head = PREFACE.length + FRAME_HEAD
  if (seen.length < head) return 'more'
  const length = seen.readUIntBE(PREFACE.length, 3)
  if (length > SETTINGS_LIMIT) return undefined
  return seen.length < head + length ? 'more' : { speaks: 'http2', bytes: seen }
}
