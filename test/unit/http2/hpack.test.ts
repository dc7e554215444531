import { connect, type OutgoingHttpHeaders } from 'node:http2'
import { Duplex } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HpackReader, LIST_LIMIT, writeBlock } from '../../../src/http2/hpack.ts'
import { HpackError } from '../../../src/http2/hpack-error.ts'
import { FLAG, FRAME, PREFACE, raw } from '../../support/h2.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex')
const bytes = (...parts: readonly (number | Buffer)[]) =>
  Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : part)))

/** The header blocks of requests that Node's own client makes on one connection, in order. */
async function blocksOf(requests: readonly OutgoingHttpHeaders[]): Promise<readonly Buffer[]> {
  const written: Buffer[] = []
  let seen: (() => void) | undefined
  const wire = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      written.push(chunk)
      done()
      seen?.()
    },
  })
  const client = connect('http://localhost', { createConnection: () => wire })
  client.on('error', () => {})
  for (const headers of requests) client.request(headers).on('error', () => {})
  const all = await new Promise<readonly Buffer[]>((resolve) => {
    seen = () => {
      const blocks = blocksIn(Buffer.concat(written))
      if (blocks.length === requests.length) resolve(blocks)
    }
    seen()
  })
  client.destroy()
  return all
}

function blocksIn(sent: Buffer): readonly Buffer[] {
  const blocks: Buffer[] = []
  let open: Buffer[] = []
  for (let at = PREFACE.length; at + 9 <= sent.length; ) {
    const end = at + 9 + sent.readUIntBE(at, 3)
    const [type, flags] = [sent[at + 3], sent[at + 4] ?? 0]
    const part = sent.subarray(at + 9 + (flags & FLAG.priority ? 5 : 0), end)
    if (type === FRAME.headers || type === FRAME.continuation) open.push(part)
    if (open.length > 0 && flags & FLAG.endHeaders) {
      blocks.push(Buffer.concat(open))
      open = []
    }
    at = end
  }
  return blocks
}

describe('header blocks', () => {
  it.each([
    [
      'RFC 7541 C.3: without Huffman codes',
      [
        '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        '8286 84be 5808 6e6f 2d63 6163 6865',
        '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
      ],
    ],
    [
      'RFC 7541 C.4: with Huffman codes',
      [
        '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
        '8286 84be 5886 a8eb 1064 9cbf',
        '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
      ],
    ],
  ])('are read as in %s', (_where, blocks) => {
    const reader = new HpackReader()
    const common = [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'www.example.com'],
    ]
    expect(blocks.map((block) => reader.read(hex(block)))).toEqual([
      common,
      [...common, ['cache-control', 'no-cache']],
      [
        [':method', 'GET'],
        [':scheme', 'https'],
        [':path', '/index.html'],
        [':authority', 'www.example.com'],
        ['custom-key', 'custom-value'],
      ],
    ])
  })

  it('of any requests that nghttp2 makes on one connection are read as they were meant', async () => {
    const unit = fc.integer({ min: 0x21, max: 0xff }).filter((code) => code < 0x7f || code > 0xa0)
    const value = fc
      .array(unit, { minLength: 1, maxLength: 60 })
      .map((codes) => String.fromCharCode(...codes))
    const name = fc.constantFrom('x-one', 'x-two', 'user-agent', 'grpc-timeout', 'x-request-id')
    const request = fc.dictionary(name, value, { maxKeys: 5 })
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 20 }), async (requests) => {
        const heads = requests.map((fields) => ({ ':path': '/a/b', ':method': 'POST', ...fields }))
        // The second time all is in the table, and the third block is the second again.
        const sent = heads.flatMap((head) => [head, head, head])
        const reader = new HpackReader()
        const read = (await blocksOf(sent)).map((block) => Object.fromEntries(reader.read(block) ?? []))
        expect(read).toEqual(sent.map((fields) => expect.objectContaining(fields)))
      }),
      { numRuns: 60 },
    )
  })

  it('that this agent writes are read as they were meant', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'Z', '%', ' ', '\xff'), maxLength: 300 })
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text), { maxLength: 8 }), (fields) => {
        expect(new HpackReader().read(writeBlock(fields))).toEqual(fields)
      }),
    )
  })

  it.each([
    ['an index that is cut off', bytes(0x7f)],
    ['an integer without an end', bytes(0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01)],
    ['a length beyond the block', bytes(0x41, 0x05, 0x61)],
    ['no value', bytes(0x41)],
    ['no name', bytes(0x40)],
    ['index 0', bytes(0x80)],
    ['an index beyond both tables', bytes(0xbe)],
    ['Huffman padding of a whole octet', bytes(0x41, 0x82, 0x1f, 0xff)],
    ['Huffman padding with a zero', bytes(0x41, 0x81, 0x1e)],
    ['the Huffman end symbol', bytes(0x41, 0x84, 0xff, 0xff, 0xff, 0xff)],
    ['a table larger than allowed', hex('3f e2 1f')],
    ['a table resized behind a field', bytes(0x82, 0x20)],
  ])('with %s are refused', (_what, block) => {
    expect(() => new HpackReader().read(block)).toThrow(HpackError)
  })

  describe('that come again', () => {
    const added = (value: string) => bytes(0x41, raw(value))

    it('are not read anew', () => {
      const reader = new HpackReader()
      reader.read(added('one'))
      const block = bytes(0x82, 0xbe, 0x04, raw('/a'))
      const fields = reader.read(block)
      expect(fields).toEqual([
        [':method', 'GET'],
        [':authority', 'one'],
        [':path', '/a'],
      ])
      expect(reader.read(Buffer.from(block))).toBe(fields)
      expect(reader.read(bytes(0x82, 0xbe, 0x04, raw('/b')))?.[2]).toEqual([':path', '/b'])
      expect(reader.read(block)).not.toBe(fields)
    })

    it.each([
      ['a new entry', added('two'), [[':authority', 'two']]],
      ['a smaller table', bytes(0x20, 0x82), undefined],
    ])('mean something else after %s', (_what, between, meaning) => {
      const reader = new HpackReader()
      reader.read(added('one'))
      expect(reader.read(bytes(0xbe))).toEqual([[':authority', 'one']])
      reader.read(between)
      if (meaning) expect(reader.read(bytes(0xbe))).toEqual(meaning)
      else expect(() => reader.read(bytes(0xbe))).toThrow(HpackError)
    })

    it.each([
      ['are read anew when they add an entry', added('one'), false],
      ['are read anew when they have a field that is never indexed', bytes(0x11, raw('one')), false],
      ['are read anew when they resize the table', bytes(0x20, 0x82), false],
      ['are read anew when they are long', bytes(0x01, 0x7f, 0x80, 0x01, Buffer.alloc(255, 0x61)), false],
      ['are not when they are short', bytes(0x01, 0x7f, 0x01, Buffer.alloc(128, 0x61)), true],
    ])('%s', (_what, block, isKept) => {
      const reader = new HpackReader()
      const fields = reader.read(block)
      const again = reader.read(block)
      expect(again).toEqual(fields)
      expect(again === fields).toBe(isKept)
    })
  })

  it('evict the oldest entries, and forget all of them with a table of no size', () => {
    const reader = new HpackReader()
    const large = (name: string) => bytes(0x40, raw(name), 0x7f, 0xa1, 0x0f, Buffer.alloc(2_080, 0x61))
    reader.read(large('first'))
    reader.read(large('second'))
    expect(reader.read(bytes(0xbe))?.[0]?.[0]).toBe('second')
    expect(() => new HpackReader().read(bytes(0xbf))).toThrow(HpackError)
    expect(() => reader.read(bytes(0xbf))).toThrow(HpackError)
    expect(reader.read(bytes(0x20, 0x82))).toEqual([[':method', 'GET']])
    expect(() => reader.read(bytes(0xbe))).toThrow(HpackError)
  })

  it('over the limit are no fields, and what comes later is read all the same', () => {
    const reader = new HpackReader()
    const field = bytes(0x40, raw('x-kept'), raw('v'))
    const bomb = Buffer.concat([field, Buffer.alloc(LIST_LIMIT / 38, 0xbe)])
    expect(reader.read(bomb)).toBeUndefined()
    expect(reader.read(bytes(0xbe))).toEqual([['x-kept', 'v']])
  })

  it('of any bytes are fields, or an HpackError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (input) => {
        try {
          new HpackReader().read(Buffer.from(input))
        } catch (error) {
          expect(error).toBeInstanceOf(HpackError)
        }
      }),
      { numRuns: 3_000 },
    )
  })
})
