import { describe, expect, it } from 'vitest'
import {
  idOfTrustDomain,
  parseSpiffeId,
  parseTrustDomain,
  parseWorkloadId,
  pathOf,
  trustDomainOf,
} from '../../../src/spiffe/id.ts'
import { faultOf } from '../../support/faults.ts'

const LONGEST = `spiffe://td/${'a'.repeat(2048 - 12)}`

describe('parseSpiffeId', () => {
  it.each([
    ['ID-5: an underscore, digits, dots and dashes', 'spiffe://a_b-c.d.9/x', 'a_b-c.d.9', '/x'],
    ['ID-5, ID-6: an IPv4 address, which is a name like any other', 'spiffe://10.0.0.1/x', '10.0.0.1', '/x'],
    ['ID-6: names that are no DNS names', 'spiffe://-a..b-/x', '-a..b-', '/x'],
    ['ID-7: no path', 'spiffe://example.org', 'example.org', ''],
    ['ID-7: a segment of three dots', 'spiffe://example.org/...', 'example.org', '/...'],
    ['ID-7: every character of segments', 'spiffe://td/azAZ09._-/b', 'td', '/azAZ09._-/b'],
    ['ID-8: 2048 bytes', LONGEST, 'td', LONGEST.slice(11)],
    ['ID-8: a trust domain of 255 bytes', `spiffe://${'a'.repeat(255)}/x`, 'a'.repeat(255), '/x'],
  ])('accepts %s', (_what, text, trustDomain, path) => {
    const id = parseSpiffeId(text)
    expect([id, trustDomainOf(id), pathOf(id)]).toEqual([text, trustDomain, path])
  })

  it.each([
    ['ID-1: another scheme', 'https://example.org/web'],
    ['ID-1: no scheme', 'example.org/web'],
    ['ID-1, C1: an upper-case scheme, so that one ID has one spelling', 'SPIFFE://example.org/web'],
    ['ID-1: one slash', 'spiffe:/example.org/web'],
    ['ID-2: no trust domain', 'spiffe:///web'],
    ['ID-2: nothing', 'spiffe://'],
    ['ID-3: a query', 'spiffe://example.org/web?x'],
    ['ID-3: an empty query', 'spiffe://example.org/web?'],
    ['ID-3: a fragment', 'spiffe://example.org/web#x'],
    ['ID-3: an empty fragment', 'spiffe://example.org/web#'],
    ['ID-4: userinfo', 'spiffe://user@example.org/web'],
    ['ID-4: a port', 'spiffe://example.org:8080/web'],
    ['ID-4: an empty port', 'spiffe://example.org:/web'],
    ['ID-5, C1: an upper-case trust domain', 'spiffe://Example.org/web'],
    ['ID-5: an escape in the trust domain', 'spiffe://ex%61mple.org/web'],
    ['ID-5: an IPv6 address', 'spiffe://[::1]/web'],
    ['ID-5: a letter beyond ASCII', 'spiffe://ex\u00e4mple.org/web'],
    ['ID-7: an escape in the path', 'spiffe://example.org/w%65b'],
    ['ID-7: an escaped slash', 'spiffe://example.org/a%2fb'],
    ['ID-7: an empty segment', 'spiffe://example.org//web'],
    ['ID-7: a trailing slash', 'spiffe://example.org/web/'],
    ['ID-7: a path of one slash', 'spiffe://example.org/'],
    ['ID-7: a dot segment', 'spiffe://example.org/./web'],
    ['ID-7: a double-dot segment', 'spiffe://example.org/../web'],
    ['ID-7: a double-dot at the end', 'spiffe://example.org/web/..'],
    ['ID-7: a space', 'spiffe://example.org/we b'],
    ['ID-7: a backslash', 'spiffe://example.org/a\\b'],
    ['ID-7: a letter beyond ASCII', 'spiffe://example.org/w\u00eab'],
    ['ID-7: a full-width dot, which some parsers fold', 'spiffe://example.org/\uff0e\uff0e/web'],
    ['ID-7: a newline at the end', 'spiffe://example.org/web\n'],
    ['ID-8: 2049 bytes', `${LONGEST}a`],
    ['ID-8: a trust domain of 256 bytes', `spiffe://${'a'.repeat(256)}/x`],
  ])('refuses %s', (_what, text) => {
    expect(faultOf(() => parseSpiffeId(text))).toMatch(
      /^spiffe_id_invalid: not a (SPIFFE ID|trust domain): "/,
    )
  })

  it('ID-9: keeps the case of the path', () => {
    expect(parseSpiffeId('spiffe://td/Web')).not.toBe(parseSpiffeId('spiffe://td/web'))
  })

  it('quotes at most 128 characters, with control characters made harmless', () => {
    const message = faultOf(() => parseSpiffeId(`\u001b[31m\n${'x'.repeat(5000)}`))
    expect(message).toContain('\\u001b[31m\\n')
    expect(message.length).toBeLessThan(220)
  })
})

it('asks a workload for a path (XS-3)', () => {
  expect(faultOf(() => parseWorkloadId('spiffe://example.org'))).toContain('it needs a path')
  expect(parseWorkloadId('spiffe://example.org/web')).toBe('spiffe://example.org/web')
})

it('makes the ID of a trust domain (WA-8)', () => {
  expect(idOfTrustDomain(parseTrustDomain('example.org'))).toBe('spiffe://example.org')
})
