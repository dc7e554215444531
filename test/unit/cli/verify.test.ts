import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { verifyCapture } from '../../../src/cli/verify.ts'
import type { Step } from '../../../src/cli/verify-proof.ts'
import { type LabKey, makeLabKey, withPrivateHalf } from '../../../src/probe/key.ts'
import { hashOf } from '../../../src/proof/jwt.ts'
import { keptIo, NOW } from '../../support/io.ts'

const dir = mkdtempSync(join(tmpdir(), 'holdfast-verify-'))
afterAll(() => rmSync(dir, { recursive: true }))

const key = makeLabKey()
const server = makeLabKey()
const URL_OF = 'https://api.example.org/v1/items'

interface Over {
  readonly header?: object
  readonly claims?: object
  readonly by?: LabKey
  readonly token?: object
  readonly tokenBy?: LabKey
  readonly scheme?: string
  readonly more?: readonly string[]
  readonly format?: 'raw' | 'curl'
}

function capture(over: Over = {}): { readonly text: string; readonly secrets: readonly string[] } {
  const { by = key, format = 'raw' } = over
  const claims = { iss: 'https://as.example.org', exp: NOW + 60, cnf: { jkt: key.jkt }, ...over.token }
  const token = (over.tokenBy ?? server).sign({ alg: 'ES256', typ: 'at+jwt', kid: 'k1' }, claims)
  const proof = by.sign(
    { typ: 'dpop+jwt', alg: 'ES256', jwk: by.publicJwk, ...over.header },
    { jti: 'j', htm: 'GET', htu: URL_OF, iat: NOW, ath: hashOf(token), ...over.claims },
  )
  const lines = [
    'GET /v1/items?secret=1 HTTP/1.1',
    'Host: api.example.org',
    `Authorization: ${over.scheme ?? 'DPoP'} ${token}`,
    `DPoP: ${proof}`,
    ...(over.more ?? []),
  ]
  const curl = ['* Connected', ...lines.map((line) => `> ${line}`), '> ', '< HTTP/1.1 401', '< DPoP-Nonce: n']
  const text = format === 'curl' ? curl.join('\n') : `${lines.join('\r\n')}\r\n\r\nbody`
  return { text, secrets: [token, proof] }
}

async function explain(text: string, over: { jwks?: string; url?: string } = {}) {
  const io = keptIo({ input: text })
  const options = { request: '-', window: '60s', ...over }
  const code = await verifyCapture({ ...options, output: 'json' }, io)
  const plain = keptIo({ input: text })
  await verifyCapture(options, plain)
  const { proof, token } = JSON.parse(io.written.out) as { proof: Step[]; token: Step[] }
  return { code, proof, token, said: `${io.written.out}${plain.written.out}` }
}

const wrongIn = (steps: readonly Step[]) =>
  steps.filter(({ verdict }) => verdict === 'wrong').map(({ check }) => check)

const jwksFile = join(dir, 'jwks.json')
writeFileSync(jwksFile, JSON.stringify({ keys: [{ ...server.publicJwk, kid: 'k1' }] }))

describe('a captured request', () => {
  it.each(['raw', 'curl'] as const)('that is right, as %s text: each check says so', async (format) => {
    const { code, proof, token } = await explain(capture({ format }).text, { jwks: jwksFile })
    expect([code, wrongIn(proof), wrongIn(token)]).toEqual([0, [], []])
    expect(proof.map(({ check }) => Number.parseInt(check, 10))).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ])
    expect(proof.filter(({ verdict }) => verdict === 'unknown').map(({ check }) => check)).toEqual([
      '10 nonce',
    ])
  })

  it.each<[string, Over, string]>([
    ['1 one DPoP header', { more: ['DPoP: x'] }, '2'],
    ['3 the claims it must have', { claims: { jti: undefined } }, 'missing: jti'],
    ['4 typ', { header: { typ: 'JWT' } }, 'JWT'],
    ['6 signature', { header: { jwk: makeLabKey().publicJwk } }, 'not by the key in jwk'],
    ['7 no private key in jwk', { header: { jwk: withPrivateHalf(key.publicJwk) } }, 'private members: d'],
    ['8 htm', { claims: { htm: 'POST' } }, 'POST'],
    ['9 htu', { claims: { htu: 'https://evil.example.org/v1?x=1' } }, 'https://evil.example.org/v1'],
    ['11 iat', { claims: { iat: NOW - 90 } }, '90 s old'],
    ['11 iat', { claims: { iat: NOW + 30 } }, '30 s ahead'],
    ['12 ath and key of the token', { claims: { ath: undefined } }, 'ath no ath'],
    ['12 ath and key of the token', { by: makeLabKey() }, 'ath fits; the key is '],
  ])('wrong in %s', async (check, over, seen) => {
    const { code, proof } = await explain(capture(over).text)
    expect(code).toBe(1)
    expect(wrongIn(proof)).toContain(check)
    expect(proof.find((each) => each.check === check)?.seen).toContain(seen)
  })

  it('of alg none is wrong in alg and signature', async () => {
    const { proof } = await explain(capture({ header: { alg: 'none' } }).text)
    // A JWS without signature is none to the parser, and nothing else of it is read.
    expect(wrongIn(proof)).toEqual(['2 a well-formed JWT'])
  })

  it.each<[string, Over, string]>([
    ['scheme', { scheme: 'Bearer' }, 'Bearer'],
    ['cnf', { token: { cnf: undefined } }, 'no jkt'],
    ['exp', { token: { exp: NOW - 60 } }, '2027-01-15 07:59:00Z'],
    ['nbf', { token: { nbf: NOW + 60 } }, 'not begun'],
    ['signature of the token', { tokenBy: makeLabKey() }, 'not by its key'],
  ])('whose token is wrong in %s', async (check, over, seen) => {
    const { code, token } = await explain(capture(over).text, { jwks: jwksFile })
    expect([code, wrongIn(token)]).toEqual([1, [check]])
    expect(token.find((each) => each.check === check)?.seen).toBe(seen)
  })

  it('shows its token and proof in no form, whatever is wrong', async () => {
    for (const over of [
      {},
      { more: ['DPoP: x'] },
      { claims: { htm: 'POST' } },
      { scheme: 'Bearer' },
    ] as const) {
      const { text, secrets } = capture(over)
      const { said } = await explain(text)
      for (const secret of secrets) for (const part of secret.split('.')) expect(said).not.toContain(part)
      expect(said).not.toContain('secret=1')
    }
  })

  it('is compared with the public URL that is named', async () => {
    const { proof } = await explain(capture().text, { url: 'https://public.example.org/v1/items' })
    expect(wrongIn(proof)).toEqual(['9 htu'])
  })

  it.each([
    ['', 'holds no request line'],
    ['GET / HTTP/1.1\nno header\n', ':2 is no header'],
  ])('that is none is refused without a word of it', async (text, message) => {
    await expect(explain(text)).rejects.toThrow(message)
  })
})
