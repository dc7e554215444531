/** Requests of those who send themselves: what is taken, and what is refused without showing a value. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { parseHeadersAsk, parseReleaseAsk, parseReportAsk } from '../../../src/egress/release-ask.ts'

const url = 'https://orders.example.org/v1?secret=1'
const htu = 'https://orders.example.org/v1'
const id = 'spiffe://example.org/web'

describe('a request', () => {
  it('for headers has a method and a URL', () => {
    expect(parseHeadersAsk({ method: 'GET', url, spiffe_id: id })).toMatchObject({
      method: 'GET',
      url: { htu },
      spiffeId: id,
    })
  })

  it('for a token has a URL or a target', () => {
    expect(parseReleaseAsk({ url })).toMatchObject({ place: { url: { htu } }, spiffeId: undefined })
    expect(parseReleaseAsk({ target: 'orders' })).toEqual({
      place: { target: 'orders' },
      spiffeId: undefined,
    })
  })

  it('that reports takes nonces up to 256 characters', () => {
    const nonce = 'n'.repeat(256)
    expect(parseReportAsk({ url, status: 200, dpop_nonce: nonce })).toMatchObject({ nonce, challenge: '' })
  })

  it.each([
    ['headers without method', () => parseHeadersAsk({ url })],
    ['headers for two methods', () => parseHeadersAsk({ method: 'GET secret', url })],
    ['headers without URL', () => parseHeadersAsk({ method: 'GET' })],
    ['headers with a token', () => parseHeadersAsk({ method: 'GET', url, access_token: 'secret' })],
    ['an identity that is a number', () => parseHeadersAsk({ method: 'GET', url, spiffe_id: 7 })],
    ['a token for nothing', () => parseReleaseAsk({})],
    ['a token for two things', () => parseReleaseAsk({ url, target: 'orders' })],
    ['a target with a slash', () => parseReleaseAsk({ target: 'secret/x' })],
    ['a report without status', () => parseReportAsk({ url })],
    ['a status as text', () => parseReportAsk({ url, status: '401' })],
    ['a status below 100', () => parseReportAsk({ url, status: 99 })],
    ['an empty nonce', () => parseReportAsk({ url, status: 401, dpop_nonce: '' })],
    ['a nonce with a space', () => parseReportAsk({ url, status: 401, dpop_nonce: 'secret secret' })],
    ['a long nonce', () => parseReportAsk({ url, status: 401, dpop_nonce: 'n'.repeat(257) })],
    ['a challenge of two lines', () => parseReportAsk({ url, status: 401, www_authenticate: 'secret\nb' })],
  ])('for %s is refused', (_what, parse) => {
    expect(parse).toThrow(expect.objectContaining({ reason: 'invalid_request' }))
    expect(parse).toThrow(Fault)
    expect(parse).not.toThrow(/secret/)
  })
})
