/** The egress door against a real resource server over TLS: what leaves, what comes back, and what never does. */
import { createHash } from 'node:crypto'
import { type Agent, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { createSecureServer } from 'node:http2'
import type { AddressInfo, Server, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer as createTls } from 'node:tls'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { startPeer } from '../support/peer.ts'
import { openWire } from '../support/raw-http.ts'
import { freshNonce, type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const ca = makeTestCa()

interface Got {
  readonly status: number
  readonly headers: NodeJS.Dict<string | string[]>
  readonly trailers: NodeJS.Dict<string>
  readonly text: string
}

interface Send {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string | string[]>>
  readonly body?: string | Buffer
  readonly agent?: Agent
}

/** Sends as an application would: over the socket, with the target's name as Host. */
function send(socketPath: string, host: string, options: Send = {}): Promise<Got> {
  const { method = 'GET', path = '/echo', headers = {}, body, agent } = options
  return new Promise((resolve, reject) => {
    const sent = request(
      { socketPath, method, path, headers: { host, ...headers }, agent: agent ?? false },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            trailers: response.trailers,
            text: Buffer.concat(chunks).toString(),
          }),
        )
      },
    )
    sent.on('error', reject)
    sent.end(body)
  })
}

const reasonOf = ({ headers, text }: Got) => {
  expect(JSON.parse(text).error.reason).toBe(headers['holdfast-reason'])
  return headers['holdfast-reason']
}

const isRoot = process.getuid?.() === 0
const MIB = 1024 * 1024
const CHUNK = Buffer.alloc(MIB, 7)
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

/** Events that a test lets go by hand. */
const streams = new Set<ServerResponse>()

/** Lets bodies be read that wait. */
const slow: (() => void)[] = []

const handlers = {
  '/slow-body': (request: IncomingMessage, response: ServerResponse) => {
    slow.push(() => request.resume())
    request.on('end', () => response.end('{}'))
  },
  '/big-body': (request: IncomingMessage, response: ServerResponse) => {
    let size = 0
    const hash = createHash('sha256')
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      hash.update(chunk)
    })
    request.on('end', () => response.end(JSON.stringify({ size, hash: hash.digest('hex') })))
  },
  '/big-answer': (_request: IncomingMessage, response: ServerResponse) => {
    let left = 64
    const more = () => {
      while (left > 0) {
        left -= 1
        if (!response.write(CHUNK)) return response.once('drain', more)
      }
      return response.end()
    }
    more()
  },
  '/events': (_request: IncomingMessage, response: ServerResponse) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    response.flushHeaders()
    streams.add(response)
    response.on('close', () => streams.delete(response))
  },
  '/redirect': (_request: IncomingMessage, response: ServerResponse) =>
    response.writeHead(302, { Location: 'http://169.254.169.254/latest/' }).end(),
  '/empty': (_request: IncomingMessage, response: ServerResponse) => response.writeHead(204).end(),
  '/trailers': (_request: IncomingMessage, response: ServerResponse) => {
    response.write('body')
    response.addTrailers({ 'Grpc-Status': '0', Authorization: 'mine' })
    response.end()
  },
  '/headers': (_request: IncomingMessage, response: ServerResponse) =>
    response
      .writeHead(200, [
        ...[
          'Holdfast-Reason',
          'policy_denied',
          'DPoP-Nonce',
          freshNonce(),
          'Connection',
          'X-Hop',
          'X-Hop',
          '1',
        ],
        ...['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'X-Kept', 'yes'],
      ] as unknown as Record<string, string>)
      .end('ok'),
  '/cut': (_request: IncomingMessage, response: ServerResponse) => {
    response.writeHead(200, { 'Content-Length': '100' })
    response.write('half')
    setTimeout(() => response.destroy(), 20)
  },
  '/early': (_request: IncomingMessage, response: ServerResponse) =>
    response.writeHead(413, { Connection: 'close' }).end('too much'),
  '/never': () => {},
  '/forbidden': (_request: IncomingMessage, response: ServerResponse) =>
    response
      .writeHead(401, { 'WWW-Authenticate': 'DPoP error="use_dpop_nonce"', 'DPoP-Nonce': freshNonce() })
      .end('again'),
}

/** A WebSocket that sends back what it gets. */
function echo(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}${GUID}`).digest('base64')
  const wrong = request.url?.startsWith('/wrong-accept') ? 'x' : ''
  socket.on('error', () => {})
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${wrong}${accept}\r\nHoldfast-Reason: x\r\n\r\n`,
  )
  socket.write(head)
  socket.pipe(socket)
}

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
const handshake = (host: string, path = '/ws', more = '') =>
  `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n${more}\r\n`

describe('a request through the egress door', () => {
  let server: ResourceServer
  let egress: TestEgress
  let origin: string

  beforeAll(async () => {
    server = await startResourceServer({ ca, handlers, upgrade: echo })
    origin = `https://localhost:${server.port}`
    egress = await startEgress({
      ca,
      targets: {
        orders: { origin },
        narrow: { origin, paths: '["/v1/**"]', methods: '[GET]' },
        open: { origin, identity: 'server: none, tokenless: true' },
      },
      settings: { connectionsPerTarget: 32 },
    })
  })

  afterAll(async () => {
    await egress?.[Symbol.asyncDispose]()
    await server?.[Symbol.asyncDispose]()
  })

  it('arrives with a token and a proof that the application never saw', async () => {
    const got = await send(egress.socket, 'orders', { path: '/echo?q=1&next=/a%2e' })
    expect([got.status, JSON.parse(got.text).sub]).toEqual([200, 'spiffe://example.org/web'])
    expect(server.refused).toEqual([])
    expect(server.requests.at(-1)?.url).toBe('/echo?q=1&next=/a%2e')
    expect(server.requests.at(-1)?.headers.host).toBe(`localhost:${server.port}`)
  })

  it('takes an absolute form that says the same as Host', async () => {
    const got = await send(egress.socket, 'orders', { path: 'http://orders/echo' })
    expect(got.status).toBe(200)
    expect(server.requests.at(-1)?.url).toBe('/echo')
  })

  it("leaves with exactly one Authorization and one DPoP, none of them the caller's", async () => {
    const headers = {
      authorization: 'Bearer mine',
      dpop: 'mine',
      connection: 'Authorization, DPoP, X-Secret',
      'x-secret': 'hop',
      'x-forwarded-for': '1.2.3.4',
      x_forwarded_for: '1.2.3.4',
      'x-kept': 'yes',
    }
    const before = server.bytes.length
    expect((await send(egress.socket, 'orders', { headers })).status).toBe(200)
    const sent = server.bytes.slice(before)
    expect(sent.match(/^authorization:/gim)).toHaveLength(1)
    expect(sent.match(/^dpop:/gim)).toHaveLength(1)
    expect(sent).toMatch(/^x-kept: yes\r$/m)
    expect(sent).not.toMatch(/mine|1\.2\.3\.4|x-secret/i)
  })

  it('gets the headers of the target, but none that speaks for the agent', async () => {
    const { headers } = await send(egress.socket, 'orders', { path: '/headers' })
    expect(headers).toMatchObject({ 'x-kept': 'yes', 'set-cookie': ['a=1', 'b=2'] })
    for (const name of ['holdfast-reason', 'dpop-nonce', 'x-hop']) expect(headers[name]).toBeUndefined()
  })

  it('gets redirects as they are and follows none', async () => {
    const got = await send(egress.socket, 'orders', { path: '/redirect' })
    expect([got.status, got.headers['location']]).toEqual([302, 'http://169.254.169.254/latest/'])
  })

  it('carries HEAD, 204 and trailers', async () => {
    const head = await send(egress.socket, 'orders', { method: 'HEAD' })
    expect([head.status, head.text]).toEqual([200, ''])
    expect((await send(egress.socket, 'orders', { path: '/empty' })).status).toBe(204)
    const trailed = await send(egress.socket, 'orders', { path: '/trailers', headers: { te: 'trailers' } })
    expect(trailed.trailers).toEqual({ 'grpc-status': '0' })
  })

  it('sends a proof without a token to a target that takes none', async () => {
    const before = server.bytes.length
    await send(egress.socket, 'open')
    expect(server.bytes.slice(before)).toMatch(/^DPoP: ey/m)
    expect(server.bytes.slice(before)).not.toMatch(/^authorization/im)
  })

  it('is refused with reason and owner when policy has no grant, and never leaves', async () => {
    const before = server.requests.length
    const refused = await send(egress.socket, 'narrow', { path: '/v2/items' })
    expect([refused.status, reasonOf(refused)]).toEqual([403, 'policy_denied'])
    expect(JSON.parse(refused.text).error.owner).toBe('application')
    expect(reasonOf(await send(egress.socket, 'narrow', { method: 'POST', path: '/v1/items' }))).toBe(
      'policy_denied',
    )
    expect(reasonOf(await send(egress.socket, 'unknown'))).toBe('target_unknown')
    expect(reasonOf(await send(egress.socket, 'orders', { method: 'TRACE' }))).toBe('policy_denied')
    expect(server.requests.length).toBe(before)
  })

  it.each(['/a/../b', '/a%2e', '/a%2Fb', '/a\\b', '/%00', '/a//../b', '/..;/a'])(
    'refuses the path %s',
    async (path) => {
      const wire = await exchange(
        egress.socket,
        `GET ${path} HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n`,
      )
      expect(wire).toMatch(/^HTTP\/1.1 400 [\s\S]*Holdfast-Reason: (?:url_refused|invalid_request)/)
    },
  )

  it("refuses an operator's revocations: of the target, and of the identity", async () => {
    egress.revocations.add('target', 'orders')
    expect(reasonOf(await send(egress.socket, 'orders'))).toBe('revoked')
    egress.revocations.lift('target', 'orders')
    egress.revocations.add('spiffe_id', 'spiffe://example.org/web')
    expect(reasonOf(await send(egress.socket, 'orders'))).toBe('revoked')
    egress.revocations.lift('spiffe_id', 'spiffe://example.org/web')
    expect((await send(egress.socket, 'orders')).status).toBe(200)
  })

  it('is on record before it leaves and after it is done, without query, token or proof', async () => {
    await send(egress.socket, 'orders', { path: '/echo?secret=canary' })
    const done = () =>
      egress
        .records()
        .filter(({ event }) => String(event).startsWith('egress'))
        .slice(-2)
    await until('the record of the end', () => done()[1]?.['event'] === 'egress.done')
    const [left, over] = done()
    expect(left).toMatchObject({
      event: 'egress',
      allowed: true,
      target: 'orders',
      method: 'GET',
      path: '/**',
      origin,
    })
    expect(over).toMatchObject({ event: 'egress.done', allowed: true, target: 'orders' })
    expect(over?.['detail']).toMatch(/^2xx within \d+ m?s$/)
    const all = JSON.stringify(egress.records())
    expect(all).not.toContain('canary')
    expect(all).not.toMatch(/eyJ/)
    expect(await egress.metrics()).toMatch(/holdfast_egress_requests_total\{class="s2xx",reason="ok"\} \d/)
  })

  it('reuses connections of one workload', async () => {
    const before = server.accepted
    for (let count = 0; count < 20; count += 1) await send(egress.socket, 'orders')
    expect(server.accepted - before).toBeLessThanOrEqual(1)
  })

  describe('with a nonce', () => {
    it('is tried once more with a new proof', async () => {
      server.nonce = freshNonce()
      const before = server.requests.length
      const got = await send(egress.socket, 'orders', { method: 'POST', body: 'small' })
      expect([got.status, server.requests.length - before]).toEqual([200, 2])
      expect((await send(egress.socket, 'orders')).status).toBe(200)
      expect(server.requests.length - before).toBe(3)
      expect(server.refused.at(-1)).toBe('use_dpop_nonce')
    })

    it('says so when the body was too long to be kept, and keeps the nonce for the next', async () => {
      server.nonce = freshNonce()
      const body = Buffer.alloc(MIB)
      const refused = await send(egress.socket, 'orders', { method: 'POST', path: '/big-body', body })
      expect([refused.status, reasonOf(refused)]).toEqual([502, 'body_not_replayable'])
      const got = await send(egress.socket, 'orders', { method: 'POST', path: '/big-body', body })
      expect(JSON.parse(got.text).size).toBe(MIB)
    })

    it('sends a long body once when the caller waits for 100 Continue', async () => {
      server.nonce = freshNonce()
      const body = Buffer.alloc(MIB)
      const got = await expecting(egress.socket, body)
      expect(JSON.parse(got.text).size).toBe(MIB)
    })

    it('passes a second challenge on', async () => {
      server.nonce = undefined
      const before = server.requests.length
      const got = await send(egress.socket, 'orders', { path: '/forbidden' })
      expect([got.status, got.text, server.requests.length - before]).toEqual([401, 'again', 2])
      expect(got.headers['www-authenticate']).toBe('DPoP error="use_dpop_nonce"')
      expect(got.headers['holdfast-reason']).toBeUndefined()
    })
  })

  describe('of any length', () => {
    it('streams 512 MiB up, whole and in flat memory', async () => {
      const { peak, got } = await watchMemory(() => upload(egress.socket, 512))
      const hash = createHash('sha256')
      for (let count = 0; count < 512; count += 1) hash.update(CHUNK)
      expect(JSON.parse(got.text)).toEqual({ size: 512 * MIB, hash: hash.digest('hex') })
      expect(peak).toBeLessThan(128 * MIB)
    })

    it('is taken from the caller only as fast as the target takes it', async () => {
      const sent = request({
        socketPath: egress.socket,
        method: 'POST',
        path: '/slow-body',
        headers: { host: 'orders' },
      })
      const answer = new Promise<IncomingMessage>((resolve) => sent.once('response', resolve))
      let taken = 0
      for (let count = 0; count < 64; count += 1) sent.write(CHUNK, () => ++taken)
      const waiting = await until('the target to have the head', () => slow[0])
      let before = -1
      await until('the upload to stand still', async () => {
        const isStill = taken === before
        before = taken
        await new Promise((resolve) => setTimeout(resolve, 200))
        return isStill
      })
      expect(taken).toBeLessThan(24)
      waiting()
      sent.end()
      expect((await answer).statusCode).toBe(200)
      sent.destroy()
    })

    it('streams 64 MiB down to a slow reader in flat memory', async () => {
      const { peak, got } = await watchMemory(() => download(egress.socket))
      expect(got).toBe(64 * MIB)
      expect(peak).toBeLessThan(50 * MIB)
    })

    it('hears of events as they come', async () => {
      const events = await openEvents(egress.socket)
      for (const text of ['one', 'two']) {
        for (const stream of streams) stream.write(`data: ${text}\n\n`)
        await until(text, () => events.text().includes(text))
      }
      events.close()
      await until('the target to hear that the reader has gone', () => streams.size === 0)
    })
  })

  describe('to a target that fails', () => {
    it('is cut off as the answer is', async () => {
      await expect(send(egress.socket, 'orders', { path: '/cut' })).rejects.toThrow(
        /aborted|hang up|ECONNRESET/,
      )
    })

    it('gets an answer that comes before the body has', async () => {
      const got = await upload(egress.socket, 8, '/early').catch((error: Error) => error.message)
      if (typeof got === 'string') expect(got).toMatch(/EPIPE|ECONNRESET/)
      else expect(got.status).toBe(413)
    })
  })

  describe('to a WebSocket', () => {
    it('is tunnelled after a right 101', async () => {
      using wire = await openWire(egress.socket)
      await wire.write(`${handshake('orders', '/ws?room=1')}early`)
      await until('the answer', () => wire.received.toString().includes('\r\n\r\nearly'))
      expect(wire.received.toString()).toMatch(/^HTTP\/1.1 101 Switching Protocols\r\n/)
      expect(wire.received.toString()).toContain('Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
      expect(wire.received.toString()).not.toContain('Holdfast-Reason')
      await wire.write('later')
      await until('the echo', () => wire.received.toString().endsWith('later'))
    })

    it('refuses a 101 with a wrong accept', async () => {
      expect(await exchange(egress.socket, handshake('orders', '/wrong-accept'))).toMatch(
        /^HTTP\/1.1 502 [\s\S]*Holdfast-Reason: upstream_malformed/,
      )
    })

    it.each([
      ['h2c', handshake('orders').replace('Upgrade: websocket', 'Upgrade: h2c')],
      ['two upgrades', handshake('orders', '/', 'Upgrade: h2c\r\n')],
      ['POST', handshake('orders').replace('GET', 'POST')],
      ['another version', handshake('orders').replace(': 13', ': 8')],
      ['no key', handshake('orders').replace(/Sec-WebSocket-Key.*\r\n/, '')],
      ['a short key', handshake('orders').replace(KEY, 'abc=')],
      ['a body', handshake('orders', '/', 'Content-Length: 3\r\n')],
      ['an origin', handshake('orders', '/', 'Origin: https://evil.example\r\n')],
      ['an unknown target', handshake('unknown')],
    ])('refuses %s before anything leaves', async (_what, bytes) => {
      const before = server.requests.length + server.accepted
      const answer = await exchange(egress.socket, bytes)
      expect(answer).toMatch(/^HTTP\/1.1 40[03] [\s\S]*Holdfast-Reason: \w+/)
      expect(server.requests.length + server.accepted).toBe(before)
    })
  })

  describe('as raw bytes', () => {
    it.each([
      ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400],
      ['two Hosts', 'GET / HTTP/1.1\r\nHost: orders\r\nHost: narrow\r\n\r\n', 400],
      ['two equal Hosts', 'GET / HTTP/1.1\r\nHost: orders\r\nhost: orders\r\n\r\n', 400],
      ['Host mismatch', 'GET http://narrow/v1 HTTP/1.1\r\nHost: orders\r\n\r\n', 400],
      ['an absolute form elsewhere', 'GET http://169.254.169.254/ HTTP/1.1\r\nHost: orders\r\n\r\n', 400],
      [
        'TE and CL',
        'POST /echo HTTP/1.1\r\nHost: orders\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        400,
      ],
      [
        'CL and TE',
        'POST /echo HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n',
        400,
      ],
      [
        'two lengths',
        'POST /echo HTTP/1.1\r\nHost: orders\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd',
        400,
      ],
      [
        'two equal lengths',
        'POST /echo HTTP/1.1\r\nHost: orders\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc',
        400,
      ],
      ['a negative length', 'POST /echo HTTP/1.1\r\nHost: orders\r\nContent-Length: -1\r\n\r\n', 400],
      [
        'another coding',
        'POST /echo HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
        400,
      ],
      [
        'a coding twice',
        'POST /echo HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        400,
      ],
      ['a folded header', 'GET /echo HTTP/1.1\r\nHost: orders\r\nX-A: b\r\n c\r\n\r\n', 400],
      ['a space before the colon', 'GET /echo HTTP/1.1\r\nHost: orders\r\nX-A : b\r\n\r\n', 400],
      ['a bare line feed', 'GET /echo HTTP/1.1\nHost: orders\n\n', 400],
      ['a NUL in a header', 'GET /echo HTTP/1.1\r\nHost: orders\r\nX-A: b\u0000c\r\n\r\n', 400],
      ['a bad chunk', 'POST /echo HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', 400],
      ['CONNECT', 'CONNECT orders:443 HTTP/1.1\r\nHost: orders\r\n\r\n', 405],
      ['an asterisk', 'OPTIONS * HTTP/1.1\r\nHost: orders\r\n\r\n', 400],
      ['an unknown expectation', 'GET /echo HTTP/1.1\r\nHost: orders\r\nExpect: magic\r\n\r\n', 400],
      ['a browser', 'GET /echo HTTP/1.1\r\nHost: orders\r\nOrigin: https://evil.example\r\n\r\n', 403],
      ['a fetch of a browser', 'GET /echo HTTP/1.1\r\nHost: orders\r\nSec-Fetch-Mode: cors\r\n\r\n', 403],
      ['a huge header', `GET /echo HTTP/1.1\r\nHost: orders\r\nX-A: ${'a'.repeat(40_000)}\r\n\r\n`, 400],
      ['no HTTP', 'HELLO\r\n\r\n', 400],
    ])('refuses %s, and nothing leaves', async (what, bytes, status) => {
      const before = server.requests.filter(({ complete }) => complete).length
      const answer = await exchange(egress.socket, bytes)
      expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} [\\s\\S]*Holdfast-Reason: \\w+`))
      expect(answer).toMatch(/"owner":"caller"/)
      if (what !== 'a bad chunk')
        expect(server.requests.filter(({ complete }) => complete).length).toBe(before)
    })

    it('answers pipelined requests in order, each for its own target', async () => {
      using wire = await openWire(egress.socket)
      await wire.write('GET /echo HTTP/1.1\r\nHost: orders\r\n\r\nGET /v2 HTTP/1.1\r\nHost: narrow\r\n\r\n')
      const text = await until('both', () =>
        /HTTP\/1.1 200[\s\S]*HTTP\/1.1 403/.exec(wire.received.toString()),
      )
      expect(text).toBeTruthy()
    })

    it.each([
      ['one that is refused', 'GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n'],
      ['one that waits', 'GET /never HTTP/1.1\r\nHost: orders\r\n\r\n'],
    ])('closes a connection that switches protocols behind %s, and no other', async (_what, before) => {
      using wire = await openWire(egress.socket)
      await wire.write(before + handshake('orders'))
      await wire.closed()
      expect((await send(egress.socket, 'orders')).status).toBe(200)
    })
  })
})

describe('a token that its target refuses', () => {
  it('is given up for a new one, but not for each refusal', async () => {
    const refuse = (_request: IncomingMessage, response: ServerResponse) =>
      response.writeHead(401, { 'WWW-Authenticate': 'DPoP error="invalid_token"' }).end('no')
    await using server = await startResourceServer({ ca, handlers: { '/refuse': refuse } })
    const targets = { orders: { origin: `https://localhost:${server.port}` } }
    await using egress = await startEgress({ ca, targets })
    for (let count = 0; count < 3; count += 1)
      expect((await send(egress.socket, 'orders', { path: '/refuse' })).status).toBe(401)
    expect([egress.dropped, egress.asked.length]).toEqual([['orders'], 2])
  })
})

describe('what ends a request', () => {
  it('is the revocation of the key that proved it', async () => {
    await using server = await startResourceServer({ ca, handlers })
    const targets = { orders: { origin: `https://localhost:${server.port}` } }
    await using egress = await startEgress({ ca, targets })
    const events = await openEvents(egress.socket)
    const { jkt } = JSON.parse((await send(egress.socket, 'orders')).text)
    expect(egress.door.close({ jkt: 'another' })).toBe(0)
    expect(egress.door.close({ jkt })).toBe(1)
    await until('the stream to be closed', () => events.isClosed() && server.connections === 0)
  })

  it('is the lease: connections, streams and tunnels close within a second', async () => {
    await using server = await startResourceServer({ ca, handlers, upgrade: echo })
    const targets = { orders: { origin: `https://localhost:${server.port}` } }
    await using egress = await startEgress({ ca, targets })
    const events = await openEvents(egress.socket)
    using wire = await openWire(egress.socket)
    await wire.write(handshake('orders'))
    await until('the tunnel', () => wire.received.length > 0)
    await send(egress.socket, 'orders')
    await until('connections, an idle one too', () => server.connections === 3)
    const began = performance.now()
    egress.attestation.revoke({})
    await until('all to be closed', () => server.connections === 0 && wire.isClosed && events.isClosed())
    expect(performance.now() - began).toBeLessThan(1_000)
    expect(egress.door.connections()).toBe(0)
  })

  it('is policy that takes the target away, or leads it elsewhere', async () => {
    await using server = await startResourceServer({ ca, handlers })
    const origin = `https://localhost:${server.port}`
    await using egress = await startEgress({ ca, targets: { orders: { origin }, other: { origin } } })
    const events = await openEvents(egress.socket)
    await egress.setTargets({ orders: { origin }, another: { origin } })
    expect(events.isClosed()).toBe(false)
    await egress.setTargets({ other: { origin } })
    await until('the stream to be closed', () => events.isClosed() && server.connections === 0)
  })

  it('is the end of the token for a tunnel', async () => {
    await using server = await startResourceServer({ ca, handlers, upgrade: echo })
    const targets = { orders: { origin: `https://localhost:${server.port}` } }
    await using egress = await startEgress({ ca, targets, tokenSeconds: 1 })
    using wire = await openWire(egress.socket)
    await wire.write(handshake('orders'))
    await until('the tunnel', () => wire.received.length > 0)
    await wire.closed()
    await until('its connection to be closed', () => server.connections === 0)
    const over = () => egress.records().find(({ event }) => event === 'egress.done')
    expect(await until('its record', over)).toMatchObject({ reason: 'token_expired' })
  })

  it('is an audit log that cannot be written: nothing leaves', async () => {
    await using server = await startResourceServer({ ca })
    const targets = { orders: { origin: `https://localhost:${server.port}` } }
    await using egress = await startEgress({ ca, targets, audit: 'broken' })
    expect(reasonOf(await send(egress.socket, 'orders'))).toBe('audit_unavailable')
    expect(server.accepted).toBe(0)
  })

  it('is the number of requests that one workload may have open at a target', async () => {
    await using server = await startResourceServer({ ca, handlers })
    const targets = { orders: { origin: `https://localhost:${server.port}` } }
    await using egress = await startEgress({ ca, targets, settings: { connectionsPerTarget: 2 } })
    const open = [await openEvents(egress.socket), await openEvents(egress.socket)]
    const refused = await send(egress.socket, 'orders')
    expect([refused.status, reasonOf(refused), refused.headers['retry-after']]).toEqual([
      429,
      'target_busy',
      '1',
    ])
    for (const events of open) events.close()
    await until('room', async () => (await send(egress.socket, 'orders')).status === 200)
  })

  it('is a target that does not answer in time', async () => {
    await using server = await startResourceServer({ ca, handlers })
    const targets = { orders: { origin: `https://localhost:${server.port}` } }
    await using egress = await startEgress({ ca, targets, settings: { responseTimeout: 0.2 } })
    const refused = await send(egress.socket, 'orders', { path: '/never' })
    expect([refused.status, reasonOf(refused)]).toEqual([502, 'upstream_unavailable'])
    await until('its connection to be closed', () => server.connections === 0)
  })
})

describe('hostile targets', () => {
  const OK = 'HTTP/1.1 200 OK\r\n'
  it.each([
    ['two lengths', `${OK}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`, 'upstream_malformed'],
    [
      'a length and a coding',
      `${OK}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      'upstream_malformed',
    ],
    ['a folded header', `${OK}X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n`, 'upstream_malformed'],
    ['no HTTP', 'SSH-2.0-OpenSSH\r\n\r\n', 'upstream_malformed'],
    ['a huge header', `${OK}X-A: ${'a'.repeat(100_000)}\r\n\r\n`, 'upstream_malformed'],
    [
      'a fake 101',
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n',
      'upstream_malformed',
    ],
    ['a fake 101 without Upgrade', 'HTTP/1.1 101 Switching Protocols\r\n\r\n', 'upstream_malformed'],
    ['an odd status', 'HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n', 'upstream_malformed'],
    ['interim answers without end', 'HTTP/1.1 103 Early\r\n\r\n'.repeat(1_000), 'upstream_malformed'],
    ['nothing', '', 'upstream_unavailable'],
    ['half a head', 'HTTP/1.1 200 OK\r\nContent-', 'upstream_unavailable'],
  ])('answer with %s and are refused', async (_what, bytes, reason) => {
    await using hostile = await startBytes(bytes)
    await using egress = await startEgress({
      ca,
      targets: { orders: { origin: `https://localhost:${hostile.port}` } },
    })
    const refused = await send(egress.socket, 'orders')
    expect([refused.status, reasonOf(refused)]).toEqual([502, reason])
    expect(JSON.parse(refused.text).error.owner).toBe('platform')
  })

  it('may say 426 and the caller hears it, without the upgrade', async () => {
    const bytes =
      'HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n'
    await using hostile = await startBytes(bytes)
    await using egress = await startEgress({
      ca,
      targets: { orders: { origin: `https://localhost:${hostile.port}` } },
    })
    const got = await send(egress.socket, 'orders')
    expect([got.status, got.headers['upgrade']]).toEqual([426, undefined])
  })

  it('that nobody certified get no byte of the request', async () => {
    await using server = await startResourceServer({ ca: makeTestCa('another ca') })
    await using egress = await startEgress({
      ca,
      targets: { orders: { origin: `https://localhost:${server.port}` } },
    })
    const refused = await send(egress.socket, 'orders')
    expect([refused.status, reasonOf(refused)]).toEqual([502, 'upstream_tls'])
    expect(server.bytes).toBe('')
  })

  it('that do not run are unavailable', async () => {
    const server = await startResourceServer({ ca })
    await server[Symbol.asyncDispose]()
    await using egress = await startEgress({
      ca,
      targets: { orders: { origin: `https://localhost:${server.port}` } },
    })
    expect(reasonOf(await send(egress.socket, 'orders'))).toBe('upstream_unavailable')
  })

  it('that close an idle connection just then get the request over a new one', async () => {
    let served = 0
    await using target = await startTls((socket) => {
      socket.on('data', () => {
        served += 1
        if (served === 2) socket.destroy()
        else socket.write(`${OK}Content-Length: 2\r\n\r\nok`)
      })
    })
    await using egress = await startEgress({
      ca,
      targets: { orders: { origin: `https://localhost:${target.port}` } },
    })
    expect((await send(egress.socket, 'orders')).text).toBe('ok')
    expect((await send(egress.socket, 'orders')).text).toBe('ok')
    expect(served).toBe(3)
    served = 1
    expect(reasonOf(await send(egress.socket, 'orders', { method: 'POST', body: 'x' }))).toBe(
      'upstream_unavailable',
    )
  })
})

describe('targets that speak HTTP/2', () => {
  it('get requests, bodies and trailers over one connection', async () => {
    let sessions = 0
    const server = createSecureServer({ ...ca.serverFiles() })
    server.on('session', () => {
      sessions += 1
    })
    server.on('stream', (stream, headers) => {
      const chunks: Buffer[] = []
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.on('end', () => {
        stream.respond(
          { ':status': 200, 'holdfast-reason': 'x', 'x-te': String(headers['te']) },
          { waitForTrailers: true },
        )
        stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
        stream.end(`${headers[':authority']} ${headers['dpop']?.length} ${Buffer.concat(chunks).length}`)
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    await using egress = await startEgress({
      ca,
      targets: { orders: { origin: `https://localhost:${port}` } },
    })
    const body = Buffer.alloc(3 * MIB)
    const sends = Array.from({ length: 8 }, () =>
      send(egress.socket, 'orders', { method: 'POST', body, headers: { te: 'trailers' } }),
    )
    for (const got of await Promise.all(sends)) {
      expect(got.text).toMatch(new RegExp(`^localhost:${port} \\d{3} ${3 * MIB}$`))
      expect(got.trailers).toEqual({ 'grpc-status': '0' })
      expect([got.headers['x-te'], got.headers['holdfast-reason']]).toEqual(['trailers', undefined])
    }
    expect(sessions).toBe(1)
    egress.attestation.revoke({})
    await until('the session to be closed', () => egress.door.connections() === 0)
    server.close()
  })
})

describe('several workloads', () => {
  it.skipIf(!isRoot)('interleaved 200 times get each their own token, key and connection', async () => {
    await using server = await startResourceServer({ ca })
    const users = { one: 61_001, two: 61_002 }
    const targets = { orders: { origin: `https://localhost:${server.port}` } }
    await using egress = await startEgress({ ca, users, targets })
    await using one = await startPeer(egress.socket, { uid: users.one, gid: users.one })
    await using two = await startPeer(egress.socket, { uid: users.two, gid: users.two })
    const ask = async (peer: typeof one) =>
      (await peer.call('GET', '/echo', undefined, { host: 'orders' })).body
    const seen = { one: new Set<string>(), two: new Set<string>() }
    for (let count = 0; count < 100; count += 1) {
      const [first, second] = await Promise.all([ask(one), ask(two)])
      seen.one.add(`${first.sub} ${first.jkt}`)
      seen.two.add(`${second.sub} ${second.jkt}`)
    }
    expect([[...seen.one][0], [...seen.two][0]]).toEqual([
      expect.stringMatching(/^spiffe:\/\/example.org\/one /),
      expect.stringMatching(/^spiffe:\/\/example.org\/two /),
    ])
    expect([seen.one.size, seen.two.size, egress.asked.length, server.refused]).toEqual([1, 1, 2, []])
    expect(server.accepted).toBe(2)
  })

  it.skipIf(!isRoot)('end apart: one that exits takes its connections along, and no other', async () => {
    await using server = await startResourceServer({ ca })
    const users = { one: 61_001, two: 61_002 }
    await using egress = await startEgress({
      ca,
      users,
      targets: { orders: { origin: `https://localhost:${server.port}` } },
    })
    await using one = await startPeer(egress.socket, { uid: users.one, gid: users.one })
    await using two = await startPeer(egress.socket, { uid: users.two, gid: users.two })
    for (const peer of [one, two]) await peer.call('GET', '/echo', undefined, { host: 'orders' })
    expect(server.connections).toBe(2)
    const began = performance.now()
    await one.end()
    await until('its connection to be closed', () => server.connections === 1)
    expect(performance.now() - began).toBeLessThan(1_000)
    expect((await two.call('GET', '/echo', undefined, { host: 'orders' })).status).toBe(200)
  })

  it('of several identities choose by header, and only among their own', async () => {
    await using server = await startResourceServer({ ca })
    const own = process.getuid?.() ?? 0
    await using egress = await startEgress({
      ca,
      users: { web: own, batch: own, foreign: own + 1 },
      targets: { orders: { origin: `https://localhost:${server.port}` } },
    })
    const as = (name: string) =>
      send(egress.socket, 'orders', { headers: { 'holdfast-spiffe-id': `spiffe://example.org/${name}` } })
    expect(JSON.parse((await as('batch')).text).sub).toBe('spiffe://example.org/batch')
    expect(JSON.parse((await as('web')).text).sub).toBe('spiffe://example.org/web')
    expect(reasonOf(await as('foreign'))).toBe('no_identity')
    expect(server.connections).toBe(2)
  })
})

/** All that comes back for `bytes` until the connection is closed or an answer is whole. */
async function exchange(path: string, bytes: string): Promise<string> {
  using wire = await openWire(path)
  await wire.write(Buffer.from(bytes, 'latin1'))
  return await until(`an answer to ${bytes.slice(0, 60)}`, () => {
    const text = wire.received.toString('latin1')
    return text.includes('\r\n\r\n{') || (wire.isClosed && text) ? text : ''
  })
}

function upload(socketPath: string, mebibytes: number, path = '/big-body'): Promise<Got> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { socketPath, method: 'POST', path, headers: { host: 'orders' }, agent: false },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => {
          const { headers, trailers } = response
          resolve({
            status: response.statusCode ?? 0,
            headers,
            trailers,
            text: Buffer.concat(chunks).toString(),
          })
        })
      },
    )
    sent.on('error', reject)
    let count = 0
    const more = (): unknown => {
      while (count < mebibytes) {
        count += 1
        if (!sent.write(CHUNK)) return sent.once('drain', more)
      }
      return sent.end()
    }
    more()
  })
}

function download(socketPath: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { socketPath, path: '/big-answer', headers: { host: 'orders' }, agent: false },
      (response) => {
        let size = 0
        response.on('data', (chunk: Buffer) => {
          size += chunk.length
          if (size % 7 === 0) {
            response.pause()
            setTimeout(() => response.resume(), 1)
          }
        })
        response.on('end', () => resolve(size))
        response.on('error', reject)
      },
    )
    sent.on('error', reject)
    sent.end()
  })
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
const COLLECT_EVERY = 5

/** How much the memory of this process grew at most meanwhile, application, agent and target together, collected often. */
async function watchMemory<T>(run: () => Promise<T>): Promise<{ readonly peak: number; readonly got: T }> {
  const start = process.memoryUsage().rss
  let [peak, ticks] = [0, 0]
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss - start)
    ticks += 1
    if (ticks % COLLECT_EVERY === 0) collect()
  }, 5)
  try {
    return { got: await run(), peak }
  } finally {
    clearInterval(timer)
  }
}

async function openEvents(socketPath: string) {
  let [text, isClosed] = ['', false]
  const sent = request({ socketPath, path: '/events', headers: { host: 'orders' }, agent: false })
  sent.on('error', () => {})
  sent.end()
  const response = await new Promise<IncomingMessage>((resolve) => sent.once('response', resolve))
  response.on('data', (chunk: Buffer) => {
    text += chunk
  })
  response.on('error', () => {})
  response.on('close', () => {
    isClosed = true
  })
  return { text: () => text, isClosed: () => isClosed, close: () => sent.destroy() }
}

function expecting(socketPath: string, body: Buffer): Promise<Got> {
  return new Promise((resolve, reject) => {
    const headers = { host: 'orders', expect: '100-continue', 'content-length': body.length }
    const sent = request(
      { socketPath, method: 'POST', path: '/big-body', headers, agent: false },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => {
          const { headers: received, trailers } = response
          resolve({
            status: response.statusCode ?? 0,
            headers: received,
            trailers,
            text: Buffer.concat(chunks).toString(),
          })
        })
      },
    )
    sent.on('continue', () => sent.end(body))
    sent.on('error', reject)
    sent.flushHeaders()
  })
}

interface Listening extends AsyncDisposable {
  readonly port: number
}

async function startTls(serve: (socket: Socket) => void): Promise<Listening> {
  const sockets = new Set<Socket>()
  const server: Server = createTls({ ...ca.serverFiles(), ALPNProtocols: ['http/1.1'] }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    serve(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Answers every first bytes with these and closes. */
function startBytes(bytes: string): Promise<Listening> {
  return startTls((socket) => void socket.once('data', () => socket.end(bytes)))
}
