/** The wrapped fetch: headers, nonces, the one repetition, redirects, and what must never happen with the token. */
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { wrapFetch } from '../../../src/client/fetch.ts'
import type { DpopRequest, Signer } from '../../../src/client/signer.ts'

const TOKEN = 'canary-token.abc_~+/-=='
const URL_1 = 'https://api.example.org/items'

interface Sent {
  readonly url: string
  readonly method: string | undefined
  readonly headers: Headers
  readonly redirect: string | undefined
  readonly body: string | undefined
}

/** A fetch that sends nothing: it notes the requests and answers from `answers`, at the end with 200. */
function setup(answers: readonly (() => Response)[] = [], options: { hashOnly?: boolean } = {}) {
  const asked: DpopRequest[] = []
  const sent: Sent[] = []
  const left = [...answers]
  const signer = {
    dpop: async (request: DpopRequest) => {
      asked.push(request)
      return { proof: `proof-${asked.length}`, jkt: 'k', jti: 'j', iat: 1 }
    },
  } as unknown as Signer
  const send = (async (input: string | Request, init: RequestInit) => {
    const request = new Request(input, { ...init, ...(init.body ? { duplex: 'half' } : {}) })
    const { method, redirect } = init
    const body = request.body ? await request.text() : undefined
    sent.push({ url: request.url, method, headers: new Headers(init.headers), redirect, body })
    return (left.shift() ?? (() => new Response('fine')))()
  }) as typeof fetch
  const call = wrapFetch(signer, { accessToken: () => TOKEN, fetch: send, ...options })
  return { asked, sent, call }
}

const challenge = (nonce: string | undefined, authenticate = 'DPoP error="use_dpop_nonce", algs="ES256"') =>
  new Response('no', {
    status: 401,
    headers: { 'www-authenticate': authenticate, ...(nonce === undefined ? {} : { 'dpop-nonce': nonce }) },
  })
const withNonce = (nonce: string, status = 200) =>
  new Response('ok', { status, headers: { 'dpop-nonce': nonce } })
const faultOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'none',
    (error) => (error instanceof Fault ? error.reason : String(error)),
  )

describe('what is sent', () => {
  it('carries the token and a proof for exactly its method and URL', async () => {
    const { asked, sent, call } = setup()
    await call(`${URL_1}?q=1`, { method: 'post', body: 'x', headers: { 'content-type': 'text/plain' } })
    expect(asked).toEqual([{ method: 'POST', url: `${URL_1}?q=1`, nonce: undefined, accessToken: TOKEN }])
    expect(sent[0]).toMatchObject({ url: `${URL_1}?q=1`, method: 'POST', body: 'x' })
    expect(Object.fromEntries(sent[0]?.headers ?? [])).toEqual({
      authorization: `DPoP ${TOKEN}`,
      'content-type': 'text/plain',
      dpop: 'proof-1',
    })
  })

  it.each([
    ['a URL', () => new URL(URL_1)],
    ['a Request', () => new Request(URL_1, { headers: { 'x-kept': 'yes' } })],
  ])('takes %s', async (_what, input) => {
    const { asked, sent, call } = setup()
    await call(input())
    expect(asked[0]).toMatchObject({ method: 'GET', url: URL_1 })
    expect(sent[0]).toMatchObject({ url: URL_1, method: 'GET' })
  })

  it('keeps the headers, method and body of a Request', async () => {
    const { asked, sent, call } = setup()
    await call(new Request(URL_1, { method: 'PUT', body: 'x', headers: { 'x-kept': 'yes' } }))
    expect(asked[0]?.method).toBe('PUT')
    expect(sent[0]).toMatchObject({ method: 'PUT', body: 'x' })
    expect(sent[0]?.headers.get('x-kept')).toBe('yes')
  })

  it('signs the URL that is sent, after dot segments are gone', async () => {
    const { asked, sent, call } = setup()
    await call('https://API.example.org:443/a/../items')
    expect(asked[0]?.url).toBe(URL_1)
    expect(sent[0]?.url).toBe(URL_1)
  })

  it('shows the agent only the hash of an opaque token', async () => {
    const { asked, sent, call } = setup([], { hashOnly: true })
    await call(URL_1)
    expect(JSON.stringify(asked)).not.toContain(TOKEN)
    expect(asked[0]?.ath).toMatch(/^[\w-]{43}$/)
    expect(sent[0]?.headers.get('authorization')).toBe(`DPoP ${TOKEN}`)
  })

  it('never follows a redirect with the token', async () => {
    const { sent, call } = setup([
      () => new Response('', { status: 302, headers: { location: 'https://evil.test/' } }),
    ])
    const response = await call(URL_1, { redirect: 'follow' })
    expect(response.status).toBe(302)
    expect(sent.map(({ redirect }) => redirect)).toEqual(['manual'])
  })
})

describe('what is refused', () => {
  it.each([
    ['its own DPoP header', { headers: { DPoP: 'x' } }],
    ['its own Authorization header', { headers: [['AUTHORIZATION', 'Bearer x']] as [string, string][] }],
  ])('sends nothing for a request with %s', async (_what, init) => {
    const { asked, sent, call } = setup()
    expect(await faultOf(call(URL_1, init))).toBe('invalid_request')
    expect(await faultOf(call(new Request(URL_1, init)))).toBe('invalid_request')
    expect([asked, sent]).toEqual([[], []])
  })

  it('sends nothing when the agent refuses the proof', async () => {
    const { sent } = setup()
    const signer = { dpop: () => Promise.reject(new Fault('target_unknown')) } as unknown as Signer
    const call = wrapFetch(signer, {
      accessToken: () => TOKEN,
      fetch: () => Promise.reject(new Error('sent')),
    })
    expect(await faultOf(call(URL_1))).toBe('target_unknown')
    expect(sent).toEqual([])
  })

  it.each([['canary\ninjected: yes'], ['canary token'], [''], ['canary-\u00e9']])(
    'never quotes a token that no header takes: %j',
    async (token) => {
      const { asked } = setup()
      const signer = { dpop: () => Promise.reject(new Error('asked')) } as unknown as Signer
      const error = await wrapFetch(signer, { accessToken: () => token })(URL_1).catch((caught) => caught)
      expect(error).toMatchObject({ reason: 'token_malformed' })
      expect(`${error.stack}${JSON.stringify(error)}`).not.toContain('canary')
      expect(asked).toEqual([])
    },
  )

  it('never quotes a URL that it cannot read', async () => {
    const { call } = setup()
    const error = await call('/items?secret=canary').catch((caught: unknown) => caught)
    expect(error).toMatchObject({ reason: 'url_refused' })
    expect(JSON.stringify(error)).not.toContain('canary')
  })
})

describe('nonces', () => {
  it('repeats the request once with the nonce and a new proof', async () => {
    const { asked, sent, call } = setup([() => challenge('n1')])
    const response = await call(URL_1, { method: 'POST', body: 'x' })
    expect(response.status).toBe(200)
    expect(asked.map(({ nonce }) => nonce)).toEqual([undefined, 'n1'])
    expect(sent.map(({ headers, body }) => [headers.get('dpop'), body])).toEqual([
      ['proof-1', 'x'],
      ['proof-2', 'x'],
    ])
  })

  it('gives a refusal of the nonce back that was just sent', async () => {
    const { sent, call } = setup([() => withNonce('n1'), () => challenge('n1')])
    await call(URL_1)
    expect((await call(URL_1)).status).toBe(401)
    expect(sent).toHaveLength(2)
  })

  it('gives a second refusal back instead of trying again', async () => {
    const { sent, call } = setup([() => challenge('n1'), () => challenge('n2')])
    expect((await call(URL_1)).status).toBe(401)
    expect(sent).toHaveLength(2)
  })

  it('learns from a 200 too and always keeps the newest', async () => {
    const { asked, call } = setup([() => withNonce('n1'), () => withNonce('n2', 404)])
    for (let count = 0; count < 3; count++) await call(URL_1)
    expect(asked.map(({ nonce }) => nonce)).toEqual([undefined, 'n1', 'n2'])
  })

  it('keeps one nonce an origin and gives it to no other', async () => {
    const { asked, call } = setup([() => withNonce('n1')])
    await call('https://a.example.org/1')
    await call('https://b.example.org/1')
    await call('https://a.example.org:8443/1')
    await call('https://a.example.org/2')
    expect(asked.map(({ nonce }) => nonce)).toEqual([undefined, undefined, undefined, 'n1'])
  })

  it('takes no nonce from another origin', async () => {
    const elsewhere = () => Object.defineProperty(challenge('evil'), 'url', { value: 'https://evil.test/' })
    const { asked, call } = setup([elsewhere])
    expect((await call(URL_1)).status).toBe(401)
    await call(URL_1)
    expect(asked.map(({ nonce }) => nonce)).toEqual([undefined, undefined])
  })

  it('repeats each of two requests that met the same new nonce', async () => {
    const { asked, call } = setup([() => challenge('n1'), () => challenge('n1')])
    const both = await Promise.all([call(URL_1), call(URL_1)])
    expect(both.map(({ status }) => status)).toEqual([200, 200])
    expect(asked.map(({ nonce }) => nonce)).toEqual([undefined, undefined, 'n1', 'n1'])
  })

  it.each([
    ['has no nonce', () => challenge(undefined)],
    ['has a nonce with a space, as two header lines would', () => challenge('n1, n2')],
    ['has a nonce over 256 characters', () => challenge('n'.repeat(257))],
    ['has a nonce with a quote', () => challenge('n"1')],
    ['has another error', () => challenge('n1', 'DPoP error="invalid_token"')],
    ['speaks of Bearer', () => challenge('n1', 'Bearer error="use_dpop_nonce"')],
    ['has no challenge', () => withNonce('n1', 401)],
    ['is no 401', () => new Response('', { status: 403, headers: challenge('n1').headers })],
  ])('gives an answer back that %s', async (_what, answer) => {
    const { sent, call } = setup([answer])
    await call(URL_1)
    expect(sent).toHaveLength(1)
  })

  it('finds the challenge among others', async () => {
    const { sent, call } = setup([
      () => challenge('n1', 'Bearer realm="x", DPoP algs="ES256", error="use_dpop_nonce"'),
    ])
    await call(URL_1)
    expect(sent).toHaveLength(2)
  })

  it.each([
    ['text', () => 'x', 2],
    ['bytes', () => new Uint8Array([120]), 2],
    ['a form', () => new URLSearchParams({ x: '1' }), 2],
    ['a blob', () => new Blob(['x']), 2],
    ['a stream', () => new Blob(['x']).stream(), 1],
  ])('sends a body that is %s again only when it can', async (_what, body, tries) => {
    const { sent, call } = setup([() => challenge('n1')])
    await call(URL_1, { method: 'POST', body: body(), duplex: 'half' })
    expect(sent).toHaveLength(tries)
  })

  it('does not send the body of a Request again', async () => {
    const { sent, call } = setup([() => challenge('n1')])
    const response = await call(new Request(URL_1, { method: 'POST', body: 'x' }))
    expect([sent.length, response.status]).toEqual([1, 401])
  })

  it('keeps an origin that was heard of again', async () => {
    const order = [...Array.from({ length: 256 }, (_, index) => index), 0, 256]
    const { asked, call } = setup(order.map((index) => () => withNonce(`n${index}`)))
    for (const index of order) await call(`https://h${index}.example.org/`)
    await call('https://h0.example.org/')
    await call('https://h1.example.org/')
    expect(asked.slice(-2).map(({ nonce }) => nonce)).toEqual(['n0', undefined])
  })

  it('remembers 256 origins and forgets the one not heard of for longest', async () => {
    const { asked, call } = setup(Array.from({ length: 257 }, (_, index) => () => withNonce(`n${index}`)))
    for (let index = 0; index < 257; index++) await call(`https://h${index}.example.org/`)
    await call('https://h0.example.org/')
    await call('https://h1.example.org/')
    expect(asked.slice(-2).map(({ nonce }) => nonce)).toEqual([undefined, 'n1'])
  })
})
