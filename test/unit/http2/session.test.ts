import { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { writeBlock } from '../../../src/http2/hpack.ts'
import { Session } from '../../../src/http2/session.ts'
import type { Stream, StreamUser } from '../../../src/http2/stream.ts'
import { Turns } from '../../../src/serve/turns.ts'
import { ManualClock } from '../../support/clock.ts'
import { FLAG, FRAME, frame, OPEN_TURN, opening } from '../../support/h2.ts'
import { literal } from '../../support/h2-fuzz.ts'

const PRIORITY = 2
const RST_STREAM = 3
const PUSH_PROMISE = 5
const PING = 6
const GOAWAY = 7
const WINDOW_UPDATE = 8
const WINDOW = 65_535
const MIB = 1024 * 1024

const CODES: Readonly<Record<number, string>> = {
  0: 'none',
  1: 'protocol',
  3: 'flow control',
  5: 'stream closed',
  6: 'frame size',
  7: 'refused',
  8: 'cancel',
  9: 'compression',
  11: 'calm',
}

const HEAD: Buffer = Buffer.concat([
  literal(':method', 'POST'),
  literal(':scheme', 'http'),
  literal(':path', '/a/b'),
  literal(':authority', '/run/a.sock'),
])
const headers = (stream: number, block = HEAD, flags = 0) =>
  frame(FRAME.headers, FLAG.endHeaders | flags, stream, block)
const whole = (stream: number, block = HEAD) => headers(stream, block, FLAG.endStream)
const word = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}
const setting = (id: number, value: number) =>
  frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.of(0, id), word(value)]))

/** A frame that was sent, as a test reads it. */
interface Sent {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

const TURNS = 8

/** A client by hand and the session that serves it; `takes` turned off, it reads nothing. */
class Rig {
  readonly clock = new ManualClock()
  readonly streams: Stream[] = []
  readonly heard: string[] = []
  readonly session: Session
  readonly bugs: unknown[] = []
  /** As its owner is told. */
  held = 0
  #sent: Buffer = Buffer.alloc(0)
  #done: (() => void)[] = []
  takes = true
  readonly wire: Duplex

  constructor(user: (stream: Stream) => Partial<StreamUser> = () => ({}), turn = OPEN_TURN) {
    this.wire = new Duplex({
      read: () => {},
      write: (chunk: Buffer, _encoding, done) => {
        this.#sent = Buffer.concat([this.#sent, chunk])
        if (this.takes) done()
        else this.#done.push(done)
      },
    })
    this.session = new Session(this.wire, {
      clock: this.clock,
      turn,
      streams: 3,
      hold: (octets) => {
        this.held += octets
        return this.held <= 5 * MIB
      },
      onBug: (caught) => this.bugs.push(caught),
      open: (stream) => {
        this.streams.push(stream)
        const note = (what: string) => this.heard.push(`${stream.id} ${what}`)
        return {
          data: (bytes) => {
            note(`data ${bytes.length}`)
            stream.consumed(bytes.length)
          },
          end: () => note('end'),
          drained: () => note('drained'),
          closed: () => note('closed'),
          ...user(stream),
        }
      },
    })
  }

  /** Says these, and waits for what the session makes of it. */
  async say(...frames: readonly Buffer[]): Promise<void> {
    this.wire.push(Buffer.concat(frames))
    await this.settle()
  }

  async settle(): Promise<void> {
    for (let turn = 0; turn < TURNS; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  }

  /** Takes what waits. */
  async take(): Promise<void> {
    this.takes = true
    for (const done of this.#done.splice(0)) done()
    await this.settle()
  }

  get sent(): readonly Sent[] {
    const found: Sent[] = []
    for (let at = 0; at + 9 <= this.#sent.length; ) {
      const end = at + 9 + this.#sent.readUIntBE(at, 3)
      const [type, flags] = [this.#sent.readUInt8(at + 3), this.#sent.readUInt8(at + 4)]
      const stream = this.#sent.readUInt32BE(at + 5)
      found.push({ type, flags, stream, payload: this.#sent.subarray(at + 9, end) })
      at = end
    }
    return found
  }

  of(type: number): readonly Sent[] {
    return this.sent.filter((each) => each.type === type)
  }

  /** The octets of data that were sent on a stream. */
  dataOf(stream: number): number {
    return this.of(FRAME.data)
      .filter((each) => each.stream === stream)
      .reduce((sum, { payload }) => sum + payload.length, 0)
  }

  /** How the connection was ended, and which streams were reset, with the reason. */
  get errors() {
    return {
      goAway: this.of(GOAWAY).map(({ payload }) => CODES[payload.readUInt32BE(4)]),
      resets: this.of(RST_STREAM).map(({ stream, payload }) => `${stream} ${CODES[payload.readUInt32BE(0)]}`),
    }
  }
}

async function opened(user?: (stream: Stream) => Partial<StreamUser>): Promise<Rig> {
  const rig = new Rig(user)
  await rig.say(opening([]))
  return rig
}

const answer = (stream: Stream, octets: number, left?: () => void) => {
  stream.head(writeBlock([[':status', '200']]))
  stream.write(Buffer.alloc(octets, 7), left)
  stream.finish(writeBlock([['x-end', '1']]))
}

describe('a connection', () => {
  it('says its settings before all else, and acknowledges those of the client', async () => {
    const rig = await opened()
    const [first, ...rest] = rig.sent
    expect(first).toMatchObject({ type: FRAME.settings, flags: 0 })
    expect(rest.map(({ type, flags }) => [type, flags])).toEqual([
      [WINDOW_UPDATE, 0],
      [FRAME.settings, 1],
    ])
  })

  it.each([
    ['another preface', [Buffer.from('PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n')], 'protocol'],
    ['no SETTINGS first', [opening([]).subarray(0, 24), frame(PING, 0, 0, Buffer.alloc(8))], 'protocol'],
  ])('ends for %s', async (_what, frames, code) => {
    const rig = new Rig()
    await rig.say(...frames)
    expect(rig.errors.goAway).toEqual([code])
    expect(rig.wire.destroyed).toBe(true)
  })

  it.each<readonly [string, readonly Buffer[], string]>([
    ['a frame larger than allowed', [frame(FRAME.data, 0, 1, Buffer.alloc(16_385))], 'frame size'],
    ['DATA of no stream', [frame(FRAME.data, 0, 0, Buffer.alloc(1))], 'protocol'],
    ['DATA of a stream that was never begun', [frame(FRAME.data, 0, 1, Buffer.alloc(1))], 'protocol'],
    [
      'padding beyond the frame',
      [headers(1), frame(FRAME.data, FLAG.padded, 1, Buffer.of(9, 1))],
      'protocol',
    ],
    ['HEADERS of no stream', [headers(0)], 'protocol'],
    ["HEADERS of a server's stream", [headers(2)], 'protocol'],
    ['a stream with a number below the last', [whole(5), whole(3)], 'stream closed'],
    ['a header block with another frame in it', [frame(FRAME.headers, 0, 1, HEAD), whole(3)], 'protocol'],
    ['CONTINUATION of nothing', [frame(FRAME.continuation, 4, 1, HEAD)], 'protocol'],
    [
      'CONTINUATION of another stream',
      [frame(FRAME.headers, 0, 1, HEAD), frame(FRAME.continuation, 4, 3, HEAD)],
      'protocol',
    ],
    ['a block that is no HPACK', [headers(1, Buffer.of(0x80))], 'compression'],
    [
      'priority that is cut off',
      [frame(FRAME.headers, FLAG.endHeaders | FLAG.priority, 1, Buffer.of(1))],
      'frame size',
    ],
    ['PRIORITY of no stream', [frame(PRIORITY, 0, 0, Buffer.alloc(5))], 'protocol'],
    ['RST_STREAM of a stream that was never begun', [frame(RST_STREAM, 0, 1, word(8))], 'protocol'],
    ['RST_STREAM of a wrong size', [headers(1), frame(RST_STREAM, 0, 1, Buffer.alloc(3))], 'frame size'],
    ['SETTINGS of a stream', [frame(FRAME.settings, 0, 1)], 'protocol'],
    ['SETTINGS of a wrong size', [frame(FRAME.settings, 0, 0, Buffer.alloc(5))], 'frame size'],
    ['an acknowledgement that says something', [frame(FRAME.settings, 1, 0, Buffer.alloc(6))], 'frame size'],
    ['ENABLE_PUSH of 2', [setting(2, 2)], 'protocol'],
    ['a window over 2^31-1', [setting(4, 2 ** 31)], 'flow control'],
    ['frames smaller than may be said', [setting(5, 16_383)], 'protocol'],
    ['frames larger than may be said', [setting(5, 2 ** 24)], 'protocol'],
    [
      'a window that grows too far with the settings',
      [headers(1), frame(WINDOW_UPDATE, 0, 1, word(2 ** 31 - 1 - WINDOW)), setting(4, WINDOW + 1)],
      'flow control',
    ],
    ['PUSH_PROMISE', [frame(PUSH_PROMISE, 0, 1, Buffer.alloc(4))], 'protocol'],
    ['PING of a stream', [frame(PING, 0, 1, Buffer.alloc(8))], 'protocol'],
    ['PING of a wrong size', [frame(PING, 0, 0, Buffer.alloc(7))], 'frame size'],
    ['GOAWAY of a stream', [frame(GOAWAY, 0, 1, Buffer.alloc(8))], 'protocol'],
    ['GOAWAY that is cut off', [frame(GOAWAY, 0, 0, Buffer.alloc(7))], 'frame size'],
    ['WINDOW_UPDATE of nothing', [frame(WINDOW_UPDATE, 0, 0, word(0))], 'protocol'],
    ['WINDOW_UPDATE of a wrong size', [frame(WINDOW_UPDATE, 0, 0, Buffer.alloc(3))], 'frame size'],
    [
      'a window over 2^31-1 of the connection',
      [frame(WINDOW_UPDATE, 0, 0, word(2 ** 31 - 1))],
      'flow control',
    ],
    [
      'a header block without an end',
      [
        frame(FRAME.headers, 0, 1, HEAD),
        ...Array.from({ length: 64 }, () => frame(FRAME.continuation, 0, 1)),
      ],
      'calm',
    ],
    [
      'a header block over 64 KiB',
      [
        frame(FRAME.headers, 0, 1, Buffer.alloc(16_384)),
        ...Array.from({ length: 4 }, () => frame(FRAME.continuation, 0, 1, Buffer.alloc(16_384))),
      ],
      'calm',
    ],
  ])('ends for %s, says why, and gives its streams up', async (_what, frames, code) => {
    const rig = await opened()
    await rig.say(...frames)
    expect(rig.errors.goAway).toEqual([code])
    expect(rig.wire.destroyed).toBe(true)
    expect(rig.heard.filter((line) => line.endsWith('closed'))).toHaveLength(rig.streams.length)
    expect(rig.bugs).toEqual([])
  })

  it.each<readonly [string, readonly Buffer[], string]>([
    [
      'DATA of a closed stream',
      [headers(1), frame(RST_STREAM, 0, 1, word(8)), frame(FRAME.data, 0, 1, Buffer.alloc(1))],
      '1 stream closed',
    ],
    ['DATA behind the last', [whole(1), frame(FRAME.data, 0, 1, Buffer.alloc(1))], '1 stream closed'],
    [
      'more data than the window',
      [headers(1), ...Array.from({ length: 4 }, () => frame(FRAME.data, 0, 1, Buffer.alloc(16_384)))],
      '1 flow control',
    ],
    ['one stream too many', [headers(1), headers(3), headers(5), headers(7)], '7 refused'],
    ['trailers that do not end it', [headers(1), headers(1, literal('x', '1'))], '1 protocol'],
    ['trailers with a pseudo-field', [headers(1), whole(1)], '1 protocol'],
    ['PRIORITY of a wrong size', [headers(1), frame(PRIORITY, 0, 1, Buffer.alloc(4))], '1 frame size'],
    ['WINDOW_UPDATE of nothing', [headers(1), frame(WINDOW_UPDATE, 0, 1, word(0))], '1 protocol'],
    ['a window over 2^31-1', [headers(1), frame(WINDOW_UPDATE, 0, 1, word(2 ** 31 - 1))], '1 flow control'],
    [
      'another length than it says',
      [
        headers(1, Buffer.concat([HEAD, literal('content-length', '2')])),
        frame(FRAME.data, 1, 1, Buffer.alloc(1)),
      ],
      '1 protocol',
    ],
    [
      'fields over the limit',
      [
        frame(FRAME.headers, 0, 1, Buffer.concat([HEAD, literal('x-kept', 'v')])),
        frame(
          FRAME.continuation,
          4,
          1,
          Buffer.concat(Array.from({ length: 130 }, () => literal('x', 'v'.repeat(120)))),
        ),
      ],
      '1 calm',
    ],
  ])('resets a stream for %s, and serves the others', async (_what, frames, reset) => {
    const rig = await opened((stream) => (stream.id === 1 ? { data: () => {} } : {}))
    await rig.say(...frames, frame(PING, 0, 0, Buffer.from('are you?')))
    expect(rig.errors).toEqual({ goAway: [], resets: [reset] })
    expect(rig.of(PING).map(({ flags, payload }) => [flags, payload.toString()])).toEqual([[1, 'are you?']])
  })

  it.each([
    ['an upper-case name', literal('X-One', '1')],
    ['a field of one connection', literal('connection', 'close')],
    ['te that is not trailers', literal('te', 'gzip')],
    ['a pseudo-field behind others', Buffer.concat([literal('x', '1'), literal(':path', '/')])],
    ['a pseudo-field twice', literal(':path', '/b')],
    ['a pseudo-field of answers', literal(':status', '200')],
    ['a line feed in a value', literal('x', 'a\nb')],
    ['a value that begins with a space', literal('x', ' a')],
    ['an empty name', literal('', 'a')],
    ['a length that is no number', literal('content-length', '+1')],
  ])('resets a request with %s before anybody sees it', async (_what, field) => {
    const rig = await opened()
    await rig.say(whole(1, Buffer.concat([HEAD, field])))
    expect(rig.errors).toEqual({ goAway: [], resets: ['1 protocol'] })
    expect(rig.streams).toEqual([])
  })

  it.each([':method', ':scheme', ':path'])('resets a request without %s', async (name) => {
    const rig = await opened()
    const fields = { ':method': 'POST', ':scheme': 'http', ':path': '/a' }
    const kept = Object.entries(fields).filter(([each]) => each !== name)
    await rig.say(whole(1, Buffer.concat(kept.map(([each, value]) => literal(each, value)))))
    expect(rig.errors.resets).toEqual(['1 protocol'])
  })

  it('ignores frames of types that nobody knows', async () => {
    const rig = await opened()
    await rig.say(frame(77, 255, 9, Buffer.alloc(20)), whole(1))
    expect(rig.heard).toEqual(['1 end'])
    expect(rig.errors).toEqual({ goAway: [], resets: [] })
  })

  it('reads frames in pieces of any size', async () => {
    const rig = new Rig()
    const all = Buffer.concat([opening([[4, 9]]), headers(1), frame(FRAME.data, 1, 1, Buffer.alloc(2_000))])
    for (const octet of all) rig.wire.push(Buffer.of(octet))
    await rig.settle()
    expect(rig.heard).toEqual(['1 data 2000', '1 end'])
  })

  it('joins a header block of several frames, with padding and priority', async () => {
    const rig = await opened()
    const padded = Buffer.concat([Buffer.of(3), Buffer.alloc(5), HEAD.subarray(0, 9), Buffer.alloc(3)])
    await rig.say(
      frame(FRAME.headers, FLAG.padded | FLAG.priority | FLAG.endStream, 1, padded),
      frame(FRAME.continuation, 0, 1, HEAD.subarray(9, 20)),
      frame(FRAME.continuation, FLAG.endHeaders, 1, HEAD.subarray(20)),
    )
    expect(rig.heard).toEqual(['1 end'])
  })
})

describe('flow control', () => {
  it('sends no more than a stream takes, and the rest when it takes more', async () => {
    const rig = new Rig((stream) => ({ end: () => answer(stream, 100) }))
    await rig.say(opening([[4, 0]]), whole(1))
    expect(rig.dataOf(1)).toBe(0)
    await rig.say(setting(4, 40))
    expect(rig.dataOf(1)).toBe(40)
    await rig.say(frame(WINDOW_UPDATE, 0, 1, word(59)))
    expect([rig.dataOf(1), rig.of(FRAME.headers).length]).toEqual([99, 1])
    await rig.say(frame(WINDOW_UPDATE, 0, 1, word(1)))
    expect([rig.dataOf(1), rig.of(FRAME.headers).length]).toEqual([100, 2])
    expect(rig.heard).toEqual(['1 closed'])
  })

  it('takes a window below zero', async () => {
    const rig = await opened()
    await rig.say(headers(1))
    rig.streams[0]?.write(Buffer.alloc(50))
    await rig.say(setting(4, 10))
    rig.streams[0]?.write(Buffer.alloc(5))
    await rig.say(frame(WINDOW_UPDATE, 0, 1, word(40)))
    expect(rig.dataOf(1)).toBe(50)
    await rig.say(frame(WINDOW_UPDATE, 0, 1, word(1)))
    expect(rig.dataOf(1)).toBe(51)
  })

  it('shares the window of the connection, in frames that any client takes', async () => {
    const rig = new Rig((stream) => ({ end: () => answer(stream, MIB) }))
    await rig.say(opening([[4, MIB]]), whole(1), whole(3))
    expect(rig.dataOf(1) + rig.dataOf(3)).toBe(WINDOW)
    expect(Math.max(...rig.of(FRAME.data).map(({ payload }) => payload.length))).toBe(16_384)
    await rig.say(frame(WINDOW_UPDATE, 0, 0, word(3 * MIB)))
    expect([rig.dataOf(1), rig.dataOf(3)]).toEqual([MIB, MIB])
  })

  it('tells of what was taken, of a stream by halves of its window', async () => {
    const rig = await opened()
    await rig.say(headers(1), frame(FRAME.data, 0, 1, Buffer.alloc(16_384)))
    expect(rig.of(WINDOW_UPDATE).filter(({ stream }) => stream === 1)).toEqual([])
    await rig.say(frame(FRAME.data, 0, 1, Buffer.alloc(16_384)))
    const [told] = rig.of(WINDOW_UPDATE).filter(({ stream }) => stream === 1)
    expect(told?.payload.readUInt32BE(0)).toBe(32_768)
  })

  it('counts padding, which nobody reads', async () => {
    const rig = await opened(() => ({ data: () => {} }))
    const padded = frame(FRAME.data, FLAG.padded, 1, Buffer.concat([Buffer.of(255), Buffer.alloc(256)]))
    await rig.say(headers(1), ...Array.from({ length: 400 }, () => padded))
    expect(rig.errors).toEqual({ goAway: [], resets: [] })
  })
})

describe('threats row 26: a client that asks for too much', () => {
  it('and takes no answers is not read any more, and heard again when it takes some', async () => {
    const rig = await opened()
    rig.takes = false
    const pings = Array.from({ length: 8_000 }, () => frame(PING, 0, 0, Buffer.alloc(8)))
    await rig.say(...pings)
    await rig.say(whole(1))
    expect(rig.wire.isPaused()).toBe(true)
    expect(rig.of(PING).length).toBeLessThan(65_536 / 17 + 1)
    expect(rig.heard).toEqual([])
    await rig.take()
    expect(rig.heard).toEqual(['1 end'])
    expect(rig.of(PING)).toHaveLength(8_000)
  })

  it('is heard in turns, in order', async () => {
    const turns = new Turns()
    const rig = new Rig(() => ({}), turns.of('uid 1'))
    const pings = Array.from({ length: 1_000 }, (_, at) => frame(PING, 0, 0, Buffer.alloc(8, at % 256)))
    rig.wire.push(Buffer.concat([opening([]), ...pings]))
    const counts: number[] = []
    for (let turn = 0; turn < TURNS; turn += 1) {
      const before = rig.of(PING).length
      await new Promise((resolve) => setImmediate(resolve))
      counts.push(rig.of(PING).length - before)
    }
    expect(Math.max(...counts)).toBeLessThanOrEqual(256)
    expect(rig.of(PING).map(({ payload }) => payload[0])).toEqual(pings.map((_, at) => at % 256))
  })

  it('is heard over several turns when it says much: what is long is decoded', async () => {
    const rig = new Rig(() => ({}), new Turns().of('uid 1'))
    await rig.say(opening([]), headers(1))
    const long = frame(FRAME.data, 0, 1, Buffer.alloc(16_000))
    const counts: number[] = []
    let before = 0
    rig.wire.push(Buffer.concat([long, long, long, long]))
    for (let turn = 0; turn < TURNS; turn += 1) {
      counts.push(rig.heard.length - before)
      before = rig.heard.length
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(Math.max(...counts)).toBeLessThanOrEqual(2)
    expect(rig.heard).toEqual(Array.from({ length: 4 }, () => '1 data 16000'))
  })

  it('that resets what it asked for is sent away after ten thousand, then a thousand a second', async () => {
    const rig = await opened()
    const churn = (from: number, count: number) =>
      Array.from({ length: count }, (_, at) => [
        headers(2 * (from + at) + 1),
        frame(RST_STREAM, 0, 2 * (from + at) + 1, word(8)),
      ]).flat()
    await rig.say(...churn(0, 10_000))
    rig.clock.advance(1_000)
    await rig.say(...churn(10_000, 1_000))
    expect(rig.errors.goAway).toEqual([])
    await rig.say(...churn(11_000, 1))
    expect(rig.errors.goAway).toEqual(['calm'])
  })

  it('that resets what has been answered is not: some proxies end each call so', async () => {
    const rig = await opened((stream) => {
      answer(stream, 1)
      return {}
    })
    const calls = Array.from({ length: 11_000 }, (_, at) => [
      headers(2 * at + 1),
      frame(RST_STREAM, 0, 2 * at + 1, word(8)),
    ])
    await rig.say(...calls.flat())
    await rig.say(whole(22_001))
    expect([rig.streams.length, rig.errors.goAway]).toEqual([11_001, []])
  })

  it('and changes what it takes all the time is sent away', async () => {
    const rig = await opened()
    const changes = (count: number) => Array.from({ length: count }, (_, at) => setting(4, 1 + (at % 2)))
    await rig.say(...changes(10_000))
    expect(rig.errors.goAway).toEqual([])
    await rig.say(...changes(1))
    expect(rig.errors.goAway).toEqual(['calm'])
  })

  it('loses the stream that makes it hold more than 4 MiB', async () => {
    const rig = await opened((stream) => ({
      data: (bytes) => {
        stream.hold(2 * MIB)
        stream.consumed(bytes.length)
      },
    }))
    await rig.say(headers(1), headers(3), headers(5))
    const data = (stream: number) => frame(FRAME.data, 0, stream, Buffer.alloc(1))
    await rig.say(data(1), data(3), data(5))
    expect(rig.errors).toEqual({ goAway: [], resets: ['5 calm'] })
    expect(rig.held).toBe(4 * MIB)
    await rig.say(frame(RST_STREAM, 0, 1, word(8)), headers(7), data(7))
    expect(rig.errors.resets).toEqual(['5 calm'])
    rig.wire.destroy()
    await rig.settle()
    expect(rig.held).toBe(0)
  })

  it('loses the stream that makes its owner hold too much', async () => {
    const rig = await opened((stream) => ({ data: () => stream.hold(2 * MIB) }))
    rig.held = 2 * MIB
    await rig.say(headers(1), headers(3))
    const data = (stream: number) => frame(FRAME.data, 0, stream, Buffer.alloc(1))
    await rig.say(data(1), data(3))
    expect(rig.errors).toEqual({ goAway: [], resets: ['3 calm'] })
    expect(rig.held).toBe(4 * MIB)
  })
})

describe('an end', () => {
  it('of an answer before the request has one stops the client', async () => {
    const rig = await opened()
    await rig.say(headers(1))
    rig.streams[0]?.finish(writeBlock([[':status', '415']]))
    await rig.settle()
    expect(rig.of(FRAME.headers)).toHaveLength(1)
    expect(rig.errors.resets).toEqual(['1 none'])
  })

  it.each<readonly [string, readonly Buffer[]]>([
    ['data', [frame(FRAME.data, 0, 1, Buffer.alloc(9)), frame(FRAME.data, FLAG.endStream, 1)]],
    ['trailers', [whole(1, literal('x-last', '1'))]],
    ['a reset', [frame(RST_STREAM, 0, 1, word(8))]],
  ])('passes over what was on its way, once: %s', async (_what, late) => {
    const rig = await opened((stream) => {
      if (stream.id === 1) stream.finish(writeBlock([[':status', '415']]))
      return {}
    })
    await rig.say(headers(1), ...late, whole(3))
    expect(rig.errors).toEqual({ goAway: [], resets: ['1 none'] })
    expect(rig.streams.length).toBe(2)
    // It has said its last.
    await rig.say(frame(FRAME.data, 0, 1, Buffer.alloc(9)))
    expect(rig.errors.resets).toEqual(['1 none', '1 stream closed'])
  })

  it.each<readonly [string, (stream: Stream) => Partial<StreamUser>]>([
    ['before it is answered', () => ({})],
    [
      'after it was answered at once',
      (stream) => {
        answer(stream, 1)
        return {}
      },
    ],
  ])('passes over nothing that comes behind the last of a request, %s', async (_when, user) => {
    const rig = await opened(user)
    const data = frame(FRAME.data, 0, 1, Buffer.alloc(9))
    await rig.say(whole(1), data, data, data)
    expect(rig.errors.resets.filter((reset) => reset === '1 stream closed')).toHaveLength(3)
  })

  it('of a request that is refused passes over its body', async () => {
    const rig = await opened()
    const body = Array.from({ length: 9 }, () => frame(FRAME.data, 0, 7, Buffer.alloc(9)))
    await rig.say(headers(1), headers(3), headers(5), headers(7), ...body)
    expect(rig.errors).toEqual({ goAway: [], resets: ['7 refused'] })
  })

  it('with leave() passes over the bodies of requests that it does not begin', async () => {
    const rig = await opened()
    await rig.say(headers(1))
    rig.session.leave()
    await rig.say(headers(3), frame(FRAME.data, FLAG.endStream, 3, Buffer.alloc(9)))
    expect(rig.errors).toEqual({ goAway: ['none'], resets: [] })
  })

  it('is told to every stream once, whoever ended it', async () => {
    const rig = await opened()
    await rig.say(headers(1), headers(3), headers(5), frame(RST_STREAM, 0, 3, word(8)))
    rig.streams[2]?.reset(8)
    await rig.settle()
    rig.wire.destroy()
    await rig.settle()
    expect(rig.heard.toSorted()).toEqual(['1 closed', '3 closed', '5 closed'])
    expect(rig.errors.resets).toEqual(['5 cancel'])
  })

  it('with leave() waits for the streams that are open, and begins no others', async () => {
    const rig = await opened()
    await rig.say(whole(1))
    rig.session.leave()
    await rig.say(whole(3), frame(PING, 0, 0, Buffer.alloc(8)))
    expect([rig.streams.length, rig.errors.goAway, rig.wire.destroyed]).toEqual([1, ['none'], false])
    expect(rig.of(GOAWAY)[0]?.payload.readUInt32BE(0)).toBe(1)
    const [stream] = rig.streams
    if (stream) answer(stream, 10)
    await rig.settle()
    expect([rig.dataOf(1), rig.wire.destroyed]).toEqual([10, true])
  })

  it('by who answers begins nothing more of what was read', async () => {
    const rig: Rig = await opened(() => ({ end: () => rig.session.destroy() }))
    await rig.say(headers(1), whole(3), whole(5))
    expect([rig.streams.length, rig.heard]).toEqual([2, ['1 closed', '3 closed']])
  })

  it('comes within a second to a client that takes nothing', async () => {
    const rig = await opened()
    rig.takes = false
    await rig.say(whole(1), frame(PING, 0, 1, Buffer.alloc(8)))
    expect(rig.wire.destroyed).toBe(false)
    rig.clock.advance(1_000)
    expect([rig.wire.destroyed, rig.heard]).toEqual([true, ['1 end', '1 closed']])
  })

  it('of a bug in who answers is of the connection, and is told', async () => {
    const bug = new TypeError('a bug')
    const rig = await opened(() => ({
      end: () => {
        throw bug
      },
    }))
    await rig.say(whole(1))
    expect([rig.bugs, rig.wire.destroyed]).toEqual([[bug], true])
  })
})

describe('what has left', () => {
  it('is wiped, and said to have left', async () => {
    let isGone = false
    const secret = Buffer.alloc(64, 0x5e)
    const rig = new Rig((stream) => ({
      end: () => {
        stream.head(writeBlock([[':status', '200']]))
        stream.write(secret, () => {
          isGone = true
        })
      },
    }))
    rig.takes = false
    await rig.say(opening([]), whole(1))
    expect([isGone, rig.dataOf(1)]).toEqual([false, 0])
    await rig.take()
    expect([isGone, rig.dataOf(1)]).toEqual([true, 64])
    expect(secret.every((octet) => octet === 0)).toBe(true)
  })

  it('or never can, because its stream was reset, is wiped too', async () => {
    let isGone = false
    const secret = Buffer.alloc(64, 0x5e)
    const rig = new Rig((stream) => ({
      end: () =>
        stream.write(secret, () => {
          isGone = true
        }),
    }))
    await rig.say(opening([[4, 0]]), whole(1), frame(RST_STREAM, 0, 1, word(8)))
    expect([isGone, secret.every((octet) => octet === 0)]).toEqual([true, true])
  })
})
