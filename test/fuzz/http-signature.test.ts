import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import { generateKey } from '../../src/keys/signer.ts'
import { parseContentDigest } from '../../src/proof/content-digest.ts'
import type { SignedRequest } from '../../src/proof/http-message.ts'
import { readSignature, verifySignature } from '../../src/proof/httpsig-verify.ts'
import { type Member, parseDictionary, parseList } from '../../src/proof/structured-fields.ts'
import { dictionaryText, listText } from '../../src/proof/structured-text.ts'
import { makeWimseSignature, WIMSE_RULES, WIMSE_TAG } from '../../src/proof/wimse-signature.ts'
import { ManualClock } from '../support/clock.ts'
import { guarded } from '../support/guarded.ts'
import { FUZZ, textMutations } from '../support/mutate.ts'

const key = generateKey('ES256')
const request: SignedRequest = {
  method: 'GET',
  scheme: 'https',
  authority: 'orders.example.org',
  path: '/v1/items',
  query: '?a=1&b=2',
  headers: ['Workload-Identity-Token', 'a.b.c', 'X-Batch', '7, 8'],
}
const made = makeWimseSignature(
  key,
  request,
  { aud: 'https://orders.example.org/v1/items', extra: ['x-batch'] },
  new ManualClock(),
)

const canonical = (text: string) => dictionaryText(parseDictionary(text) as ReadonlyMap<string, Member>)

function verifies(input: string, signature: string, message = request): boolean {
  const headers = [...message.headers, 'Signature-Input', input, 'Signature', signature]
  const outcome = guarded(() => {
    const received = readSignature({ ...message, headers }, { tag: WIMSE_TAG })
    verifySignature(
      { ...message, headers },
      received,
      WIMSE_RULES,
      { key: key.publicKey, alg: 'ES256' },
      1_700_000_000,
    )
  })
  return !(outcome instanceof Fault)
}

const PIECES = [
  'a',
  '*',
  '=',
  ';',
  ',',
  ' ',
  '\t',
  '(',
  ')',
  '"',
  '\\',
  ':',
  '?1',
  '1',
  '.',
  '-',
  '@',
  'AA==',
  '\0',
  '\u00e9',
]
const pieces = fc.array(fc.constantFrom(...PIECES), { maxLength: 24 }).map((list) => list.join(''))

describe('HTTP message signatures from outside', { timeout: 60_000 }, () => {
  it('verify as they were made', () => {
    expect(verifies(made.input, made.signature)).toBe(true)
  })

  it('threats row 10: verify only with the coverage and the parameters that were signed', () => {
    fc.assert(
      fc.property(textMutations([made.input]), (input) => {
        if (verifies(input, made.signature)) expect(parametersOf(input)).toBe(parametersOf(made.input))
      }),
      { ...FUZZ, numRuns: 2000 },
    )
  })

  it('verify only with the bytes that were signed', () => {
    fc.assert(
      fc.property(textMutations([made.signature]), (signature) => {
        if (verifies(made.input, signature))
          expect(parseDictionary(signature)?.get('wimse')).toEqual(
            parseDictionary(made.signature)?.get('wimse'),
          )
      }),
      FUZZ,
    )
  })

  it('verify only for the request that was signed', () => {
    const parts = fc.record({
      method: textMutations(['GET']),
      path: textMutations(['/v1/items']),
      query: textMutations(['?a=1&b=2', '']),
    })
    fc.assert(
      fc.property(parts, (change) => {
        if (verifies(made.input, made.signature, { ...request, ...change }))
          expect({ ...request, ...change }).toEqual(request)
      }),
      FUZZ,
    )
  })
})

/** What is signed of Signature-Input: its label may change with that of Signature. */
function parametersOf(input: string): string {
  return canonical(input)
    .split(', ')
    .filter((member) => member.includes(WIMSE_TAG))
    .join()
}

describe('structured fields from outside', { timeout: 60_000 }, () => {
  it('have one text: what it reads as is what the field reads as', () => {
    fc.assert(
      fc.property(fc.oneof(pieces, textMutations([made.input, 'a=1.5;b, c=(d "e";f=:AA==:)'])), (text) => {
        const members = parseDictionary(text)
        if (members) expect(parseDictionary(dictionaryText(members))).toEqual(members)
        const list = parseList(text)
        if (list) expect(parseList(listText(list))).toEqual(list)
      }),
      { ...FUZZ, numRuns: 3000 },
    )
  })

  it('hold digests of their size or none', () => {
    const digest = 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
    fc.assert(
      fc.property(textMutations([digest, `${digest}, sha-512=:AA==:`]), (text) => {
        for (const [name, bytes] of parseContentDigest(text) ?? [])
          expect(bytes).toHaveLength(name === 'sha-256' ? 32 : 64)
      }),
      FUZZ,
    )
  })
})
