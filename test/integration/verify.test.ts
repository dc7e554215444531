/** The verifier's socket: one table of requests against every way in, who may ask, what is handed out and put on record. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { call } from '../support/call.ts'
import { boundToken, tradedRequest, txnToken } from '../support/verify-cases.ts'
import { openVerifyRig, type VerifyRig } from '../support/verify-rig.ts'
import { casesFor, expectAnswer, expectOneOfMany } from '../support/verify-table.ts'
import { rawAnswer, WAYS, type Way } from '../support/verify-ways.ts'

const uid = process.getuid?.() ?? 0
const json = WAYS[0] as Way
describe('the verifier', () => {
  let rig: VerifyRig

  beforeAll(async () => {
    rig = await openVerifyRig()
  })
  afterAll(async () => rig?.[Symbol.asyncDispose]())

  describe.each(WAYS.map((way) => [way.name, way] as const))('by %s', (_name, way) => {
    it.each(casesFor(way))('answers %s', async (_case, each) => expectAnswer(rig, way, each))

    it('takes one of 100 copies that come at once', async () =>
      expectOneOfMany(rig, (request) => way.ask(rig.socket, request)))

    it('takes the nonce that it asked for', async () => {
      const nonce = (await way.ask(rig.socket, rig.request({ route: 'strict' }))).headers['dpop-nonce']
      const again = await way.ask(rig.socket, rig.request({ route: 'strict', proof: { nonce } }))
      expect(again.isAllowed).toBe(true)
    })
  })

  it('tells the service who calls, and nothing that could be sent again', async () => {
    const { body } = await json.ask(
      rig.socket,
      rig.request({ claims: { act: undefined, secret: 'private' } }),
    )
    expect(body).toEqual({
      route: 'api',
      caller: {
        names: ['client:login/web'],
        client_id: 'web',
        subject: 'ann',
        actors: [],
        scopes: ['read', 'list'],
      },
      binding: { kind: 'dpop', jkt: rig.key.jkt },
      claims: expect.objectContaining({ sub: 'ann', aud: 'https://api.example.org', scope: 'read list' }),
      expires: expect.any(Number),
    })
    expect(body.claims).not.toHaveProperty('cnf')
    expect(body.claims).not.toHaveProperty('secret')
  })

  it('finds the route by the longest prefix that it receives', async () => {
    const narrow = rig.request({
      path: '/v1/narrow/items',
      proof: { htu: 'https://api.example.org/orders/v1/narrow/items' },
    })
    const { route: _unnamed, ...request } = narrow
    expect((await json.ask(rig.socket, request)).body.route).toBe('narrow')
    const { route: _other, ...shared } = rig.request()
    expect((await json.ask(rig.socket, shared)).reason).toBe('route_unknown')
  })

  it('takes a URL for its path alone', async () => {
    const { path: _path, ...request } = rig.request()
    const url = 'https://whatever.example.net:8443/v1/items?secret=1'
    const { status, body } = await call(rig.socket, 'POST', '/v1/verify', { body: { ...request, url } })
    expect([status, body.caller?.client_id]).toEqual([200, 'web'])
  })

  it.each([
    ['an unknown member', { more: 1 }],
    ['both path and url', { url: 'https://api.example.org/v1/items' }],
    ['a header with a line end', { headers: [['X-A', 'b\r\nDPoP: c']] }],
    ['a header that is no pair', { headers: [['DPoP']] }],
    ['a pseudo header', { headers: [[':path', '/']] }],
    ['headers by name', { headers: { dpop: 'x' } }],
    ['257 headers', { headers: Array.from({ length: 257 }, () => ['X-A', 'b']) }],
    ['a method with a blank', { method: 'GET /' }],
    ['a path without its slash', { path: 'v1/items' }],
    ['a certificate in another spelling of base64', { peer: { certificate: 'AAB' } }],
    ['an address that is none', { peer: { address: 'localhost' } }],
  ])('refuses a question with %s', async (_what, over) => {
    const before = rig.verdicts().length
    const { status, body } = await call(rig.socket, 'POST', '/v1/verify', {
      body: { ...rig.request(), ...over },
    })
    expect([status, body.error.reason, body.challenge]).toEqual([400, 'invalid_request', undefined])
    expect(rig.verdicts().length).toBe(before)
  })

  it('has each decision on record, without token, proof or query', async () => {
    const request = rig.request({ route: 'gated', address: '192.0.2.7' })
    await json.ask(rig.socket, request)
    const stolen = rig.request({ claims: { cnf: { jkt: 'x'.repeat(43) } } })
    await json.ask(rig.socket, stolen)
    const [allowed, refused] = rig.verdicts().slice(-2)
    expect(allowed).toMatchObject({
      allowed: true,
      route: 'gated',
      hop: 'edge',
      caller: 'client:login/web',
      jkt: rig.key.jkt,
      token: expect.stringMatching(/^[A-Za-z0-9_-]{16}$/),
      method: 'GET',
      rule: expect.stringMatching(/^.*application\.yaml:\d+$/),
      uid,
    })
    expect(refused).toMatchObject({
      allowed: false,
      reason: 'token_stolen',
      owner: 'security',
      route: 'api',
      caller: 'client:login/web',
    })
    const text = JSON.stringify(rig.verdicts())
    for (const { headers } of [request, stolen])
      for (const [, value] of headers.slice(1)) expect(text).not.toContain(value.slice(-40))
    expect(text).not.toContain('secret=1')
  })

  it('fetches the keys of the server once for all of this', () => {
    // One more for the token of a key that is not there is allowed after half a minute only.
    expect(rig.asked.filter((path) => path === '/jwks')).toHaveLength(1)
  })
})

describe('what a proxy is told', () => {
  let rig: VerifyRig

  beforeAll(async () => {
    rig = await openVerifyRig({ handOut: 'handle' })
  })
  afterAll(async () => rig?.[Symbol.asyncDispose]())

  const way = (name: string) => WAYS.find((each) => each.name === name) as Way

  it('replaces what came in under the names of claims, and removes credentials', async () => {
    const { body } = await way('ext_authz Check').ask(rig.socket, rig.request({ claims: { scope: 'read' } }))
    const { headers, headers_to_remove: removed } = body.ok_response
    const set = Object.fromEntries(
      headers.map(
        ({
          header,
          append_action: how,
        }: {
          header: { key: string; value: string }
          append_action: string
        }) => [header.key, [header.value, how]],
      ),
    )
    expect(set).toMatchObject({
      'x-holdfast-caller': ['client:login/web', 'OVERWRITE_IF_EXISTS_OR_ADD'],
      'x-holdfast-subject': ['ann', 'OVERWRITE_IF_EXISTS_OR_ADD'],
      'x-holdfast-scopes': ['read', 'OVERWRITE_IF_EXISTS_OR_ADD'],
    })
    expect(removed).toEqual(expect.arrayContaining(['authorization', 'dpop']))
    const narrow = rig.request({
      route: 'narrow',
      path: '/v1/narrow/x',
      proof: { htu: 'https://api.example.org/orders/v1/narrow/x' },
    })
    const other = await way('ext_authz Check').ask(rig.socket, narrow)
    expect(other.body.ok_response.headers_to_remove).toContain('x-holdfast-handle')
  })

  it('names a subject that looks like somebody else unmistakably', async () => {
    const request = rig.request({ claims: { sub: 'admin \r\nX-Role: root, b\u00e9' } })
    const { headers } = await way('forward-auth for nginx').ask(rig.socket, request)
    expect(headers['x-holdfast-subject']).toBe('admin%20%0D%0AX-Role:%20root%2C%20b%C3%A9')
  })

  it('hands out a handle that only exchange takes, for the workload that asked', async () => {
    const { body } = await json.ask(rig.socket, rig.request())
    expect(body.handle).toMatch(/^[A-Za-z0-9_-]{43}$/)
    const { headers } = await way('forward-auth for nginx').ask(rig.socket, rig.request())
    expect(headers['x-holdfast-handle']).toMatch(/^[A-Za-z0-9_-]{43}$/)
  })

  it('hands out another handle in another transaction, of the same token', async () => {
    const bound = boundToken(rig)
    const handleIn = async (txn: string) =>
      (await json.ask(rig.socket, tradedRequest(rig, [txnToken(rig, { txn })], bound))).body.handle
    const [order, again, refund] = [await handleIn('t-1'), await handleIn('t-1'), await handleIn('t-2')]
    expect(order).toMatch(/^[A-Za-z0-9_-]{43}$/)
    expect([again === order, refund === order]).toEqual([true, false])
  })

  it('has no body for a refusal, and reads none of the request', async () => {
    const head = 'X-Original-Method: GET\r\nX-Original-URI: /v1/items\r\nHost: localhost\r\n'
    const heard = await rawAnswer(
      rig.socket,
      `POST /v1/forward-auth/api HTTP/1.1\r\n${head}Origin: https://shop.example\r\nReferer: https://shop.example/\r\nContent-Length: 5\r\n\r\n`,
    )
    expect([heard.status, heard.body]).toEqual([401, ''])
  })

  it.each([
    ['without the method', 'X-Original-URI: /v1/items'],
    ['without the URI', 'X-Original-Method: GET'],
    ['with two URIs', 'X-Original-Method: GET\r\nX-Original-URI: /v1/items\r\nX-Original-URI: /v1/other'],
    ['with an absolute URI', 'X-Original-Method: GET\r\nX-Original-URI: https://host/v1/items'],
    ['with what only the other proxy sets', 'X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /v1/items'],
  ])('refuses a proxy %s', async (_what, lines) => {
    const { headers } = rig.request()
    const sent = headers.slice(1).map(([name, value]) => `${name}: ${value}`)
    const text = ['GET /v1/forward-auth/api HTTP/1.1', 'Host: localhost', lines, ...sent, '', ''].join('\r\n')
    const heard = await rawAnswer(rig.socket, text)
    expect([heard.status, heard.body]).toEqual([403, ''])
  })

  it('believes no address and no certificate of a proxy that sets none', async () => {
    const { headers } = rig.request({ route: 'gated' })
    const sent = headers.slice(1).map(([name, value]) => `${name}: ${value}`)
    const own = ['X-Forwarded-Method: GET', 'X-Forwarded-Uri: /v1/items', 'X-Original-Address: 192.0.2.7']
    const ask = (query: string) =>
      rawAnswer(
        rig.socket,
        [`GET /v1/forward-auth/gated${query} HTTP/1.1`, 'Host: localhost', ...own, ...sent, '', ''].join(
          '\r\n',
        ),
      )
    expect((await ask('?proxy=traefik')).status).toBe(403)
    expect(rig.verdicts().at(-1)?.reason).toBe('hop_unexpected')
    const count = rig.verdicts().length
    expect((await ask('?proxy=traefik&peer=address')).status).toBe(403)
    expect(rig.verdicts().length).toBe(count)
  })
})

describe('a foreign caller', () => {
  let rig: VerifyRig

  beforeAll(async () => {
    rig = await openVerifyRig({ verifiers: `unix:uid:${uid + 1}` })
  })
  afterAll(async () => rig?.[Symbol.asyncDispose]())

  it.each(WAYS.map((way) => [way.name, way] as const))('may not ask by %s', async (_name, way) => {
    const heard = await way.ask(rig.socket, rig.request())
    expect([heard.isAllowed, heard.status, heard.headers['www-authenticate']]).toEqual([
      false,
      403,
      undefined,
    ])
    expect(rig.verdicts().at(-1)).toMatchObject({ allowed: false, reason: 'verifier_foreign', uid })
  })

  it('hears the same of a route that is not there, and nothing was fetched for it', async () => {
    const [there, none] = await Promise.all([
      json.ask(rig.socket, rig.request()),
      json.ask(rig.socket, { ...rig.request(), route: 'nowhere' }),
    ])
    expect(there).toEqual(none)
    const { route: _route, ...unnamed } = rig.request()
    expect((await json.ask(rig.socket, unnamed)).reason).toBe('verifier_foreign')
    expect(rig.asked).toEqual([])
  })

  it('uses up no proof of those who may', async () => {
    const request = rig.request()
    expect((await json.ask(rig.socket, request)).reason).toBe('verifier_foreign')
    await listOwnUid(rig)
    expect((await json.ask(rig.socket, request)).isAllowed).toBe(true)
    expect((await json.ask(rig.socket, request)).reason).toBe('proof_replayed')
  })
})

/** The same policy, with this process's uid as verifier. */
async function listOwnUid({ agent, policy }: VerifyRig): Promise<void> {
  await agent.setPolicy(
    Object.fromEntries(
      Object.entries(policy).map(([name, text]) => [
        name,
        text.replaceAll(`unix:uid:${uid + 1}`, `unix:uid:${uid}`),
      ]),
    ),
  )
}
