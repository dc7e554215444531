import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FrameError, Frames } from '../../../src/serve/frames.ts'
import { HpackError, replaceSlashes } from '../../../src/serve/hpack.ts'
import { FLAG, FRAME, frame, opening, raw } from '../../support/h2.ts'

const OPENING = opening([[4, 65_535]])
const BLOCK = Buffer.concat([Buffer.from([0x83, 0x41]), raw('/run/a'), Buffer.from([0x84])])
const REPAIRED = Buffer.concat([Buffer.from([0x83, 0x41]), raw('-run-a'), Buffer.from([0x84])])
const PRIORITY = Buffer.from('800000010f', 'hex')

const padded = (block: Buffer, padding: number) =>
  Buffer.concat([Buffer.from([padding]), block, Buffer.alloc(padding)])

/** What comes out for `input` given in pieces of the sizes in `cuts`; the rest in one. */
function through(input: Buffer, cuts: readonly number[] = []): Buffer {
  const frames = new Frames(replaceSlashes)
  const out: Buffer[] = []
  let at = 0
  for (const cut of [...cuts, input.length]) {
    const piece = Buffer.from(input.subarray(at, at + cut))
    at += piece.length
    out.push(...frames.push(piece))
  }
  return Buffer.concat(out)
}

const endHeaders = FLAG.endHeaders
/** Each form of one request, and the same with its authority repaired. */
const FORMS: readonly (readonly [string, (block: Buffer) => readonly Buffer[]])[] = [
  ['plain', (block) => [frame(FRAME.headers, endHeaders, 1, block)]],
  ['padded', (block) => [frame(FRAME.headers, endHeaders | FLAG.padded, 1, padded(block, 0x2f))]],
  [
    'with priority',
    (block) => [frame(FRAME.headers, endHeaders | FLAG.priority, 1, Buffer.concat([PRIORITY, block]))],
  ],
  [
    'padded with priority',
    (block) => [
      frame(
        FRAME.headers,
        endHeaders | FLAG.padded | FLAG.priority,
        1,
        padded(Buffer.concat([PRIORITY, block]), 3),
      ),
    ],
  ],
  [
    'in a CONTINUATION for each octet',
    (block) => [
      frame(FRAME.headers, FLAG.padded, 1, padded(block.subarray(0, 1), 2)),
      ...[...block.subarray(1)].map((octet, index) =>
        frame(FRAME.continuation, index === block.length - 2 ? endHeaders : 0, 1, Buffer.from([octet])),
      ),
    ],
  ],
  [
    'after an empty HEADERS',
    (block) => [frame(FRAME.headers, 0, 1), frame(FRAME.continuation, endHeaders, 1, block)],
  ],
]

describe('Frames', () => {
  it.each(FORMS)('repairs a block %s and keeps the rest, split at every octet', (_form, framesOf) => {
    const conversation = (block: Buffer) =>
      Buffer.concat([
        OPENING,
        ...framesOf(block),
        frame(FRAME.data, FLAG.endStream, 1, Buffer.from('/keep/this')),
        ...framesOf(block),
      ])
    const input = conversation(BLOCK)
    const wanted = conversation(REPAIRED)
    expect(wanted.length).toBe(input.length)
    for (let cut = 0; cut <= input.length; cut++) expect(through(input, [cut])).toEqual(wanted)
    expect(through(input, Array(input.length).fill(1))).toEqual(wanted)
  })

  it('forwards the body of a frame before the frame is whole', () => {
    const frames = new Frames(replaceSlashes)
    const data = frame(FRAME.data, 0, 1, Buffer.alloc(16_384, 0x2f))
    frames.push(Buffer.from(OPENING))
    expect(Buffer.concat(frames.push(data.subarray(0, 100)))).toEqual(data.subarray(0, 100))
  })

  it.each([
    ['another preface', Buffer.from('PRI * HTTP/2.0\r\n\r\nXX')],
    ['a frame over 16,384 octets', Buffer.concat([OPENING, Buffer.from('004001000000000001', 'hex')])],
    ['CONTINUATION without HEADERS', Buffer.concat([OPENING, frame(FRAME.continuation, 4, 1, BLOCK)])],
    [
      'a frame inside a header block',
      Buffer.concat([OPENING, frame(FRAME.headers, 0, 1, BLOCK), frame(FRAME.data, 0, 1)]),
    ],
    [
      'CONTINUATION of another stream',
      Buffer.concat([OPENING, frame(FRAME.headers, 0, 1, BLOCK), frame(FRAME.continuation, 4, 3)]),
    ],
    [
      'padding over the frame',
      Buffer.concat([OPENING, frame(FRAME.headers, 4 | FLAG.padded, 1, Buffer.from([9, 0x82]))]),
    ],
    ['PADDED on an empty frame', Buffer.concat([OPENING, frame(FRAME.headers, 4 | FLAG.padded, 1)])],
    [
      'PRIORITY on a short frame',
      Buffer.concat([OPENING, frame(FRAME.headers, 4 | FLAG.priority, 1, Buffer.alloc(4))]),
    ],
    [
      'a header block over 64 KiB',
      Buffer.concat([
        OPENING,
        frame(FRAME.headers, 0, 1, Buffer.alloc(16_384)),
        ...Array(4).fill(frame(FRAME.continuation, 0, 1, Buffer.alloc(16_384))),
      ]),
    ],
    [
      'a flood of empty CONTINUATION frames',
      Buffer.concat([
        OPENING,
        frame(FRAME.headers, 0, 1),
        ...Array(64).fill(frame(FRAME.continuation, 0, 1)),
      ]),
    ],
  ])('refuses %s', (_what, input) => {
    expect(() => through(input)).toThrow(FrameError)
    expect(() => through(input, Array(100).fill(1))).toThrow(FrameError)
  })

  it('takes the largest header block in the most frames', () => {
    const most = [
      frame(FRAME.headers, 0, 1, Buffer.alloc(16_384, 0x82)),
      ...Array(2).fill(frame(FRAME.continuation, 0, 1, Buffer.alloc(16_384, 0x82))),
      ...Array(60).fill(frame(FRAME.continuation, 0, 1)),
      frame(FRAME.continuation, endHeaders, 1, Buffer.alloc(16_384, 0x82)),
    ]
    const input = Buffer.concat([OPENING, ...most])
    expect(through(input)).toEqual(input)
  })

  it('refuses a block that is no HPACK', () => {
    const input = Buffer.concat([OPENING, frame(FRAME.headers, 4, 1, Buffer.from([0x41]))])
    expect(() => through(input)).toThrow(HpackError)
  })

  it('answers any bytes alike in any pieces, and never with more than came in', () => {
    const conversation = Buffer.concat([OPENING, ...FORMS.flatMap(([, framesOf]) => framesOf(BLOCK))])
    const flips = fc.array(fc.tuple(fc.nat(conversation.length - 1), fc.integer({ min: 0, max: 255 })), {
      maxLength: 4,
    })
    fc.assert(
      fc.property(flips, fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 60 }), (flipped, cuts) => {
        const input = Buffer.from(conversation)
        for (const [at, octet] of flipped) input[at] = octet
        const whole = outcome(() => through(input))
        expect(outcome(() => through(input, cuts))).toEqual(whole)
        if (Buffer.isBuffer(whole)) expect(whole.length).toBeLessThanOrEqual(input.length)
      }),
      { numRuns: 2_000 },
    )
  })
})

function outcome(run: () => Buffer): Buffer | string {
  try {
    return run()
  } catch (error) {
    if (error instanceof FrameError || error instanceof HpackError) return error.constructor.name
    throw error
  }
}
