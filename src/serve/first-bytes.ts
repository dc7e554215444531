/**
 * What a new connection speaks: its first bytes decide between HTTP/2 and HTTP/1.1, within a deadline. Of HTTP/2 they are
 * the preface and the client's first frame, which is its SETTINGS.
 */
import type { Socket } from 'node:net'
import type { Clock, Millis } from '../base/clock.ts'
import { FRAME_HEAD, PREFACE } from '../http2/frame.ts'

const SETTINGS_LIMIT = 1024

export type Speaks = 'http1' | 'http2'

/**
 * Reads until it is clear what `socket` speaks and puts everything back; undefined when the client went away, stayed
 * silent for `timeout` or sent an impossible start. Bounded by one SETTINGS frame.
 */
export function firstBytes(socket: Socket, clock: Clock, timeout: Millis): Promise<Speaks | undefined> {
  return new Promise((resolve) => {
    let seen = Buffer.alloc(0)
    const finish = (answer: Speaks | undefined) => {
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

function classify(seen: Buffer): Speaks | 'more' | undefined {
  const common = Math.min(seen.length, PREFACE.length)
  if (seen.compare(PREFACE, 0, common, 0, common) !== 0) return 'http1'
  const head = PREFACE.length + FRAME_HEAD
  if (seen.length < head) return 'more'
  const length = seen.readUIntBE(PREFACE.length, 3)
  if (length > SETTINGS_LIMIT) return undefined
  return seen.length < head + length ? 'more' : 'http2'
}
