/** The egress door's HTTP/2 side: the same rules as over HTTP/1.1, and frames that no honest client sends. */
import {
  type ClientHttp2Session,
  connect,
  constants,
  createSecureServer,
  type OutgoingHttpHeaders,
} from 'node:http2'
import { type AddressInfo, connect as dial } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ManualClock } from '../support/clock.ts'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { FLAG, FRAME, frame, opening } from '../support/h2.ts'
import { literal } from '../support/h2-fuzz.ts'
import { openWire, type Wire } from '../support/raw-http.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const ca = makeTestCa()
const MIB = 1024 * 1024
const RST_STREAM = 3
const STREAMS = 10
const GOAWAY = 7
const CLIENT_WINDOW = 65_535

interface Got {
  readonly status: number
  readonly headers: NodeJS.Dict<string | string[]>
  readonly text: string
  readonly code: number
}

let server: ResourceServer
let egress: TestEgress
const sessions: ClientHttp2Session[] = []
const waiting: (() => void)[] = []
/** Sizes of bodies that came to their end. */
const uploads: number[] = []

beforeAll(async () => {
  server = await startResourceServer({
    ca,
    handlers: {
      '/upload': (request, response) => {
        let size = 0
        request.on('data', (chunk: Buffer) => {
          size += chunk.length
        })
        request.on('end', () => {
          uploads.push(size)
          response.end(String(size))
        })
      },
      '/download': (request, response) => {
        request.resume()
        response.end(Buffer.alloc(8 * MIB, 1))
      },
      '/early': (_request, response) => response.writeHead(413).end('too much'),
      '/wait': (request, response) => {
        request.resume()
        waiting.push(() => response.end('late'))
      },
      '/twice': (request, response) => {
        request.resume()
        response.writeHead(200, { Trailer: 'etag' })
        response.addTrailers([
          ['etag', '1'],
          ['etag', '2'],
        ])
        response.end('ok')
      },
      '/two': (request, response) => {
        request.resume()
        response.setHeader('Set-Cookie', ['a=1', 'b=2'])
        response.setHeader('Connection', 'close')
        response.end('ok')
      },
    },
  })
  const origin = `https://localhost:${server.port}`
  egress = await startEgress({
    ca,
    targets: {
      orders: { origin },
      narrow: { origin, paths: '["/v1/**"]', methods: '[GET]' },
      held: { origin, grant: 'approval: {}' },
    },
    streams: STREAMS,
  })
})

afterAll(async () => {
  await egress?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

afterEach(() => {
  for (const session of sessions.splice(0)) session.destroy()
})

function open(): ClientHttp2Session {
  const session = connect('http://orders', { createConnection: () => dial(egress.socket) })
  session.on('error', () => {})
  sessions.push(session)
  return session
}

function send(session: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: Buffer): Promise<Got> {
  const stream = session.request({ ':authority': 'orders', ...headers }, { endStream: body === undefined })
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    let answered: NodeJS.Dict<string | string[]> = {}
    stream.on('response', (fields) => {
      answered = fields as NodeJS.Dict<string | string[]>
    })
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    stream.on('error', () => {})
    stream.on('close', () =>
      resolve({
        status: Number(answered[':status']),
        headers: answered,
        text: Buffer.concat(chunks).toString(),
        code: stream.rstCode ?? 0,
      }),
    )
    if (body) stream.end(body)
  })
}

describe('a request over HTTP/2', () => {
  it('arrives with a token and a proof, beside others on one connection', async () => {
    const session = open()
    const all = await Promise.all(
      Array.from({ length: 8 }, (_, at) => send(session, { ':path': `/echo?${at}` })),
    )
    expect(all.map(({ status }) => status)).toEqual(Array(8).fill(200))
    expect(JSON.parse(all[0]?.text ?? '').sub).toBe('spiffe://example.org/web')
    expect(server.refused).toEqual([])
  })

  it("leaves without what a caller may not say, and with a cookie's pieces as one", async () => {
    const { status } = await send(open(), {
      ':path': '/echo',
      authorization: 'Bearer mine',
      dpop: 'mine',
      'x-forwarded-for': 'mine',
      cookie: ['a=1', 'b=2'],
      'x-mine': 'kept',
    })
    const { headers, rawHeaders } = server.requests.at(-1) ?? {}
    expect(status).toBe(200)
    expect([headers?.cookie, headers?.['x-mine'], headers?.['x-forwarded-for']]).toEqual([
      'a=1; b=2',
      'kept',
      undefined,
    ])
    expect(rawHeaders?.filter((name) => /^(?:authorization|dpop|host)$/i.test(name))).toHaveLength(3)
  })

  it('streams bodies of megabytes both ways', async () => {
    const session = open()
    const [up, down] = await Promise.all([
      send(session, { ':path': '/upload', ':method': 'POST' }, Buffer.alloc(8 * MIB)),
      send(session, { ':path': '/download' }),
    ])
    expect([up.text, down.text.length]).toEqual([String(8 * MIB), 8 * MIB])
  })

  it('keeps fields that are there twice, and drops those of the connection', async () => {
    const { headers } = await send(open(), { ':path': '/two' })
    expect([headers['set-cookie'], headers['connection']]).toEqual([['a=1', 'b=2'], undefined])
  })

  it.each(['HEAD', 'OPTIONS', 'DELETE'])('answers %s', async (method) => {
    const { status, code } = await send(open(), { ':path': '/echo', ':method': method })
    expect([status, code]).toEqual([200, 0])
  })

  it('hears an answer that comes before its body has gone, and is then stopped', async () => {
    const session = open()
    const stream = session.request({ ':authority': 'orders', ':path': '/early', ':method': 'POST' })
    const answered = new Promise<number>((resolve) =>
      stream.on('response', (headers) => resolve(Number(headers[':status']))),
    )
    stream.on('error', () => {})
    stream.write('some')
    stream.resume()
    expect(await answered).toBe(413)
    await until('the stream to be closed', () => stream.closed)
    expect(stream.rstCode).toBe(constants.NGHTTP2_NO_ERROR)
  })

  const refusals: readonly (readonly [string, OutgoingHttpHeaders, number, string])[] = [
    ['a host that differs from the authority', { host: 'narrow' }, 400, 'invalid_request'],
    ['an authority with a port', { ':authority': 'orders:80' }, 400, 'invalid_request'],
    ['a scheme that is not http', { ':scheme': 'https' }, 400, 'invalid_request'],
    ['a path of dot segments', { ':path': '/v1/../echo' }, 400, 'url_refused'],
    ['an unknown expectation', { expect: 'more' }, 400, 'invalid_request'],
    ['a browser', { origin: 'http://page.example' }, 403, 'browser_refused'],
    ['a target that is none', { ':authority': 'nobody' }, 403, 'target_unknown'],
    ['a path that no grant names', { ':authority': 'narrow' }, 403, 'policy_denied'],
    ['TRACE', { ':method': 'TRACE' }, 403, 'policy_denied'],
    // HTTP/1.1 clients spell methods in capitals, whatever they are told: this one would leave as TRACE.
    ['a method in small letters', { ':method': 'trace' }, 400, 'invalid_request'],
    [
      'too many headers',
      Object.fromEntries(Array.from({ length: 129 }, (_, at) => [`x-${at}`, ''])),
      400,
      'header_refused',
    ],
  ]

  it('is refused for an authority with userinfo, by HTTP/2 itself where Node is newer than 22', async () => {
    const before = server.requests.length
    const { code, headers, status } = await send(open(), { ':path': '/echo', ':authority': 'a@orders' })
    const refused = [status, headers['holdfast-reason'] ?? code]
    expect([
      [400, 'invalid_request'],
      [Number.NaN, constants.NGHTTP2_PROTOCOL_ERROR],
    ]).toContainEqual(refused)
    expect(server.requests).toHaveLength(before)
  })

  it.each(refusals)('is refused for %s', async (_what, headers, status, reason) => {
    const before = server.requests.length
    const got = await send(open(), { ':path': '/echo', ...headers })
    expect([got.status, got.headers['holdfast-reason']]).toEqual([status, reason])
    expect(JSON.parse(got.text).error.reason).toBe(reason)
    expect(server.requests).toHaveLength(before)
  })

  it('is refused as CONNECT', async () => {
    const session = open()
    const got = await send(session, { ':method': 'CONNECT', ':authority': 'orders' })
    expect([got.status, got.headers['holdfast-reason']]).toEqual([405, 'method_not_allowed'])
  })

  it('goes away when its connection asks nothing any more: GOAWAY, not a reset', async () => {
    const session = open()
    await send(session, { ':path': '/echo' })
    const gone = new Promise<number>((resolve) => session.on('goaway', resolve))
    egress.door.drain()
    expect(await gone).toBe(constants.NGHTTP2_NO_ERROR)
  })
})

/** Frames of a connection as they came: type, stream and payload. */
function framesOf({ received }: Wire) {
  const found: { readonly type: number; readonly stream: number; readonly payload: Buffer }[] = []
  for (let at = 0; at + 9 <= received.length; ) {
    const length = received.readUIntBE(at, 3)
    const [type, stream] = [received.readUInt8(at + 3), received.readUInt32BE(at + 5)]
    found.push({ type, stream, payload: received.subarray(at + 9, at + 9 + length) })
    at += 9 + length
  }
  return found
}

/** The error codes of every RST_STREAM and GOAWAY that came. */
function codesOf(wire: Wire): readonly number[] {
  return framesOf(wire).flatMap(({ type, payload }) => {
    if (type === RST_STREAM) return [payload.readUInt32BE(0)]
    return type === GOAWAY ? [payload.readUInt32BE(4)] : []
  })
}

const HEAD = FLAG.endHeaders | FLAG.endStream

describe('frames that no honest client sends', () => {
  const isOver = (wire: Wire, stream = 1) =>
    wire.isClosed ||
    framesOf(wire).some((one) => one.type === GOAWAY || (one.type === RST_STREAM && one.stream === stream))

  const over = async (bytes: readonly Buffer[], before = server.requests.length) => {
    using wire = await openWire(egress.socket)
    await wire.write(Buffer.concat([opening([]), ...bytes]))
    await until('the stream or the connection to end', () => isOver(wire))
    expect(server.requests).toHaveLength(before)
    // The door goes on for everybody else.
    expect((await send(open(), { ':path': '/echo' })).status).toBe(200)
  }

  const pseudo = (fields: Readonly<Record<string, string>>) =>
    Buffer.concat(Object.entries(fields).map(([name, value]) => literal(name, value)))
  const good = { ':method': 'GET', ':scheme': 'http', ':authority': 'orders', ':path': '/echo' }

  const resets = (count: number) => {
    const cancel = Buffer.from([0, 0, 0, constants.NGHTTP2_CANCEL])
    const block = pseudo({ ...good, ':path': '/v1' })
    return Array.from({ length: count }, (_, at) =>
      Buffer.concat([
        frame(FRAME.headers, HEAD, at * 2 + 1, block),
        frame(RST_STREAM, 0, at * 2 + 1, cancel),
      ]),
    )
  }

  it.each([
    ['two authorities', Buffer.concat([pseudo(good), literal(':authority', 'narrow')])],
    ['two paths', Buffer.concat([pseudo(good), literal(':path', '/v1/x')])],
    ['a pseudo-header behind a field', Buffer.concat([literal('x', 'y'), pseudo(good)])],
    ['an upper-case name', Buffer.concat([pseudo(good), literal('Authorization', 'x')])],
    ['Connection', Buffer.concat([pseudo(good), literal('connection', 'authorization')])],
    ['Transfer-Encoding', Buffer.concat([pseudo(good), literal('transfer-encoding', 'chunked')])],
    ['Upgrade', Buffer.concat([pseudo(good), literal('upgrade', 'websocket')])],
    ['TE other than trailers', Buffer.concat([pseudo(good), literal('te', 'gzip')])],
    ['extended CONNECT', pseudo({ ...good, ':method': 'CONNECT', ':protocol': 'websocket' })],
    ['an absolute path', pseudo({ ...good, ':path': 'http://orders/echo' })],
    ['an empty authority', pseudo({ ...good, ':authority': '' })],
    ['no path', pseudo({ ':method': 'GET', ':scheme': 'http', ':authority': 'orders' })],
    ['a table index that is none', Buffer.from([0xff, 0xff, 0xff, 0x7f])],
  ])('with %s end the stream or the connection', async (_what, block) => {
    await over([frame(FRAME.headers, HEAD, 1, block)])
  })

  it('with a line break in a value leave without it', async () => {
    const before = server.requests.length
    using wire = await openWire(egress.socket)
    const block = Buffer.concat([pseudo(good), literal('x-broken', 'a\r\nhost: narrow')])
    await wire.write(Buffer.concat([opening([]), frame(FRAME.headers, HEAD, 1, block)]))
    await until('an answer', () => framesOf(wire).some(({ stream }) => stream === 1))
    for (const { rawHeaders } of server.requests.slice(before))
      expect(rawHeaders.join()).not.toContain('narrow')
  })

  it('with a length that the body does not have reach no target whole', async () => {
    const block = Buffer.concat([pseudo({ ...good, ':method': 'POST' }), literal('content-length', '3')])
    using wire = await openWire(egress.socket)
    await wire.write(
      Buffer.concat([
        opening([]),
        frame(FRAME.headers, FLAG.endHeaders, 1, block),
        frame(FRAME.data, FLAG.endStream, 1, Buffer.from('four')),
      ]),
    )
    await until('the stream to end', () => isOver(wire))
    expect(
      server.requests.at(-1)?.headers['content-length'] === '3' && server.requests.at(-1)?.complete,
    ).toBeFalsy()
  })

  it.each([
    ['taken back', () => frame(RST_STREAM, 0, 1, Buffer.from([0, 0, 0, constants.NGHTTP2_CANCEL]))],
    ['reset without an error', () => frame(RST_STREAM, 0, 1, Buffer.from([0, 0, 0, 0]))],
    ['lost with its connection', () => undefined],
  ])('in the middle of a body that is %s reach no target whole', async (_what, ending) => {
    const [before, ended] = [server.requests.length, uploads.length]
    using wire = await openWire(egress.socket)
    const block = pseudo({ ...good, ':method': 'POST', ':path': '/upload' })
    await wire.write(
      Buffer.concat([
        opening([]),
        frame(FRAME.headers, FLAG.endHeaders, 1, block),
        frame(FRAME.data, 0, 1, Buffer.from('some of it')),
      ]),
    )
    await until('the request', () => server.requests.length > before)
    const upload = server.requests.at(-1)
    const last = ending()
    if (last) await wire.write(last)
    else wire.socket.destroy()
    await until('its end', () => upload?.destroyed)
    expect([uploads.length, upload?.complete]).toEqual([ended, false])
  })

  it('on stream 2, on stream 0, or data of nobody end the connection', async () => {
    await over([frame(FRAME.headers, HEAD, 2, pseudo(good))])
    await over([frame(FRAME.headers, HEAD, 0, pseudo(good))])
    await over([frame(FRAME.data, 0, 7, Buffer.from('x'))])
  })

  it('with continuations without end are cut off', async () => {
    const block = literal('x', 'y'.repeat(100))
    const more = Array.from({ length: 64 }, () => frame(FRAME.continuation, 0, 1, block))
    await over([frame(FRAME.headers, FLAG.endStream, 1, pseudo(good)), ...more])
  })

  it('with headers of more than 32 KiB are cut off', async () => {
    const fields = Array.from({ length: 120 }, (_, at) => literal(`x-${at}`, 'y'.repeat(120)))
    const double = [...fields, ...fields, ...fields]
    await over([frame(FRAME.headers, HEAD, 1, Buffer.concat([pseudo(good), ...double]))])
  })

  it('with more data than the window holds are a flow control error', async () => {
    const before = server.requests.length
    const chunk = Buffer.alloc(16_384)
    const flood = Array.from({ length: 2 * Math.ceil(CLIENT_WINDOW / chunk.length) }, () =>
      frame(FRAME.data, 0, 1, chunk),
    )
    using wire = await openWire(egress.socket)
    // Nobody reads the body of a request that waits for a person.
    const block = pseudo({ ...good, ':method': 'POST', ':authority': 'held' })
    await wire.write(Buffer.concat([opening([]), frame(FRAME.headers, FLAG.endHeaders, 1, block), ...flood]))
    await until('the stream or the connection to end', () => isOver(wire))
    expect(codesOf(wire)).toContain(constants.NGHTTP2_FLOW_CONTROL_ERROR)
    expect(server.requests).toHaveLength(before)
  })

  it('that end what Node still takes for open leave nothing open', async () => {
    const clock = new ManualClock(Date.now())
    const origin = `https://localhost:${server.port}`
    await using own = await startEgress({ ca, clock, targets: { orders: { origin } } })
    using wire = await openWire(own.socket)
    const block = pseudo({ ...good, ':method': 'POST' })
    const stray = frame(FRAME.continuation, FLAG.endHeaders, 3, literal('x', 'y'))
    await wire.write(Buffer.concat([opening([]), frame(FRAME.headers, FLAG.endHeaders, 1, block), stray]))
    await until('GOAWAY', () => framesOf(wire).some(({ type }) => type === GOAWAY))
    await until('the connection to end', () => {
      clock.advance(10_000)
      return wire.isClosed
    })
  })

  it('that open and reset streams for ever end the connection', async () => {
    using wire = await openWire(egress.socket)
    await wire.write(opening([]))
    for (const pair of resets(2_000)) wire.socket.write(pair)
    await wire.closed()
  })

  it('that open and reset streams for ever keep nobody else waiting', async () => {
    let [rounds, isOver] = [0, false]
    const flood = async () => {
      for (; !isOver; rounds += 1) {
        using wire = await openWire(egress.socket)
        await wire.write(Buffer.concat([opening([]), ...resets(1_000)]))
        await wire.closed()
      }
    }
    const flooding = flood()
    await until('the flood to be under way', () => rounds > 0)
    for (let at = 0; at < 5; at += 1) expect((await send(open(), { ':path': '/echo' })).status).toBe(200)
    isOver = true
    await flooding
  })

  it('that repeat settings or pings unread for ever hold no memory', async () => {
    using wire = await openWire(egress.socket)
    wire.socket.pause()
    await wire.write(opening([]))
    const settings = Buffer.concat(Array.from({ length: 1_000 }, () => frame(FRAME.settings, 0, 0)))
    let taken = 0
    for (; taken < 200 && wire.socket.writableLength < MIB; taken += 1) wire.socket.write(settings)
    expect((await send(open(), { ':path': '/echo' })).status).toBe(200)
    wire.socket.resume()
    await until('the connection to end', () => wire.isClosed)
  })

  it('that open more streams than allowed are refused, the others served', async () => {
    const session = open()
    await new Promise((resolve) => session.once('remoteSettings', resolve))
    expect(session.remoteSettings.maxConcurrentStreams).toBe(STREAMS)
    expect(session.remoteSettings.maxHeaderListSize).toBe(32 * 1024)
    using wire = await openWire(egress.socket)
    const block = pseudo({ ...good, ':path': '/wait' })
    const ids = Array.from({ length: STREAMS + 1 }, (_, at) => 2 * at + 1)
    const last = ids.at(-1) ?? 0
    await wire.write(Buffer.concat([opening([]), ...ids.map((id) => frame(FRAME.headers, HEAD, id, block))]))
    await until('the allowed to arrive', () => waiting.length === STREAMS)
    await until('the last to be refused', () => isOver(wire, last))
    expect(codesOf(wire)).toEqual([constants.NGHTTP2_REFUSED_STREAM])
    for (const answer of waiting.splice(0)) answer()
    const bodies = () =>
      framesOf(wire).filter(({ type, payload }) => type === FRAME.data && payload.length > 0)
    await until('the others to be answered', () => bodies().length === STREAMS)
    expect(bodies().map(({ stream }) => stream)).not.toContain(last)
  })
})

describe('trailers that HTTP/2 has no form for', () => {
  it('of a target break the answer off', async () => {
    const { status, code } = await send(open(), { ':path': '/twice', te: 'trailers' })
    expect([status, code]).toEqual([200, constants.NGHTTP2_INTERNAL_ERROR])
    expect((await send(open(), { ':path': '/echo' })).status).toBe(200)
  })

  it('of a caller break its request off', async () => {
    const wholes: boolean[] = []
    const upstream = createSecureServer({ ...ca.serverFiles() })
    upstream.on('stream', (stream) => {
      stream.on('error', () => {})
      stream.resume()
      stream.on('close', () => wholes.push(stream.rstCode === constants.NGHTTP2_NO_ERROR))
    })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    const { port } = upstream.address() as AddressInfo
    await using own = await startEgress({ ca, targets: { orders: { origin: `https://localhost:${port}` } } })
    using wire = await openWire(own.socket)
    const head = 'POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n'
    await wire.write(`${head}2\r\nhi\r\n0\r\netag: 1\r\netag: 2\r\n\r\n`)
    await wire.closed()
    expect(wire.received.toString()).toContain('upstream_unavailable')
    await until('the target to hear of it', () => wholes.length > 0)
    expect(wholes).toEqual([false])
    upstream.close()
  })
})

describe('a target that speaks HTTP/2', () => {
  it('and loses its connection midway leaves no answer that looks whole', async () => {
    const upstream = createSecureServer({ ...ca.serverFiles() })
    let cut = () => {}
    upstream.on('secureConnection', (socket) => {
      cut = () => socket.destroy()
    })
    upstream.on('stream', (stream) => {
      stream.on('error', () => {})
      stream.respond({ ':status': 200 })
      stream.write('half')
      setTimeout(() => cut(), 50)
    })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    const { port } = upstream.address() as AddressInfo
    await using own = await startEgress({ ca, targets: { orders: { origin: `https://localhost:${port}` } } })
    using wire = await openWire(own.socket)
    await wire.write('GET / HTTP/1.1\r\nHost: orders\r\n\r\n')
    await wire.closed()
    expect(wire.received.toString()).toMatch(/half/)
    expect(wire.received.toString()).not.toMatch(/\r\n0\r\n\r\n$/)
    upstream.close()
  })

  it('gets no end of a body whose caller is lost in the middle', async () => {
    const upstream = createSecureServer({ ...ca.serverFiles() })
    const heard: string[] = []
    upstream.on('stream', (stream) => {
      stream.on('error', () => {})
      stream.on('data', (chunk: Buffer) => heard.push(chunk.toString()))
      stream.on('end', () => heard.push(stream.closed ? 'cut off' : 'whole'))
    })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    const { port } = upstream.address() as AddressInfo
    await using own = await startEgress({ ca, targets: { orders: { origin: `https://localhost:${port}` } } })
    using wire = await openWire(own.socket)
    await wire.write('POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n')
    await until('the first part', () => heard.length === 1)
    wire.socket.destroy()
    await until('the end', () => heard.length === 2)
    expect(heard).toEqual(['some', 'cut off'])
    upstream.close()
  })
})
