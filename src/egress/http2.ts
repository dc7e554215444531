/** Requests over an HTTP/2 session of a pool (RFC 9113). */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type Http2Stream,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2'
import type { Socket } from 'node:net'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import {
  type Answer,
  type Attempt,
  checkStatus,
  INTERIM_LIMIT,
  type Outgoing,
  upstreamFault,
} from './attempt.ts'
import { pairsOf, type RawHeaders } from './headers.ts'

const WINDOW = 1024 * 1024
const HEADER_PAIRS = 128
const PING_EVERY = 30_000
const RESET_WAIT: Millis = 5_000

/** A session over a connection whose ALPN is h2. Pushed streams are refused. */
export function openSession(origin: string, socket: Socket): ClientHttp2Session {
  const session = connect(origin, {
    createConnection: () => socket,
    maxHeaderListPairs: HEADER_PAIRS,
    settings: { enablePush: false, initialWindowSize: WINDOW },
  })
  session.on('error', () => {})
  session.once('connect', () => session.destroyed || session.setLocalWindowSize(WINDOW * 4))
  session.setTimeout(PING_EVERY, () => session.destroyed || session.ping(() => {}))
  return session
}

/** Sends over `session`. */
export function sendHttp2(session: ClientHttp2Session, outgoing: Outgoing, clock: Clock): Attempt {
  const stream = session.request(headersOf(outgoing), { endStream: !outgoing.hasBody, waitForTrailers: true })
  let trailers: RawHeaders = []
  stream.on('wantTrailers', () => sendTrailers(stream, trailers))
  return {
    sink: stream,
    answer: answerOf(stream),
    onContinue: (then) => void stream.once('continue', then),
    finish: (fields) => {
      trailers = fields
      if (!stream.destroyed && !stream.writableEnded) stream.end()
    },
    isReused: () => false,
    abort: () => giveUp(session, stream, clock),
  }
}

/**
 * A stream that does not end when it is reset shows a session on which nothing moves: Node does not hear when frames were
 * so wrong that its HTTP/2 library reads no more, and the next requests would wait there too.
 */
function giveUp(session: ClientHttp2Session, stream: ClientHttp2Stream, clock: Clock): void {
  stream.close(constants.NGHTTP2_CANCEL)
  if (stream.destroyed) return
  const end = () => session.destroy(new Fault('upstream_unavailable', 'the target breaks its connection'))
  stream.once('close', clock.after(RESET_WAIT, end))
}

function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  let trailers: RawHeaders = []
  stream.on('trailers', (fields) => {
    trailers = rawOf(fields)
  })
  const answer = new Promise<Answer>((resolve, reject) => {
    let interim = 0
    stream.on('headers', () => {
      interim += 1
      if (interim > INTERIM_LIMIT) stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM)
    })
    stream.on('response', (headers, flags) => {
      try {
        const status = checkStatus(Number(headers[':status']))
        const isBare = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0
        const isCut = () => (stream.rstCode ?? 0) !== constants.NGHTTP2_NO_ERROR
        resolve({ status, headers: rawOf(headers), body: stream, isBare, isCut, trailers: () => trailers })
      } catch (caught) {
        reject(caught)
        stream.close(constants.NGHTTP2_PROTOCOL_ERROR)
      }
    })
    stream.on('error', (error) => reject(upstreamFault(error)))
    stream.on('close', () => reject(new Fault('upstream_unavailable', 'the target closes without an answer')))
  })
  answer.catch(() => {})
  return answer
}

// RFC 9113 s.8.2.2: what is said of a connection has no place here.
const NOT_HERE: ReadonlySet<string> = new Set(['host', 'transfer-encoding', 'connection'])

function headersOf({ method, path, origin, headers, wantsTrailers }: Outgoing): OutgoingHttpHeaders {
  const { protocol, host } = new URL(origin)
  const passed = pairsOf(headers).filter(([name]) => !NOT_HERE.has(name.toLowerCase()))
  return {
    ':method': method,
    ':scheme': protocol.slice(0, -1),
    ':authority': host,
    ':path': path,
    ...objectOf(passed.flat()),
    ...(wantsTrailers ? { te: 'trailers' } : {}),
  }
}

/** Ends `stream` with `trailers`; with a reset where HTTP/2 has no form for them, such as a field that is there once. */
export function sendTrailers(stream: Http2Stream, trailers: RawHeaders): void {
  try {
    stream.sendTrailers(objectOf(trailers))
  } catch {
    stream.close(constants.NGHTTP2_INTERNAL_ERROR)
  }
}

/** As Node's HTTP/2 takes them. */
export function objectOf(raw: RawHeaders): OutgoingHttpHeaders {
  const fields = new Map<string, string[]>()
  for (const [name, value] of pairsOf(raw)) {
    const lower = name.toLowerCase()
    fields.set(lower, [...(fields.get(lower) ?? []), value])
  }
  return Object.fromEntries(
    [...fields].map(([name, values]) => [name, values.length === 1 ? values[0] : values]),
  )
}

/** As Node's HTTP/1.1 gives them; pseudo-headers are left out. */
export function rawOf(headers: IncomingHttpHeaders): RawHeaders {
  return Object.entries(headers).flatMap(([name, value]) => {
    if (name.startsWith(':') || value === undefined) return []
    return (Array.isArray(value) ? value : [value]).flatMap((each) => [name, each])
  })
}
