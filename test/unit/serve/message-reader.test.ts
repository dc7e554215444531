import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MessageReader } from '../../../src/serve/message-reader.ts'

function prefixed(message: Uint8Array, flag = 0): Buffer {
  const head = Buffer.from([flag, 0, 0, 0, 0])
  head.writeUInt32BE(message.length, 1)
  return Buffer.concat([head, message])
}

function readAll(reader: MessageReader): readonly Buffer[] {
  const found: Buffer[] = []
  for (let next = reader.next(); next; next = reader.next()) found.push(Buffer.from(next))
  return found
}

describe('messages', () => {
  it('come whole, in any pieces', () => {
    const message = fc.uint8Array({ maxLength: 400 })
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 60 })),
        (sent, cuts) => {
          const all = Buffer.concat(sent.map((each) => prefixed(each)))
          const reader = new MessageReader()
          const read: Buffer[] = []
          for (let at = 0, cut = 0; at < all.length; cut += 1) {
            const size = cuts[cut] ?? all.length
            reader.push(all.subarray(at, at + size))
            read.push(...readAll(reader))
            reader.keep()
            at += size
          }
          expect(read).toEqual(sent.map((each) => Buffer.from(each)))
          expect(reader.size).toBe(0)
        },
      ),
    )
  })

  it('that are not whole keep no larger buffer than they are', () => {
    const reader = new MessageReader()
    const chunk = Buffer.alloc(60_000)
    prefixed(Buffer.alloc(100, 1)).copy(chunk)
    reader.push(chunk.subarray(0, 50))
    expect(reader.next()).toBeUndefined()
    reader.keep()
    chunk.fill(9)
    reader.push(prefixed(Buffer.alloc(100, 1)).subarray(50))
    expect(reader.next()).toEqual(Buffer.alloc(100, 1))
  })

  it.each([
    ['a compressed one', prefixed(Buffer.alloc(1), 1), 'unimplemented'],
    [
      'one over a MiB, by its length alone',
      prefixed(Buffer.alloc(1024 * 1024 + 1)).subarray(0, 5),
      'body_too_large',
    ],
  ])('refuse %s', (_what, bytes, reason) => {
    const reader = new MessageReader()
    reader.push(bytes)
    expect(() => reader.next()).toThrow(expect.objectContaining({ reason }))
  })
})
