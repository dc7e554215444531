import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HpackError, replaceSlashes } from '../../../src/serve/hpack.ts'
import { blockOf, raw } from '../../support/h2.ts'

const bytes = (...parts: readonly (number | Buffer)[]) =>
  Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.from([part]) : part)))
const repaired = (block: Buffer) => {
  const copy = Buffer.from(block)
  replaceSlashes(copy)
  return copy
}

describe('replaceSlashes', () => {
  it.each([
    ['incremental indexing', 0x41],
    ['no indexing', 0x01],
    ['never indexed', 0x11],
  ])('changes an :authority literal with %s', (_form, octet) => {
    const block = bytes(0x83, octet, raw('/run/a.sock'), 0x84, 0x40, raw('x-path'), raw('/a/b'))
    const wanted = bytes(0x83, octet, raw('-run-a.sock'), 0x84, 0x40, raw('x-path'), raw('/a/b'))
    expect(repaired(block)).toEqual(wanted)
  })

  it.each([
    ['incremental indexing', 0x40],
    ['no indexing', 0x00],
    ['never indexed', 0x10],
  ])('knows :authority by a spelled-out name with %s', (_form, octet) => {
    const coded = Buffer.from('88b83b5339ec327d7f', 'hex')
    for (const name of [raw(':authority'), coded])
      expect(repaired(bytes(octet, name, raw('/a')))).toEqual(bytes(octet, name, raw('-a')))
  })

  it.each([
    ['the path, whose name is index 4', bytes(0x44, raw('/a/b'))],
    ['a header whose name only begins alike', bytes(0x40, raw(':authority2'), raw('/a'))],
    ['a header named by the dynamic table', bytes(0x7e, raw('/a'))],
    ['a name with slashes', bytes(0x40, raw('/x/'), raw('/a'))],
    ['indexed fields and table sizes', bytes(0x3f, 0xe1, 0x1f, 0x20, 0x82, 0x81, 0xff, 0x80, 0x01)],
    ['an empty block', Buffer.alloc(0)],
    ['an empty authority', bytes(0x41, 0x00)],
  ])('leaves %s alone', (_what, block) => {
    expect(replaceSlashes(Buffer.from(block))).toBe(false)
    expect(repaired(block)).toEqual(block)
  })

  it.each([
    ['a name index that is cut off', bytes(0x7f)],
    ['an integer without an end', bytes(0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01)],
    ['a length beyond the block', bytes(0x41, 0x05, 0x61)],
    ['no value', bytes(0x41)],
    ['no name', bytes(0x40)],
    ['index 0', bytes(0x80)],
    ['Huffman padding of a whole octet', bytes(0x41, 0x82, 0x1f, 0xff)],
    ['Huffman padding with a zero', bytes(0x41, 0x81, 0x1e)],
    ['the Huffman end symbol', bytes(0x41, 0x84, 0xff, 0xff, 0xff, 0xff)],
  ])('refuses %s', (_what, block) => {
    expect(() => replaceSlashes(block)).toThrow(HpackError)
  })

  it('makes of any authority that nghttp2 encodes what nghttp2 makes of it without slashes', async () => {
    // Mostly characters with short codes: nghttp2 codes only what gets shorter, and long codes hide among them.
    const between = (from: number, to: number) =>
      fc.integer({ min: from, max: to }).map((code) => String.fromCharCode(code))
    const unit = fc.oneof(
      { weight: 4, arbitrary: fc.constant('/') },
      { weight: 16, arbitrary: between(0x61, 0x7a) },
      { weight: 2, arbitrary: between(0x21, 0x7e) },
      { weight: 1, arbitrary: between(0xa1, 0xff) },
    )
    const text = fc.string({ unit, minLength: 1, maxLength: 80, size: 'max' })
    await fc.assert(
      fc.asyncProperty(text, async (authority) => {
        const [before, after] = await Promise.all([
          blockOf({ ':authority': authority, ':path': '/x/y' }),
          blockOf({ ':authority': authority.replaceAll('/', '-'), ':path': '/x/y' }),
        ])
        expect(repaired(before)).toEqual(after)
      }),
      { numRuns: 300 },
    )
  })

  it('ends on any bytes, with an HpackError or without, and never changes their number', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (input) => {
        const block = Buffer.from(input)
        try {
          replaceSlashes(block)
        } catch (error) {
          expect(error).toBeInstanceOf(HpackError)
        }
        expect(block.length).toBe(input.length)
      }),
      { numRuns: 3_000 },
    )
  })

  it('takes time in proportion to the block, however many authorities it has', () => {
    const empty = Buffer.alloc(65_536)
    for (let at = 0; at < empty.length; at += 2) empty[at] = 0x41
    const start = process.cpuUsage()
    replaceSlashes(empty)
    expect(process.cpuUsage(start).user).toBeLessThan(500_000)
  })
})
