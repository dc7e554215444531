import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Unread } from '../../../src/http2/unread.ts'

const CHUNK = 65_536

describe('octets that are not read yet', () => {
  it('are those that came, in order, and keep at most twice as many', () => {
    const step = fc.record({ come: fc.integer({ min: 0, max: 300 }), read: fc.integer({ min: 0, max: 300 }) })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const unread = new Unread()
        let [came, read] = [0, 0]
        for (const each of steps) {
          const chunk = Buffer.alloc(CHUNK, 0xff).fill(0, 0, each.come)
          for (let at = 0; at < each.come; at += 1) chunk[at] = came++
          unread.push(chunk.subarray(0, each.come))
          const count = Math.min(each.read, unread.size)
          unread.drop(count)
          read += count
          unread.keep()
          chunk.fill(0xff)
          expect([...unread.octets]).toEqual(
            Array.from({ length: came - read }, (_, at) => (read + at) % 256),
          )
          if (unread.size > 0) expect(unread.octets.buffer.byteLength).toBeLessThanOrEqual(2 * unread.size)
        }
      }),
    )
  })

  it('that come one by one cost no object each', () => {
    const unread = new Unread()
    const buffers = new Set<ArrayBufferLike>()
    for (let at = 0; at < CHUNK; at += 1) {
      unread.push(Buffer.of(at % 256))
      unread.keep()
      buffers.add(unread.octets.buffer)
    }
    expect(unread.size).toBe(CHUNK)
    expect(buffers.size).toBeLessThanOrEqual(Math.log2(CHUNK) + 1)
  })
})
