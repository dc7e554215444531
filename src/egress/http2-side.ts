/**
 * The egress door's HTTP/2 side, on connections that were attested before and that begin with HTTP/2 at once (RFC 9113
 * s.3.3): `:authority` names the target, as Host does in HTTP/1.1.
 */
import {
  constants,
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { Socket } from 'node:net'
import type { Clock, Millis } from '../base/clock.ts'
import { Fault } from '../base/fault.ts'
import type { Caller } from '../serve/caller.ts'
import { faultEncoder } from '../serve/fault-status.ts'
import type { HttpSide } from '../serve/http.ts'
import type { OwnerLimits } from '../serve/limits.ts'
import { type Head2, Request2, Response2, refusing } from './http2-stream.ts'
import { type Asked, type ProxyOptions, serve } from './proxy.ts'

export interface Http2SideOptions extends ProxyOptions {
  readonly streamsPerConnection: number
  /** Open requests by uid, over all its connections. */
  readonly calls: OwnerLimits
}

const HEADER_BYTES = 32 * 1024
/** What checkHeaders counts, the pseudo-headers, and one more, for it to say so. */
const HEADER_PAIRS = 134
const SESSION_MEMORY_MB = 8
const SETTINGS_ENTRIES = 16
const INVALID_FRAMES = 32
const REJECTED_STREAMS = 100
const OUTSTANDING_PINGS = 8
const IDLE: Millis = 60_000
/** How long the end of an answer may take to leave. */
const OVER: Millis = 5_000
/** Requests of a connection that their caller may take back: so many at once, and so many more a second. */
const RESETS = { burst: 500, perSecond: 100 }

/** Serves connections that are handed in. Floods of resets, settings and pings end their connection. */
export function openHttp2Side(options: Http2SideOptions): HttpSide {
  const sessions = new Set<ServerHttp2Session>()
  const floods = new WeakSet<object>()
  const encode = faultEncoder()
  const answer = (caller: Caller, stream: ServerHttp2Stream, head: Head2) => {
    // Taken back in the same read: nothing was decided yet.
    if (stream.closed || stream.destroyed || (stream.session && floods.has(stream.session))) return
    const request = new Request2(stream, head)
    const response = new Response2(stream, options.clock)
    const refuse = refusing(request, response, encode)
    const asked = { request, response, check: () => request.check(), refuse }
    void counted(options, caller, stream, asked)
  }
  return {
    inject: (connection, caller) => {
      const session = openSession(options, connection)
      sessions.add(session)
      endFlood(session, options.clock, () => floods.add(session))
      session.once('close', () => sessions.delete(session))
      session.on(
        'stream',
        (stream: ServerHttp2Stream, _headers: IncomingHttpHeaders, flags: number, raw: string[]) =>
          answer(caller, stream, { raw, isWhole: (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0 }),
      )
    },
    // GOAWAY: what is open goes on, what comes later is not taken.
    drain: () => endEach(sessions, (session) => session.close()),
    stop: () => endEach(sessions, (session) => session.destroy()),
  }
}

/** Not before the frame is read that may have led here: Node's memory breaks when a session ends in between. */
function endEach(sessions: Iterable<ServerHttp2Session>, end: (session: ServerHttp2Session) => void): void {
  for (const session of sessions) setImmediate(end, session)
}

/**
 * A connection holds many requests: each counts as a call of its uid from its first frame to its last. When it is over
 * its stream ends too: the callers of some do not read, and Node does not hear when frames were so wrong that its HTTP/2
 * library reads no more.
 */
async function counted(
  options: Http2SideOptions,
  caller: Caller,
  stream: ServerHttp2Stream,
  asked: Asked,
): Promise<void> {
  try {
    stream.once('close', options.calls.take(caller.owner))
  } catch (caught) {
    return asked.refuse(Fault.from(caught))
  }
  await serve(options, caller, asked)
  const end = () => {
    stream.close(constants.NGHTTP2_CANCEL)
    stream.destroy()
  }
  if (!stream.destroyed) stream.once('close', options.clock.after(OVER, end))
}

function openSession(options: Http2SideOptions, connection: Socket): ServerHttp2Session {
  const session = performServerHandshake(connection, {
    maxHeaderListPairs: HEADER_PAIRS,
    maxSessionMemory: SESSION_MEMORY_MB,
    maxSettings: SETTINGS_ENTRIES,
    maxSessionInvalidFrames: INVALID_FRAMES,
    maxSessionRejectedStreams: REJECTED_STREAMS,
    maxOutstandingPings: OUTSTANDING_PINGS,
    settings: { maxConcurrentStreams: options.streamsPerConnection, maxHeaderListSize: HEADER_BYTES },
  })
  session.on('error', () => {})
  // Before whoever else hears of it: one that is taken back, or is malformed behind its head, has nobody else.
  session.on('stream', (stream: ServerHttp2Stream) => stream.on('error', () => {}))
  endIdle(session, options.clock, options.headerTimeout)
  return session
}

/**
 * A request that is taken back costs its caller nothing and the agent a decision (CVE-2023-44487). `onFlood` hears at
 * once; the session ends when it has read what came with it, since Node's own assertions fail when it ends in between.
 */
function endFlood(session: ServerHttp2Session, clock: Clock, onFlood: () => void): void {
  let [left, since] = [RESETS.burst, clock.monotonic()]
  const end = () => session.destroyed || session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM)
  session.on('stream', (stream: ServerHttp2Stream) =>
    stream.once('close', () => {
      if ((stream.rstCode ?? 0) === constants.NGHTTP2_NO_ERROR) return
      const now = clock.monotonic()
      left = Math.min(RESETS.burst, left + ((now - since) / 1_000) * RESETS.perSecond) - 1
      since = now
      if (left >= 0) return
      onFlood()
      setImmediate(end)
    }),
  )
}

/** Says goodbye to who asks nothing: `first` after the start, and later after each quiet minute. */
function endIdle(session: ServerHttp2Session, clock: Clock, first: Millis): void {
  let open = 0
  const close = () => session.close()
  let cancel = clock.after(first, close)
  session.once('close', () => cancel())
  session.on('stream', (stream: ServerHttp2Stream) => {
    open += 1
    cancel()
    stream.once('close', () => {
      open -= 1
      if (open > 0 || session.destroyed) return
      cancel = clock.after(IDLE, close)
    })
  })
}
