import { createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { component } from '../../../src/proof/components.ts'
import type { SignedMessage, SignedRequest } from '../../../src/proof/http-message.ts'
import { makeSignature, signatureBase } from '../../../src/proof/httpsig.ts'
import {
  readSignature,
  type SignatureKey,
  type SignatureRules,
  verifySignature,
} from '../../../src/proof/httpsig-verify.ts'
import { guarded } from '../../support/guarded.ts'

interface VectorCase {
  readonly section: string
  readonly label: string
  readonly key: string
  readonly alg: SignatureKey['alg']
  readonly base?: string
  readonly reason?: string
  readonly message: SignedMessage
}

const vectors = JSON.parse(readFileSync(new URL('../../vectors/rfc9421.json', import.meta.url), 'utf8')) as {
  readonly keys: Readonly<Record<string, object>>
  readonly ed25519: object
  readonly cases: readonly VectorCase[]
}
const NOW = 1_618_884_500
const LAX: SignatureRules = {
  covers: [],
  coversPresent: [],
  requires: [],
  refuses: [],
  maxAge: 300,
  skew: 30,
}

function keyOf({ key, alg }: Pick<VectorCase, 'key' | 'alg'>): SignatureKey {
  return { key: createPublicKey({ key: { ...vectors.keys[key] }, format: 'jwk' }), alg }
}

/** The reason that verification ends with; undefined when it succeeds. */
function reasonFor(run: () => unknown): string | undefined {
  const outcome = guarded(run)
  return outcome instanceof Fault ? outcome.reason : undefined
}

describe('RFC 9421 vectors', () => {
  it.each(vectors.cases.map((each, at) => [`${each.section} ${each.label} (${at})`, each] as const))(
    '%s verifies, or not, as the RFC says',
    (_name, vector) => {
      const received = readSignature(vector.message, { label: vector.label })
      if (vector.base !== undefined)
        expect(signatureBase(vector.message, received.components, received.parameters)).toBe(vector.base)
      expect(reasonFor(() => verifySignature(vector.message, received, LAX, keyOf(vector), NOW))).toBe(
        vector.reason,
      )
    },
  )

  it('B.2.6 is made again to the byte: Ed25519 is deterministic', () => {
    const vector = vectors.cases.find((each) => each.label === 'sig-b26') as VectorCase
    const key = createPrivateKey({ key: { ...vectors.ed25519 }, format: 'jwk' })
    const names = ['date', '@method', '@path', '@authority', 'content-type', 'content-length']
    const made = makeSignature({ sign: (input) => sign(null, input, key) }, vector.message, {
      label: 'sig-b26',
      components: names.map((name) => component(name)),
      parameters: { created: 1_618_884_473, keyid: 'test-key-ed25519' },
    })
    expect(vector.message.headers).toEqual(expect.arrayContaining([made.input, made.signature]))
  })
})

const BASE: SignedRequest = {
  method: 'POST',
  scheme: 'https',
  authority: 'www.example.com',
  path: '/path',
  query:
    '?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&qux=&a=1&a=2',
  headers: [
    'Host',
    'www.example.com',
    'X-OWS-Header',
    '   Leading and trailing whitespace.  ',
    'Cache-Control',
    'max-age=60',
    'cache-control',
    '   must-revalidate',
    'Example-Dict',
    ' a=1,    b=2;x=1;y=2,   c=(a   b    c), d',
    'Priority',
    'u=1,    i;  x,   z=(a   b)',
    'X-Empty-Header',
    ' ',
    'Example-Header',
    'value, with, lots',
    'Example-Header',
    'of, commas',
  ],
  trailers: ['Expires', 'Wed, 9 Nov 2022 07:28:00 GMT'],
}

/** The value that `wanted`, as Signature-Input writes it, has in the request; or the reason why it has none. */
function valueIn(wanted: string, message: SignedMessage = BASE): string | undefined {
  const headers = [...message.headers, 'Signature-Input', `s=(${wanted})`, 'Signature', 's=::']
  const outcome = guarded(() => {
    const { components, parameters } = readSignature({ ...message, headers }, { label: 's' })
    return signatureBase(message, components, parameters)
  })
  if (outcome instanceof Fault) return outcome.reason
  return outcome.slice(`${wanted}: `.length, outcome.indexOf('\n'))
}

describe('the components of RFC 9421 s.2', () => {
  it.each([
    ['"@method"', 'POST'],
    ['"@target-uri"', `https://www.example.com/path${BASE.query}`],
    ['"@authority"', 'www.example.com'],
    ['"@scheme"', 'https'],
    ['"@request-target"', `/path${BASE.query}`],
    ['"@path"', '/path'],
    ['"@query"', BASE.query],
    ['"@query-param";name="var"', 'this%20is%20a%20big%0Amultiline%20value'],
    ['"@query-param";name="bar"', 'with%20plus%20whitespace'],
    ['"@query-param";name="fa%C3%A7ade%22%3A%20"', 'something'],
    ['"@query-param";name="qux"', ''],
    ['"x-ows-header"', 'Leading and trailing whitespace.'],
    ['"cache-control"', 'max-age=60, must-revalidate'],
    ['"x-empty-header"', ''],
    ['"example-dict"', 'a=1,    b=2;x=1;y=2,   c=(a   b    c), d'],
    ['"example-dict";key="a"', '1'],
    ['"example-dict";key="d"', '?1'],
    ['"example-dict";key="b"', '2;x=1;y=2'],
    ['"example-dict";key="c"', '(a b c)'],
    ['"priority";sf', 'u=1, i;x, z=(a b)'],
    ['"example-header";bs', ':dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:'],
    ['"expires";tr', 'Wed, 9 Nov 2022 07:28:00 GMT'],
  ])('%s is %s', (wanted, value) => {
    expect(valueIn(wanted)).toBe(value)
  })

  it('@query of a request without one is a question mark alone', () => {
    expect(valueIn('"@query"', { ...BASE, query: '' })).toBe('?')
  })

  it.each([
    ['a parameter of the query that occurs twice', '"@query-param";name="a"'],
    ['a parameter of the query that is absent', '"@query-param";name="b"'],
    ['a parameter of the query without a name', '"@query-param"'],
    ['@status of a request', '"@status"'],
    ['the request of a request', '"@method";req'],
    ['a derived component that nobody defined', '"@speed"'],
    ['a name of the prototype', '"@__proto__"'],
    ['a field in upper case', '"Host"'],
    ['a field that is absent', '"x-absent"'],
    ['a trailer field among the headers', '"expires"'],
    ['a member that is absent', '"example-dict";key="z"'],
    ['a strict form of a field of unknown type', '"example-header";sf'],
    ['bytes and a member at once', '"example-dict";bs;key="a"'],
    ['a parameter that nobody defined', '"host";fresh'],
    ['a flag that is off', '"host";sf=?0'],
    ['a flag with a value', '"host";bs="yes"'],
    ['@signature-params itself', '"@signature-params"'],
    ['a component that is no string', 'host'],
    ['a component twice', '"host" "host"'],
    ['a component twice, its parameters turned', '"host";bs;tr "host";tr;bs'],
  ])('refuses %s', (_what, wanted) => {
    expect(valueIn(wanted)).toBe('proof_malformed')
  })

  it.each(['a\nb', 'a\r\n "@method": GET', 'caf\u00e9', 'a\0b'])(
    'threats row 12: a value with another line or byte in it is not signed (%j)',
    (value) => {
      expect(valueIn('"x-note"', { ...BASE, headers: ['X-Note', value] })).toBe('proof_malformed')
    },
  )
})

describe('a verifier', () => {
  const vector = vectors.cases.find((each) => each.label === 'sig-b26') as VectorCase
  const check = (rules: Partial<SignatureRules>, now = NOW, key = keyOf(vector)) =>
    reasonFor(() =>
      verifySignature(
        vector.message,
        readSignature(vector.message, { label: vector.label }),
        { ...LAX, ...rules },
        key,
        now,
      ),
    )

  it.each([
    ['what it must cover', { covers: ['"@method"', '"date"'] }, undefined],
    ['another component', { covers: ['"@query"'] }, 'proof_coverage'],
    ['the same name with another meaning', { covers: ['"date";bs'] }, 'proof_coverage'],
    ['a field that is present', { coversPresent: ['content-digest'] }, 'proof_coverage'],
    ['a field that is absent', { coversPresent: ['authorization'] }, undefined],
    ['a parameter that is absent', { requires: ['nonce'] }, 'proof_malformed'],
    ['no keyid', { refuses: ['keyid'] }, 'proof_malformed'],
  ])('demands coverage of its own (s.7.2.1): %s', (_what, rules, reason) => {
    expect(check(rules)).toBe(reason)
  })

  it('wants a signature made just now', () => {
    expect(check({}, 1_618_884_473 + 330)).toBeUndefined()
    expect(check({}, 1_618_884_473 + 331)).toBe('proof_time')
    expect(check({}, 1_618_884_473 - 30)).toBeUndefined()
    expect(check({}, 1_618_884_473 - 31)).toBe('proof_time')
  })

  it('takes no other key and no other kind of key', () => {
    const other = vectors.cases.find((each) => each.label === 'sig-b24') as VectorCase
    expect(check({}, NOW, { ...keyOf(other), alg: 'EdDSA' })).toBe('proof_forged')
    expect(check({}, NOW, { ...keyOf(vector), alg: 'ES256' })).toBe('proof_forged')
  })

  it('refuses a signature whose alg is not the algorithm of the key', () => {
    const signed = vectors.cases.find((each) => each.label === 'proxy_sig') as VectorCase
    const received = readSignature(signed.message, { label: 'proxy_sig' })
    const run = () => verifySignature(signed.message, received, LAX, { ...keyOf(signed), alg: 'PS512' }, NOW)
    expect(reasonFor(run)).toBe('proof_malformed')
  })

  it('refuses a signature that expired or may live too long', () => {
    const signed = vectors.cases.find((each) => each.label === 'proxy_sig') as VectorCase
    const received = readSignature(signed.message, { label: 'proxy_sig' })
    const run = (now: number, maxAge: number) =>
      reasonFor(() => verifySignature(signed.message, received, { ...LAX, maxAge }, keyOf(signed), now))
    expect(run(1_618_884_540 + 30, 300)).toBeUndefined()
    expect(run(1_618_884_540 + 31, 300)).toBe('proof_time')
    expect(run(1_618_884_500, 59)).toBe('proof_time')
  })

  it.each([
    ['no signature', [], 'proof_missing'],
    ['only one of the two fields', ['Signature-Input', 's=();tag="t"'], 'proof_missing'],
    ['no such tag', ['Signature-Input', 's=();tag="u"', 'Signature', 's=::'], 'proof_missing'],
    ['a tag that is a token', ['Signature-Input', 's=();tag=t', 'Signature', 's=::'], 'proof_missing'],
    [
      'two signatures of the tag',
      ['Signature-Input', 's=();tag="t", r=();tag="t"', 'Signature', 's=::, r=::'],
      'proof_repeated',
    ],
    [
      'one label on two lines',
      ['Signature-Input', 's=();tag="t"', 'signature-input', 's=()', 'Signature', 's=::'],
      'proof_malformed',
    ],
    [
      'bytes under another label',
      ['Signature-Input', 's=();tag="t"', 'Signature', 'r=::'],
      'proof_malformed',
    ],
    ['no bytes', ['Signature-Input', 's=();tag="t"', 'Signature', 's="x"'], 'proof_malformed'],
    ['no list', ['Signature-Input', 's="x";tag="t"', 'Signature', 's=::'], 'proof_malformed'],
    [
      'a time that is a text',
      ['Signature-Input', 's=();tag="t";created="1"', 'Signature', 's=::'],
      'proof_malformed',
    ],
    [
      'a fraction of a second',
      ['Signature-Input', 's=();tag="t";expires=1.5', 'Signature', 's=::'],
      'proof_malformed',
    ],
    [
      'a nonce that is a number',
      ['Signature-Input', 's=();tag="t";nonce=1', 'Signature', 's=::'],
      'proof_malformed',
    ],
    [
      'a thousand signatures',
      [
        'Signature-Input',
        Array.from({ length: 1000 }, (_, at) => `s${at}=();tag="t"`).join(),
        'Signature',
        's=::',
      ],
      'proof_malformed',
    ],
  ])('finds no usable signature in a message with %s', (_what, headers, reason) => {
    expect(reasonFor(() => readSignature({ ...BASE, headers }, { tag: 't' }))).toBe(reason)
  })
})
