/** Redirects through the egress door: a new request through policy each, and nowhere else. */
import { type IncomingMessage, request, type ServerResponse } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { freshNonce, type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const ca = makeTestCa()

interface Got {
  readonly status: number
  readonly reason: unknown
  readonly location: string | undefined
  readonly text: string
}

let [server, other]: ResourceServer[] = []
let egress: TestEgress
/** What `/go` answers: a status and a place. */
let go: readonly [number, string] = [307, '/echo']

function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  return new Promise((resolve) => request.on('end', () => resolve(Buffer.concat(chunks).toString())))
}

const handlers = {
  '/go': (request: IncomingMessage, response: ServerResponse) => {
    request.resume()
    response.writeHead(go[0], { Location: go[1] }).end('moved')
  },
  '/twice': (_request: IncomingMessage, response: ServerResponse) =>
    response
      .writeHead(302, ['Location', '/echo', 'Location', '/other'] as unknown as Record<string, string>)
      .end(),
  '/chain/1': (_request: IncomingMessage, response: ServerResponse) =>
    response.writeHead(302, { Location: '2' }).end(),
  '/chain/2': (_request: IncomingMessage, response: ServerResponse) =>
    response.writeHead(302, { Location: '3' }).end(),
  '/chain/3': (_request: IncomingMessage, response: ServerResponse) =>
    response.writeHead(302, { Location: go[1] }).end(),
  '/v1/body': async (request: IncomingMessage, response: ServerResponse) =>
    void response.end(
      `${request.method} ${request.url} ${request.headers['content-type']} ${await bodyOf(request)}`,
    ),
}

beforeAll(async () => {
  server = await startResourceServer({ ca, handlers })
  other = await startResourceServer({ ca, handlers })
  const origin = `https://localhost:${server.port}`
  egress = await startEgress({
    ca,
    targets: {
      orders: { origin, platform: 'redirects: true' },
      still: { origin },
      narrow: { origin: `https://localhost:${other.port}`, paths: '["/v1/**"]', methods: '[GET, PUT]' },
    },
  })
})

afterAll(async () => {
  await egress?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await other?.[Symbol.asyncDispose]()
})

function send(
  path: string,
  more: {
    method?: string
    host?: string
    body?: string | Buffer
    headers?: Record<string, string>
    socket?: string
  } = {},
): Promise<Got> {
  const { method = 'GET', host = 'orders', body, headers, socket: socketPath = egress.socket } = more
  return new Promise((resolve, reject) => {
    const sent = request(
      { socketPath, method, path, headers: { host, ...headers }, agent: false },
      async (response) =>
        resolve({
          status: response.statusCode ?? 0,
          reason: response.headers['holdfast-reason'],
          location: response.headers.location,
          text: await bodyOf(response),
        }),
    )
    sent.on('error', reject)
    sent.end(body)
  })
}

describe('a redirect', () => {
  const away = () => `https://localhost:${other?.port}`

  it('passes back to the caller where policy does not have it followed', async () => {
    go = [307, '/echo']
    const got = await send('/go', { host: 'still' })
    expect([got.status, got.location, got.text]).toEqual([307, '/echo', 'moved'])
  })

  it.each([
    [307, 'PUT', 'PUT /v1/body?a=1 text/plain some'],
    [308, 'PUT', 'PUT /v1/body?a=1 text/plain some'],
    [303, 'POST', 'GET /v1/body?a=1 undefined '],
    [301, 'GET', 'GET /v1/body?a=1 undefined '],
    [302, 'GET', 'GET /v1/body?a=1 undefined '],
  ])('%i of %s leads to another target, with its own token and proof', async (status, method, text) => {
    go = [status, `${away()}/v1/body?a=1#part`]
    const body = method === 'GET' ? {} : { body: 'some' }
    const got = await send('/go', {
      method,
      headers: { 'content-type': 'text/plain', cookie: 'a=1', 'x-mine': 'x' },
      ...body,
    })
    expect([got.status, got.text]).toEqual([200, text])
    expect([server?.refused, other?.refused]).toEqual([[], []])
    const { headers } = other?.requests.at(-1) ?? {}
    expect([headers?.cookie, headers?.['x-mine']]).toEqual([undefined, 'x'])
    expect(new Set(egress.asked.map(({ target }) => target.name))).toContain('narrow')
  })

  it('has an audit record of its own, and ends that of the first request', async () => {
    const told = () => egress.records().map(({ event, target, allowed }) => `${event} ${target} ${allowed}`)
    await until('the records before', () => told().at(-1)?.startsWith('egress.done'))
    const before = told().length
    go = [307, `${away()}/v1/body`]
    await send('/go')
    await until('its records', () => told().length >= before + 4)
    expect(told().slice(before)).toEqual([
      'egress orders true',
      'egress.done orders true',
      'egress narrow true',
      'egress.done narrow true',
    ])
  })

  it('takes a nonce of the place it leads to, and of no other', async () => {
    if (other) other.nonce = freshNonce()
    go = [307, `${away()}/v1/body`]
    const got = await send('/go', { method: 'PUT', body: 'some' })
    expect(got.text).toBe('PUT /v1/body undefined some')
    if (other) other.nonce = undefined
  })

  it.each([301, 302])('%i of POST passes back: clients differ on its meaning', async (status) => {
    go = [status, '/echo']
    const got = await send('/go', { method: 'POST', body: 'some' })
    expect([got.status, got.location]).toEqual([status, '/echo'])
  })

  it('is followed three times and no more', async () => {
    go = [307, '/echo']
    expect((await send('/chain/1')).status).toBe(200)
    go = [307, '/go']
    expect((await send('/chain/1')).reason).toBe('redirect_refused')
  })

  it.each([
    ['where the request has been before', () => '/go'],
    ['a metadata address', () => 'http://169.254.169.254/latest/'],
    ['a metadata address over https', () => 'https://169.254.169.254/latest/'],
    ['an origin of no target', () => 'https://elsewhere.example/'],
    ['a path that no grant names', () => `${away()}/v2`],
    ['plain http', () => `http://localhost:${other?.port}/v1/x`],
    ['userinfo', () => `https://orders@localhost:${other?.port}/v1/x`],
    ['dot segments', () => `${away()}/v1/../v2`],
    ['a backslash', () => `${away()}\\@elsewhere.example/`],
    ['another scheme', () => 'file:///etc/passwd'],
    ['an escaped slash', () => '/v1%2f..%2fx'],
    ['another host without scheme', () => '//elsewhere.example/v1'],
  ])('to %s is refused, with the reason', async (_what, place) => {
    go = [307, place()]
    const before = other?.requests.length
    const got = await send('/go')
    expect([got.status, got.reason]).toEqual([502, 'redirect_refused'])
    expect(got.text).not.toContain('/latest')
    expect(other?.requests.length).toBe(before)
  })

  it('that is refused gives its connection back', async () => {
    await using target = await startResourceServer({ ca, handlers })
    const orders = { origin: `https://localhost:${target.port}`, platform: 'redirects: true' }
    await using narrow = await startEgress({
      ca,
      targets: { orders },
      settings: { connectionsPerTarget: 2, responseTimeout: 1 },
    })
    go = [307, 'http://localhost/']
    for (let count = 0; count < 4; count++)
      expect((await send('/go', { socket: narrow.socket })).reason).toBe('redirect_refused')
    await until('no connection to be left but one', () => target.connections < 2)
  })

  it('of a method that no grant names is refused', async () => {
    go = [307, `${away()}/v1/body`]
    expect((await send('/go', { method: 'POST', body: 'x' })).reason).toBe('redirect_refused')
    const isTold = () =>
      egress
        .records()
        .some(
          ({ allowed, target, reason }) =>
            `${allowed} ${target} ${reason}` === 'false narrow redirect_refused',
        )
    await until('its record', isTold)
  })

  it('to several places at once is refused', async () => {
    expect((await send('/twice')).reason).toBe('redirect_refused')
  })

  it('with a body that was too long to be kept is refused', async () => {
    go = [307, `${away()}/v1/body`]
    const got = await send('/go', { method: 'PUT', body: Buffer.alloc(1024 * 1024) })
    expect(got.reason).toBe('body_not_replayable')
  })
})
