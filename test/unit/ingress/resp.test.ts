/** Replies of a Redis server, whole or in pieces, and what a hostile one may send. */
import { describe, expect, it } from 'vitest'
import { encodeCommand, RedisError, type Reply, ReplyReader } from '../../../src/ingress/resp.ts'

const TEXT =
  '+OK\r\n:-7\r\n$5\r\na\r\nbc\r\n$-1\r\n$0\r\n\r\n*-1\r\n*0\r\n*2\r\n*1\r\n:1\r\n$1\r\nx\r\n-NOSCRIPT no such\r\n'
const REPLIES: readonly Reply[] = ['OK', -7, 'a\r\nbc', undefined, '', undefined, [], [[1], 'x']]

describe('replies', () => {
  it.each([1, 2, 3, 7, 1000])('are read from pieces of %i bytes', (size) => {
    const reader = new ReplyReader()
    const bytes = Buffer.from(TEXT)
    const read: Reply[] = []
    for (let at = 0; at < bytes.length; at += size) read.push(...reader.read(bytes.subarray(at, at + size)))
    expect(read.slice(0, -1)).toEqual(REPLIES)
    expect(read.at(-1)).toBeInstanceOf(RedisError)
    expect((read.at(-1) as RedisError).message).toBe('NOSCRIPT')
  })

  it.each([
    ['no type', 'HTTP/1.1 200 OK\r\n'],
    ['a number that is none', ':1e3\r\n'],
    ['a text without bound', '$2000000\r\n'],
    ['a text of a negative length', '$-2\r\n'],
    ['an array without bound', '*100000\r\n'],
    ['arrays without end', '*1\r\n'.repeat(10)],
    ['a line without end', `+${'x'.repeat(70_000)}`],
    ['texts without end', `*60000\r\n${`$1000000\r\n${'x'.repeat(1_000_000)}\r\n`.repeat(18)}`],
  ])('with %s are refused', (_what, text) => {
    expect(() => new ReplyReader().read(Buffer.from(text))).toThrow(
      expect.objectContaining({ reason: 'replay_unavailable' }),
    )
  })

  it('never quote what was sent', () => {
    const [error] = new ReplyReader().read(Buffer.from('-ERR unknown command with secret\r\n'))
    expect(String(error)).not.toContain('secret')
  })
})

describe('a command', () => {
  it('counts bytes, not characters', () => {
    expect(encodeCommand(['SET', 'ä', 1])).toBe('*3\r\n$3\r\nSET\r\n$2\r\nä\r\n$1\r\n1\r\n')
  })
})
