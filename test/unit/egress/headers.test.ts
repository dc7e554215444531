/** Which headers pass the egress door, and which requests have a head that no two servers would read alike. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { nonceIn, wantsNonce } from '../../../src/egress/challenge.ts'
import {
  checkHeaders,
  framingOf,
  hasBody,
  outgoing,
  passRequest,
  passResponse,
  passTrailers,
} from '../../../src/egress/headers.ts'
import { parseRoute } from '../../../src/egress/route.ts'

const plain = { transaction: false }

function reasonOf(run: () => unknown): string {
  try {
    run()
    return 'ok'
  } catch (caught) {
    return Fault.from(caught).reason
  }
}

describe('passRequest', () => {
  it.each([
    'Authorization',
    'AUTHORIZATION',
    'DPoP',
    'DPoP-Nonce',
    'Proxy-Authorization',
    'Proxy-Connection',
    'Forwarded',
    'X-Forwarded-For',
    'X-Forwarded-Host',
    'X-Forwarded-Client-Cert',
    'X_Forwarded_For',
    'X-Original-URL',
    'X-Rewrite-URL',
    'X-HTTP-Method',
    'X-HTTP-Method-Override',
    'X-Method-Override',
    'Client-Cert',
    'Client-Cert-Chain',
    'Client_Cert',
    'Signature',
    'Signature-Input',
    'Workload-Identity-Token',
    'Workload-Proof-Token',
    'workload.spiffe.io',
    'Txn-Token',
    'OAuth-Client-Attestation',
    'OAuth-Client-Attestation-PoP',
    'Holdfast-Spiffe-Id',
    'Holdfast-Reason',
    'HTTP2-Settings',
    'Connection',
    'Keep-Alive',
    'TE',
    'Transfer-Encoding',
    'Transfer_Encoding',
    'Upgrade',
    'Host',
    'Content-Length',
    'Expect',
  ])('does not pass %s', (name) => {
    expect(passRequest(['Accept', '*/*', name, 'x', 'Cookie', 'a=b'], plain)).toEqual([
      'Accept',
      '*/*',
      'Cookie',
      'a=b',
    ])
  })

  it('passes what is left as it was sent, in order and with its case', () => {
    const raw = [
      'accept',
      'a',
      'X-Request-Id',
      '1',
      'Cookie',
      'a',
      'Cookie',
      'b',
      'Referer',
      'http://orders/',
    ]
    expect(passRequest(raw, plain)).toEqual(raw)
  })

  it('removes what Connection lists', () => {
    const raw = [
      'Connection',
      'close, X-Private',
      'connection',
      ' x-other ',
      'X-Private',
      '1',
      'X-Other',
      '2',
      'Z',
      '3',
    ]
    expect(passRequest(raw, plain)).toEqual(['Z', '3'])
  })

  it('passes a transaction token where it is configured', () => {
    expect(passRequest(['Txn-Token', 't'], { transaction: true })).toEqual(['Txn-Token', 't'])
    expect(passRequest(['Txn_Token', 't'], { transaction: true })).toEqual([])
    expect(passRequest(['Txn-Token', 't', 'Connection', 'Txn-Token'], { transaction: true })).toEqual([])
  })

  it.each([
    ['Txn-Token', 'Txn-Token'],
    ['txn-token', 'TXN-TOKEN'],
    ['Txn-Token', 'Txn_Token'],
    ['Holdfast-Subject', 'Holdfast-Subject'],
  ])('refuses %s beside %s: there is exactly one', (first, second) => {
    expect(() => checkHeaders([first, 'a', second, 'a'])).toThrow(
      expect.objectContaining({ reason: 'header_refused' }),
    )
  })
})

describe('outgoing', () => {
  const injected = [
    ['Authorization', 'DPoP token'],
    ['DPoP', 'proof'],
  ] as const

  it('injects last, after Connection has taken what it names away: exactly one of each', () => {
    const raw = [
      'Connection',
      'Authorization, DPoP',
      'Authorization',
      'Bearer mine',
      'DPoP',
      'mine',
      'A',
      '1',
    ]
    expect(
      outgoing('orders.example.org', passRequest(raw, plain), ['Content-Length', '0'], injected),
    ).toEqual([
      'Host',
      'orders.example.org',
      'A',
      '1',
      'Content-Length',
      '0',
      'Authorization',
      'DPoP token',
      'DPoP',
      'proof',
    ])
  })

  it('replaces a field of the same name in whatever spelling', () => {
    const sent = outgoing('h', ['dpop', 'x', 'AUTHORIZATION', 'y'], [], injected)
    expect(sent.filter((text) => /^(?:dpop|authorization)$/i.test(text))).toEqual(['Authorization', 'DPoP'])
  })
})

describe('framingOf', () => {
  it.each([
    [['Content-Length', '5'], 'POST', ['Content-Length', '5'], true],
    [['Transfer-Encoding', 'chunked'], 'GET', ['Transfer-Encoding', 'chunked'], true],
    [['Content-Length', '0'], 'PUT', ['Content-Length', '0'], false],
    [[], 'POST', ['Content-Length', '0'], false],
    [[], 'QUERY', ['Content-Length', '0'], false],
    [[], 'GET', [], false],
    [[], 'DELETE', [], false],
  ] as const)('frames %j of %s as %j', (raw, method, expected, body) => {
    expect([framingOf(raw, method), hasBody(raw)]).toEqual([expected, body])
  })
})

describe('checkHeaders', () => {
  it.each([
    ['a plain request', ['Accept', '*/*', 'Cookie', 'a', 'Cookie', 'b'], 'ok'],
    ['a tab in a value', ['A', 'b\tc'], 'ok'],
    ['two lengths', ['Content-Length', '1', 'Content-Length', '1'], 'invalid_request'],
    ['a list of lengths', ['Content-Length', '1, 1'], 'invalid_request'],
    ['a signed length', ['Content-Length', '+1'], 'invalid_request'],
    ['a length and a coding', ['Content-Length', '1', 'Transfer-Encoding', 'chunked'], 'invalid_request'],
    ['two codings', ['Transfer-Encoding', 'chunked', 'Transfer-Encoding', 'chunked'], 'invalid_request'],
    ['another coding', ['Transfer-Encoding', 'gzip, chunked'], 'invalid_request'],
    ['an unknown coding', ['Transfer-Encoding', 'xchunked'], 'invalid_request'],
    ['two types', ['Content-Type', 'a/b', 'content-type', 'c/d'], 'header_refused'],
    ['two identities', ['Holdfast-Spiffe-Id', 'a', 'Holdfast-Spiffe-Id', 'b'], 'header_refused'],
    ['a space in a name', ['A b', 'c'], 'header_refused'],
    ['a space before the colon', ['Content-Length ', '1'], 'header_refused'],
    ['an empty name', ['', 'c'], 'header_refused'],
    ['a line break', ['A', 'b\r\nC: d'], 'header_refused'],
    ['a folded line', ['A', 'b\r\n c'], 'header_refused'],
    ['a lone line feed', ['A', 'b\nc'], 'header_refused'],
    ['a NUL', ['A', 'b\u0000c'], 'header_refused'],
    ['a character beyond a byte', ['A', '\u0141'], 'header_refused'],
    ['an origin', ['Origin', 'https://evil.example'], 'browser_refused'],
    ['a null origin', ['origin', 'null'], 'browser_refused'],
    ['what browsers say of a fetch', ['Sec-Fetch-Site', 'cross-site'], 'browser_refused'],
    ['too many headers', Array.from({ length: 258 }, () => 'a'), 'header_refused'],
  ] as const)('answers %s', (_what, raw, reason) => {
    expect(reasonOf(() => checkHeaders(raw))).toBe(reason)
  })
})

describe('parseRoute', () => {
  const route = (url: string, ...raw: string[]) => parseRoute({ url, raw })

  it('reads target, path and query', () => {
    expect(route('/v1/items?a=/b?c', 'Host', 'Orders')).toEqual({
      target: 'orders',
      path: '/v1/items',
      query: '?a=/b?c',
      spiffeId: undefined,
    })
  })

  it('takes an absolute form that says the same', () => {
    expect(route('http://ORDERS/v1', 'Host', 'orders')).toMatchObject({ target: 'orders', path: '/v1' })
    expect(route('http://orders?q', 'Host', 'orders')).toMatchObject({ path: '/', query: '?q' })
  })

  it.each([
    ['no Host', '/', []],
    ['two Hosts', '/', ['Host', 'orders', 'Host', 'orders']],
    ['a port', '/', ['Host', 'orders:80']],
    ['an address', '/', ['Host', '127.0.0.1']],
    ['a number', '/', ['Host', '2130706433']],
    ['userinfo', '/', ['Host', 'a@orders']],
    ['an empty Host', '/', ['Host', '']],
    ['a list', '/', ['Host', 'orders, payments']],
    ['another target in the line', 'http://payments/', ['Host', 'orders']],
    ['a port in the line', 'http://orders:80/', ['Host', 'orders']],
    ['userinfo in the line', 'http://orders@payments/', ['Host', 'orders']],
    ['https in the line', 'https://orders/', ['Host', 'orders']],
    ['the asterisk form', '*', ['Host', 'orders']],
    ['the authority form', 'orders:443', ['Host', 'orders']],
    ['a scheme-relative line', 'orders/v1', ['Host', 'orders']],
  ] as const)('refuses %s', (_what, url, raw) => {
    expect(reasonOf(() => route(url, ...raw))).toBe('invalid_request')
  })

  it('reads which identity the caller chooses', () => {
    const id = 'spiffe://example.org/web'
    expect(route('/', 'Host', 'orders', 'Holdfast-Spiffe-Id', id).spiffeId).toBe(id)
    expect(reasonOf(() => route('/', 'Host', 'orders', 'Holdfast-Spiffe-Id', 'web'))).toBe(
      'spiffe_id_invalid',
    )
  })
})

describe('passResponse', () => {
  it('drops what is hop-by-hop, what speaks for the agent, and the nonce', () => {
    const raw = [
      'Connection',
      'close, X-Gone',
      'X-Gone',
      '1',
      'Holdfast-Reason',
      'ok',
      'holdfast-x',
      '1',
      'DPoP-Nonce',
      'n',
    ]
    const kept = [
      'Content-Length',
      '3',
      'Set-Cookie',
      'a',
      'Set-Cookie',
      'b',
      'WWW-Authenticate',
      'DPoP',
      'Location',
      '/x',
    ]
    expect(passResponse([...raw, ...kept, 'Transfer-Encoding', 'chunked', 'Upgrade', 'h2c'])).toEqual(kept)
  })
})

describe('passTrailers', () => {
  it('passes trailers but no framing, routing or credentials', () => {
    expect(
      passTrailers(['Grpc-Status', '0', 'Authorization', 'x', 'Content-Length', '1', 'Host', 'x']),
    ).toEqual(['Grpc-Status', '0'])
  })
})

describe('wantsNonce', () => {
  it.each([
    ['DPoP error="use_dpop_nonce"', true],
    ['dpop error=use_dpop_nonce', true],
    ['DPoP algs="ES256 ES384", error="use_dpop_nonce", error_description="Use, a \\"nonce\\""', true],
    ['Bearer realm="a, DPoP error=\\"no\\"", DPoP algs="ES256", error="use_dpop_nonce"', true],
    ['DPoP error="invalid_token"', false],
    ['Bearer error="use_dpop_nonce"', false],
    ['DPoP algs="ES256", Bearer error="use_dpop_nonce"', false],
    ['Bearer realm="DPoP error=use_dpop_nonce"', false],
    ['DPoP', false],
    ['', false],
    [',,,', false],
  ] as const)('reads %s', (challenge, expected) => {
    expect(wantsNonce(401, ['WWW-Authenticate', challenge])).toBe(expected)
  })

  it('asks for status 401', () => {
    expect(wantsNonce(400, ['WWW-Authenticate', 'DPoP error="use_dpop_nonce"'])).toBe(false)
  })

  it('reads a hostile challenge in little time', () => {
    const started = performance.now()
    wantsNonce(401, ['WWW-Authenticate', `DPoP ${'a="\\'.repeat(20_000)}`])
    wantsNonce(401, ['WWW-Authenticate', `${' \t'.repeat(30_000)}`])
    wantsNonce(401, ['WWW-Authenticate', `${'a '.repeat(30_000)}`])
    expect(performance.now() - started).toBeLessThan(500)
  })
})

describe('nonceIn', () => {
  it.each([
    [['DPoP-Nonce', 'abc.DEF~1'], 'abc.DEF~1'],
    [['dpop-nonce', 'x'.repeat(256)], 'x'.repeat(256)],
    [['DPoP-Nonce', 'x'.repeat(257)], undefined],
    [['DPoP-Nonce', 'a', 'DPoP-Nonce', 'b'], undefined],
    [['DPoP-Nonce', 'a b'], undefined],
    [['DPoP-Nonce', 'a"b'], undefined],
    [['DPoP-Nonce', 'a\\b'], undefined],
    [['DPoP-Nonce', ''], undefined],
    [[], undefined],
  ] as const)('reads %j', (raw, expected) => {
    expect(nonceIn(raw)).toBe(expected)
  })
})
