import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { DigestCheck, digestOf, parseContentDigest } from '../../../src/proof/content-digest.ts'

const vectors = JSON.parse(readFileSync(new URL('../../vectors/rfc9530.json', import.meta.url), 'utf8')) as {
  readonly cases: readonly { body: string; digest: string }[]
}

describe('Content-Digest (RFC 9530)', () => {
  it.each(vectors.cases)('of $body is $digest', ({ body, digest }) => {
    const digests = parseContentDigest(digest)
    const [right, wrong] = [new DigestCheck(digests ?? new Map()), new DigestCheck(digests ?? new Map())]
    for (const byte of Buffer.from(body)) right.update(Buffer.of(byte))
    wrong.update(Buffer.from(`${body}.`))
    expect([digests && digests.size > 0, right.isMatch(), wrong.isMatch()]).toEqual([true, true, false])
  })

  it('is made as SHA-256', () => {
    expect(digestOf(Buffer.from('{"hello": "world"}\n'))).toBe(vectors.cases[0]?.digest)
  })

  it('is wrong when one of two digests is', () => {
    const value = `${vectors.cases[0]?.digest}, ${vectors.cases[3]?.digest.replace('Y', 'Z')}`
    const check = new DigestCheck(parseContentDigest(value) ?? new Map())
    check.update(Buffer.from('{"hello": "world"}\n'))
    expect(check.isMatch()).toBe(false)
  })

  it.each([
    ['nothing', ''],
    ['a broken algorithm', 'md5=:sQqNsWTgdUEFt6mb5y4/5Q==:'],
    ['a broken algorithm beside a good one', `${digestOf(Buffer.alloc(0))}, md5=:sQqNsWTgdUEFt6mb5y4/5Q==:`],
    ['a digest of another size', 'sha-256=:sQqNsWTgdUEFt6mb5y4/5Q==:'],
    ['a digest twice', `${digestOf(Buffer.alloc(0))}, ${digestOf(Buffer.alloc(1))}`],
    ['base64 without its padding', 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU:'],
    ['base64 of a second spelling', 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=:'],
    ['a parameter', `${digestOf(Buffer.alloc(0))};x`],
    ['a text', 'sha-256="x"'],
    ['a line break', `${digestOf(Buffer.alloc(0))}\r\nX: y`],
  ])('is not taken with %s', (_what, value) => {
    expect(parseContentDigest(value)).toBeUndefined()
  })
})
