/** `holdfast token inspect`: what it says of tokens of each binding, and that the token is never among it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Fault } from '../../../src/base/fault.ts'
import { inspectToken } from '../../../src/cli/token.ts'
import { keptIo, NOW } from '../../support/io.ts'

const encoded = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
const SIGNATURE = Buffer.from('a signature that nobody checks').toString('base64url')
const tokenOf = (claims: object) =>
  `${encoded({ alg: 'ES256', typ: 'at+jwt' })}.${encoded(claims)}.${SIGNATURE}`

async function shown(claims: object, output?: 'json'): Promise<string> {
  const io = keptIo({ input: `${tokenOf(claims)}\n` })
  expect(await inspectToken(output ? { output } : {}, io)).toBe(0)
  for (const part of tokenOf(claims).split('.')) expect(io.written.out).not.toContain(part)
  return io.written.out
}

describe('token inspect', () => {
  it('shows claims, binding and times for people', async () => {
    const claims = {
      iss: 'https://as.test',
      aud: ['a', 'b'],
      cnf: { jkt: 'KEY' },
      iat: NOW - 60,
      exp: NOW + 120,
    }
    expect(await shown(claims)).toBe(`JWT of type at+jwt, alg ES256; its signature was not checked

CLAIM     VALUE
iss       https://as.test
aud       ["a","b"]
binding   DPoP key KEY (jkt): of use only with a proof by it
iat       2027-01-15 07:59:00Z, 1m ago
exp       2027-01-15 08:02:00Z, in 2m
`)
  })

  it.each([
    [
      { cnf: { 'x5t#S256': 'CERT' } },
      /^binding {3}certificate CERT \(x5t#S256\): of use only over TLS with it$/m,
    ],
    [{}, /^binding {3}none that is known: whoever holds it may use it$/m],
    [{ cnf: 'x' }, /^binding {3}none that is known/m],
    [{}, /^exp {7}never: a token without exp$/m],
    [{ exp: NOW - 5 }, /^exp {7}expired: .*, 5s ago$/m],
    [{ exp: 'soon' }, /^exp {7}soon: no time$/m],
    [{ exp: 1e300 }, /^exp {7}1e\+300: no time$/m],
    [{ sub: 'a\u001b[2Jb' }, /^sub {7}a\ufffd\[2Jb$/m],
  ])('says of %j what it is worth', async (claims, line) => {
    expect(await shown(claims)).toMatch(line)
  })

  it('answers in JSON', async () => {
    expect(JSON.parse(await shown({ cnf: { jkt: 'KEY' }, exp: NOW - 1 }, 'json'))).toEqual({
      header: { alg: 'ES256', typ: 'at+jwt' },
      claims: { cnf: { jkt: 'KEY' }, exp: NOW - 1 },
      binding: { jkt: 'KEY' },
      expired: true,
      verified: false,
    })
  })

  it('reads a file', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
    try {
      const file = join(dir, 'token')
      writeFileSync(file, tokenOf({ sub: 'shop' }))
      const io = keptIo()
      await inspectToken({ file }, io)
      expect(io.written.out).toMatch(/^sub {7}shop$/m)
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })

  it.each(['opaque-SECRET', 'a.b.SECRET', `${encoded({})}.${encoded({})}.SECRET=`])(
    'refuses what is no JWT without a word of it: %s',
    async (input) => {
      const caught = await inspectToken({}, keptIo({ input })).catch((error: unknown) => error)
      expect(caught).toMatchObject({ reason: 'usage' })
      expect(JSON.stringify((caught as Fault).toJSON())).not.toContain('SECRET')
    },
  )
})
