import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { type CanonicalUrl, canonicalUrl } from '../../../src/proof/target.ts'
import { faultOf } from '../../support/faults.ts'

type Case = readonly [what: string, text: string, wanted: string]
const vectors = JSON.parse(readFileSync(new URL('../../vectors/urls.json', import.meta.url), 'utf8')) as {
  readonly accept: readonly Case[]
  readonly refuse: readonly Case[]
}

describe('canonicalUrl', () => {
  it.each(vectors.accept)('accepts %s', (_what, text, wanted) => {
    expect(canonicalUrl(text).htu).toBe(wanted)
  })

  it.each(vectors.refuse)('refuses %s', (_what, text, wanted) => {
    expect(faultOf(() => canonicalUrl(text))).toBe(`url_refused: the URL cannot be signed: ${wanted}`)
  })

  it('gives the parts that policy compares', () => {
    expect(canonicalUrl('HTTPS://Orders.Example.org:8443/a%c3%a9?q=1')).toEqual({
      htu: 'https://orders.example.org:8443/a%C3%A9',
      origin: 'https://orders.example.org:8443',
      scheme: 'https',
      host: 'orders.example.org',
      path: '/a%C3%A9',
      ip: false,
    })
  })

  it.each([
    ['https://10.0.0.1/', true],
    ['https://[::1]/', true],
    ['https://10.0.0.1.example.org/', false],
    ['https://localhost/', false],
  ])('says of %s whether its host is an address', (text, ip) => {
    expect(canonicalUrl(text).ip).toBe(ip)
  })

  it('takes 8192 characters and not one more', () => {
    const longest = `https://a.test/${'a'.repeat(8192 - 15)}`
    expect(canonicalUrl(longest).path).toHaveLength(8192 - 14)
    expect(faultOf(() => canonicalUrl(`${longest}a`))).toContain('it is over 8192 characters')
  })

  it('threats row 10: refuses 8 KiB of anything in linear time: 500 take no second, where a quadratic scan takes 40', () => {
    const parts = [':', '[1:', 'a:1', 'a.', '/.', '/..;x', '%41', '/%2e', '@', '%']
    const hostile = parts.map((part) => `https://${part.repeat(8100 / part.length)}^]`)
    for (let round = 0; round < 50; round += 1)
      for (const text of hostile) expect(faultOf(() => canonicalUrl(text))).toMatch(/^url_refused: /)
  })

  it('keeps the query, where secrets are, out of its messages', () => {
    const message = faultOf(() => canonicalUrl('https://a.test/../?access_token=s3cret'))
    expect(message).not.toContain('s3cret')
    expect(message).not.toContain('a.test')
  })
})

const token = fc.constantFrom(
  ...[
    'https://',
    'http://',
    'HTTPS://',
    'a.test',
    'A.Test',
    'b',
    '10.0.0.1',
    '[::1]',
    '127.1',
    ':443',
    ':80',
    ':8080',
  ],
  ...[
    '/',
    '//',
    '.',
    '..',
    '...',
    ';',
    '%2e',
    '%2F',
    '%5c',
    '%25',
    '%C3%A9',
    '%c3%a9',
    '%3b',
    '%3F',
    '%',
    '@',
    '\\',
  ],
  ...[
    'a',
    'B',
    '~',
    '_',
    '-',
    '?',
    '#',
    '=',
    '&',
    ' ',
    '\t',
    '\u00e9',
    '\uff0f',
    '!',
    "'",
    '"',
    '+',
    '[',
    ']',
    ':',
  ],
)
/** Mostly well-formed URLs, with ambiguous spellings strewn in. */
const urls = fc.oneof(
  fc.array(token, { maxLength: 12 }).map((parts) => parts.join('')),
  fc.array(token, { maxLength: 8 }).map((parts) => `https://a.test/${parts.join('')}`),
  fc.webUrl({ withQueryParameters: true }),
)

function accepted(text: string): CanonicalUrl | undefined {
  try {
    return canonicalUrl(text)
  } catch (error) {
    if (error instanceof Fault && error.reason === 'url_refused') return undefined
    throw error
  }
}

/** What a client that follows the WHATWG standard would request, without its query. */
function requested(text: string): string {
  const { origin, pathname } = new URL(text)
  return origin + pathname.replace(/%[0-9a-f]{2}/gi, (hex) => hex.toUpperCase())
}

describe('threats row 1: what is checked is what is signed is what is sent', { timeout: 60_000 }, () => {
  it('has one canonical form for one request: no two different requests share it', () => {
    let count = 0
    fc.assert(
      fc.property(urls, (text) => {
        const url = accepted(text)
        if (!url) return
        count += 1
        expect(url.htu).toBe(requested(text))
      }),
      { numRuns: 2000, seed: 9449 },
    )
    expect(count).toBeGreaterThan(300)
  })

  it('is its own canonical form', () => {
    fc.assert(
      fc.property(urls, (text) => {
        const url = accepted(text)
        if (url) expect(canonicalUrl(url.htu)).toEqual(url)
      }),
      { numRuns: 2000, seed: 9449 },
    )
  })
})
