import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import { parseJsonObject } from '../../src/base/json.ts'
import { canonicalUrl } from '../../src/proof/target.ts'
import { parseDpopAsk, parseWptAsk } from '../../src/sign/ask.ts'
import { readToken } from '../../src/sign/token.ts'
import { guarded } from '../support/guarded.ts'
import { FUZZ, textMutations } from '../support/mutate.ts'

describe('URLs from outside', { timeout: 60_000 }, () => {
  it('are canonical or refused, and are sent as they are signed', () => {
    const seeds = [
      'https://orders.example.org:8443/v1/a%20b?q=1',
      'http://[::1]:80/',
      'https://10.0.0.1/a;b/%C3%A9',
    ]
    fc.assert(
      fc.property(fc.oneof(textMutations(seeds), fc.string({ unit: 'binary', maxLength: 40 })), (text) => {
        const url = guarded(() => canonicalUrl(text))
        if (url instanceof Fault) expect(url.reason).toBe('url_refused')
        else expect(new URL(url.htu).href).toBe(url.htu)
      }),
      { ...FUZZ, numRuns: 800 },
    )
  })
})

describe('JSON from outside', { timeout: 60_000 }, () => {
  const LIMITS = { maxBytes: 4096, maxDepth: 8 }
  /** What the standard library reads from the texts that hold each name once. */
  const documents = fc.dictionary(fc.string({ maxLength: 6 }), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 6 })

  it('is read as JSON.parse reads it, or refused', () => {
    fc.assert(
      fc.property(documents, (document) => {
        const text = JSON.stringify(document)
        const value = guarded(() => parseJsonObject(text, LIMITS))
        if (!(value instanceof Fault)) expect(value).toEqual(JSON.parse(text))
        else expect(text).toMatch(/__proto__|.{4097}/s)
      }),
      FUZZ,
    )
  })

  it('is refused when a name is there twice, in any spelling and at any depth', () => {
    const name = fc.string({ maxLength: 6 })
    const spelled = (text: string) =>
      `"${[...text].map((unit) => (unit.length === 1 ? `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}` : unit)).join('')}"`
    const wrap = fc.constantFrom(
      (text: string) => text,
      (text: string) => `{"a":${text}}`,
      (text: string) => `{"a":[1,${text}]}`,
    )
    fc.assert(
      fc.property(name, wrap, fc.boolean(), (text, wrapped, isEscaped) => {
        const second = isEscaped ? spelled(text) : JSON.stringify(text)
        const twice = wrapped(`{${JSON.stringify(text)}:1,"other ${text.length}":{},${second}:2}`)
        const value = guarded(() => parseJsonObject(twice, LIMITS))
        expect(value).toMatchObject({ reason: 'invalid_request' })
      }),
      FUZZ,
    )
  })

  it('is read or refused when it is damaged', () => {
    fc.assert(
      fc.property(textMutations(['{"a":{"b":[1,"c\\u0064",{"e":null}]},"f":"\\"{}[]:,"}']), (text) => {
        const value = guarded(() => parseJsonObject(text, LIMITS))
        if (!(value instanceof Fault)) expect(value).toEqual(JSON.parse(text))
      }),
      { ...FUZZ, numRuns: 2000 },
    )
  })
})

describe('requests for proofs from outside', { timeout: 60_000 }, () => {
  const names = [
    'method',
    'url',
    'access_token',
    'ath',
    'nonce',
    'jkt',
    'spiffe_id',
    'txn_token',
    'tth',
    '__proto__',
    'x',
  ]
  const good = {
    method: fc.constantFrom('GET', 'POST', 'get', 'G\u00cbT', ''),
    url: fc.constantFrom('https://a.test/', 'https://a.test/../'),
    access_token: fc.constantFrom('a.b.c', 'a b', '='),
    ath: fc.constantFrom('A'.repeat(43), 'A'.repeat(44)),
    spiffe_id: fc.constantFrom('spiffe://a.test/b', '', 'b'),
  }
  const members = fc.oneof(
    fc.record(good, { requiredKeys: [] }),
    fc.dictionary(fc.constantFrom(...names), fc.jsonValue({ maxDepth: 1 })),
    fc.dictionary(fc.constantFrom(...names), fc.string({ maxLength: 50 })),
  ) as fc.Arbitrary<Record<string, unknown>>

  it('are read or refused with a reason, and no refusal quotes a token', () => {
    const SECRET = 's3cretT0ken'
    fc.assert(
      fc.property(members, (part) => {
        for (const parse of [parseDpopAsk, parseWptAsk])
          for (const ask of [
            part,
            { ...part, access_token: `${SECRET} ` },
            { ...part, nonce: `"${SECRET}` },
          ]) {
            const answer = guarded(() => parse(ask))
            if (answer instanceof Fault) {
              expect(['invalid_request', 'url_refused', 'spiffe_id_invalid']).toContain(answer.reason)
              expect(answer.message).not.toContain(SECRET)
            }
          }
      }),
      FUZZ,
    )
  })

  it('carry tokens that are read or refused', () => {
    const payload = Buffer.from(
      JSON.stringify({ exp: 2_000_000_000, cnf: { jkt: 'A'.repeat(43) } }),
    ).toString('base64url')
    fc.assert(
      fc.property(textMutations([`e30.${payload}.AA`]), (token) => {
        guarded(() => readToken(token, 1_999_999_000, 3600))
      }),
      FUZZ,
    )
  })
})
