/** `holdfast sidecar`: a loopback port before a real agent, a real authorization server and targets over TLS. */
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { checkNetwork } from '../../src/relay/network.ts'
import { openSecret } from '../../src/relay/secret.ts'
import { openSidecar, type Sidecar } from '../../src/relay/sidecar.ts'
import { ROOT } from '../support/built-agent.ts'
import { call } from '../support/call.ts'
import { faultOf } from '../support/faults.ts'
import { type RelayRig, startRelayRig, tell } from '../support/relay-rig.ts'
import { freshNonce } from '../support/resource-server.ts'
import { until } from '../support/until.ts'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
const isRoot = process.getuid?.() === 0

const streams = new Set<ServerResponse>()
const handlers = {
  '/v1/sum': (request: IncomingMessage, response: ServerResponse) => {
    const hash = createHash('sha256')
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      hash.update(chunk)
    })
    request.on('end', () => response.end(JSON.stringify({ size, hash: hash.digest('hex') })))
  },
  '/v1/events': (_request: IncomingMessage, response: ServerResponse) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    response.flushHeaders()
    streams.add(response)
    response.on('close', () => streams.delete(response))
  },
  '/v1/moved': (_request: IncomingMessage, response: ServerResponse) =>
    response.writeHead(302, { Location: 'http://169.254.169.254/latest/', 'Holdfast-Reason': 'lie' }).end(),
}

/** Says back what it hears. */
function upgrade(request: IncomingMessage, socket: Duplex): void {
  const accept = createHash('sha1')
    .update(request.headers['sec-websocket-key'] + GUID)
    .digest('base64')
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  )
  socket.on('data', (chunk: Buffer) => socket.write(chunk))
  socket.on('error', () => {})
  socket.on('end', () => socket.end())
}

let rig: RelayRig
let sidecar: Sidecar
let secretFile: string
let secret: string

beforeAll(async () => {
  execFileSync(process.execPath, ['.setup.cjs'], { cwd: ROOT, stdio: 'inherit' })
  rig = await startRelayRig({ handlers, upgrade })
  secretFile = join(rig.dir, 'secret')
  sidecar = await openSidecar({
    listen: { host: '127.0.0.1', port: 0 },
    secret: openSecret(secretFile),
    workloadSocket: rig.agent.socket,
    egressSocket: rig.egressSocket,
    clock: systemClock,
    patience: 300,
  })
  secret = readFileSync(secretFile, 'utf8').trim()
})

afterAll(async () => {
  await sidecar?.stop()
  await rig?.[Symbol.asyncDispose]()
})

beforeEach(() => {
  rig.orders.nonce = undefined
  rig.stock.nonce = undefined
})

/** A request with the secret; `more` lines each with its end. */
function get(host: string, path = '/echo', more = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nHoldfast-Secret: ${secret}\r\nConnection: close\r\n${more}\r\n`
}

const ask = (bytes: string) => tell(sidecar, bytes)
const withSecret = (...lines: string[]) =>
  [...lines, `Holdfast-Secret: ${secret}`, 'Connection: close', '', ''].join('\r\n')

describe.each(['orders', 'stock'] as const)('a request to %s', (name) => {
  it('reaches it with token and proof, and without the secret', async () => {
    const { status, text } = await ask(
      get(name, '/echo?a=1', 'Accept: text/plain\r\nAuthorization: Bearer mine\r\n'),
    )
    expect({ status, text }).toEqual({ status: 200, text: expect.stringContaining('"sub":"shop"') })
    const seen = rig[name].requests.at(-1)
    expect(seen?.url).toBe('/echo?a=1')
    expect(seen?.headers.accept).toBe('text/plain')
    expect(seen?.headers.authorization).toMatch(/^DPoP /)
    expect(rig[name].bytes.toLowerCase()).not.toContain('holdfast-')
    expect(rig[name].bytes).not.toContain(secret)
    expect(rig[name].bytes).not.toContain('Bearer mine')
  })

  it('as to an HTTP proxy reaches it too', async () => {
    expect((await ask(get(name, `http://${name}/echo`))).status).toBe(200)
  })

  it('is sent once more with the nonce that it asks for', async () => {
    rig[name].nonce = freshNonce()
    const body = 'x'.repeat(1000)
    const { status, text } = await ask(
      withSecret('POST /v1/sum HTTP/1.1', `Host: ${name}`, `Content-Length: ${body.length}`) + body,
    )
    expect(status).toBe(200)
    expect(JSON.parse(text).size).toBe(1000)
    expect(rig[name].refused.at(-1)).toBe('use_dpop_nonce')
  })

  it('with a body that is too long for a second try is refused, and the next has the nonce', async () => {
    rig[name].nonce = freshNonce()
    const body = 'y'.repeat(512 * 1024)
    const post = () =>
      ask(withSecret('POST /v1/sum HTTP/1.1', `Host: ${name}`, `Content-Length: ${body.length}`) + body)
    expect(await post()).toMatchObject({ status: 502, reason: 'body_not_replayable' })
    const { status, text } = await post()
    expect(status).toBe(200)
    expect(JSON.parse(text)).toEqual({
      size: body.length,
      hash: createHash('sha256').update(body).digest('hex'),
    })
  })

  it('streams events as they come, and hears when the caller has gone', async () => {
    const before = streams.size
    const socket = connect({ port: sidecar.port, host: '127.0.0.1' })
    let heard = ''
    socket.on('data', (chunk) => {
      heard += chunk
    })
    socket.write(get(name, '/v1/events'))
    const stream = await until('the stream', () => (streams.size > before ? [...streams].at(-1) : undefined))
    stream.write('data: 1\n\n')
    await until('an event', () => heard.includes('data: 1'))
    socket.destroy()
    await until('the end of the stream', () => !streams.has(stream))
  })

  it('lets a WebSocket through', async () => {
    const socket = connect({ port: sidecar.port, host: '127.0.0.1' })
    let heard = ''
    socket.on('data', (chunk) => {
      heard += chunk
    })
    socket.write(
      [
        'GET /v1/socket HTTP/1.1',
        `Host: ${name}`,
        `Holdfast-Secret: ${secret}`,
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        `Sec-WebSocket-Key: ${KEY}`,
        '',
        '',
      ].join('\r\n'),
    )
    await until('the switch', () => heard.includes('\r\n\r\n'))
    expect(heard).toMatch(/^HTTP\/1\.1 101 /)
    socket.write('hello')
    await until('the echo', () => heard.endsWith('hello'))
    socket.end()
    await until('the end', () => socket.destroyed)
  })

  it('that it redirects goes nowhere else', async () => {
    const { status, reason, head } = await ask(get(name, '/v1/moved'))
    expect(head).not.toContain('lie')
    expect([302, 502]).toContain(status)
    if (status === 502) expect(reason).toBe('redirect_refused')
  })
})

describe('a request that is refused', () => {
  it.each([
    ['without the secret', () => `GET /echo HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n`],
    ['with another secret', () => get('orders').replace(secret, 'A'.repeat(secret.length))],
    ['with a part of the secret', () => get('orders').replace(secret, secret.slice(0, -1))],
    ['with an empty secret', () => get('orders').replace(secret, '')],
    ['with the secret twice', () => get('orders', '/echo', `Holdfast-Secret: ${secret}\r\n`)],
    [
      'with the secret in another spelling',
      () => get('orders').replace('Holdfast-Secret', 'Holdfast_Secret'),
    ],
  ])('%s hears nothing else', async (_what, bytes) => {
    const before = rig.orders.requests.length
    const heard = await ask(bytes())
    expect(heard).toMatchObject({ status: 403, reason: 'secret_refused' })
    expect(heard.text + heard.head).not.toContain(secret)
    expect(rig.orders.requests.length).toBe(before)
  })

  it.each([
    ['Origin', 'Origin: http://orders\r\n'],
    ['Origin: null', 'Origin: null\r\n'],
    ['Sec-Fetch-Site', 'Sec-Fetch-Site: same-origin\r\n'],
    ['any Sec-Fetch', 'Sec-Fetch-User: ?1\r\n'],
    ['Referer', 'Referer: http://orders/\r\n'],
  ])('a browser sent, by %s', async (_what, line) => {
    const before = rig.orders.requests.length
    expect(await ask(get('orders', '/echo', line))).toMatchObject({ status: 403, reason: 'browser_refused' })
    expect(rig.orders.requests.length).toBe(before)
  })

  it.each([
    ['asks for a tunnel', 'CONNECT orders:443 HTTP/1.1\r\nHost: orders\r\n\r\n'],
    [
      'switches protocols',
      `GET / HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    ],
  ])('whoever %s and goes away at once, and the sidecar goes on', async (_what, bytes) => {
    const gone = Array.from({ length: 20 }, (_, at) => {
      const socket = connect(sidecar.port, '127.0.0.1')
      socket.on('error', () => {})
      socket.write(at % 2 === 0 ? bytes : `GET / HTTP/1.1\r\nHost: orders\r\n\r\n${bytes}`)
      socket.once('connect', () => setImmediate(() => socket.resetAndDestroy()))
      return new Promise((resolve) => socket.once('close', resolve))
    })
    await Promise.all(gone)
    expect((await ask(get('orders'))).status).toBe(200)
  })

  it.each([
    ['a rebound name', get.bind(undefined, 'evil.example.org'), 403, 'target_unknown'],
    ['an address', () => get('127.0.0.1'), 400, 'invalid_request'],
    ['a name with the port', () => get(`orders:${sidecar.port}`), 400, 'invalid_request'],
    ['localhost', () => get('localhost'), 403, 'target_unknown'],
    ['two Hosts', () => get('orders', '/echo', 'Host: stock\r\n'), 400, 'invalid_request'],
    ['no Host', () => withSecret('GET /echo HTTP/1.1'), 400, 'invalid_request'],
    ['another absolute form', () => get('orders', 'http://stock/echo'), 400, 'invalid_request'],
    ['an https absolute form', () => get('orders', 'https://orders/echo'), 400, 'invalid_request'],
    ['an authority with a user', () => get('orders', 'http://orders@stock/echo'), 400, 'invalid_request'],
    ['CONNECT', () => withSecret('CONNECT orders:443 HTTP/1.1', 'Host: orders'), 405, 'method_not_allowed'],
    [
      'two lengths',
      () =>
        withSecret('POST /v1/sum HTTP/1.1', 'Host: orders', 'Content-Length: 3', 'Content-Length: 4') +
        'abcd',
      400,
      'invalid_request',
    ],
    [
      'a length and chunks',
      () =>
        `${withSecret(
          'POST /v1/sum HTTP/1.1',
          'Host: orders',
          'Content-Length: 3',
          'Transfer-Encoding: chunked',
        )}0\r\n\r\nGET /stolen HTTP/1.1\r\nHost: orders\r\n\r\n`,
      400,
      'invalid_request',
    ],
    [
      'another transfer coding',
      () =>
        `${withSecret('POST /v1/sum HTTP/1.1', 'Host: orders', 'Transfer-Encoding: gzip, chunked')}0\r\n\r\n`,
      400,
      'invalid_request',
    ],
    ['a bare line feed in the head', () => get('orders', '/echo', 'X: 1\nY: 2\r\n'), 400, 'invalid_request'],
    [
      'an upgrade to h2c',
      () => get('orders', '/echo', 'Upgrade: h2c\r\n').replace('close', 'Upgrade'),
      400,
      'invalid_request',
    ],
    ['HTTP/2', () => 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400, 'invalid_request'],
    [
      'a head without end',
      () => get('orders', '/echo', `X: ${'x'.repeat(40_000)}\r\n`),
      400,
      'invalid_request',
    ],
    ['dot segments', () => get('stock', '/v1/../admin'), 400, 'url_refused'],
    ['a path without grant', () => get('stock', '/admin'), 403, 'policy_denied'],
  ])('for %s', async (_what, bytes, status, reason) => {
    const before = [rig.orders.requests.length, rig.stock.requests.length]
    expect(await ask(bytes())).toMatchObject({ status, reason })
    expect([rig.orders.requests.length, rig.stock.requests.length]).toEqual(before)
  })

  it('by its caller takes nothing away that the agent sets', async () => {
    await ask(get('stock', '/echo', 'Connection: Authorization, DPoP\r\n'))
    expect(rig.stock.requests.at(-1)?.headers.authorization).toMatch(/^DPoP /)
    expect(rig.stock.requests.at(-1)?.headers['dpop']).toBeDefined()
  })
})

describe('a target via sidecar', () => {
  it('is refused by the egress door, with the cure, and told of to those it is granted to', async () => {
    const plain = 'GET /echo HTTP/1.1\r\nHost: stock\r\nConnection: close\r\n\r\n'
    expect(await tell({ path: rig.egressSocket }, plain)).toMatchObject({
      status: 403,
      reason: 'via_sidecar',
    })
    const told = await call(rig.agent.socket, 'GET', '/v1/target?name=stock')
    expect(told.body).toEqual({
      name: 'stock',
      via: 'sidecar',
      origin: `https://localhost:${rig.stock.port}`,
      tls: { trust: 'roots', roots: [expect.stringContaining('BEGIN CERTIFICATE')] },
      addresses: ['127.0.0.1', '::1'],
      txn_token: false,
    })
    const other = await call(rig.agent.socket, 'GET', '/v1/target?name=orders')
    expect(other.body).toEqual({ name: 'orders', via: 'agent' })
    const none = await call(rig.agent.socket, 'GET', '/v1/target?name=nothing')
    expect([none.status, none.body.error.reason]).toEqual([403, 'target_unknown'])
  })

  it('gets no request over TLS that does not verify, or at an address that is not listed', async () => {
    const before = rig.stock.accepted
    await rig.agent.setPolicy(rig.policy(`via: sidecar, addresses: [127.0.0.1, '::1']`))
    const late = () => ask(get('stock'))
    await until('the new trust', async () => (await late()).reason === 'upstream_tls')
    const trust = `tls: { trust: { file: ${join(rig.dir, 'ca.pem')} } }`
    await rig.agent.setPolicy(rig.policy(`via: sidecar, ${trust}`))
    await until('the new addresses', async () => (await late()).reason === 'upstream_address')
    expect(rig.stock.accepted).toBe(before)
    await rig.agent.setPolicy(rig.policy())
    await until('the old place', async () => (await late()).status === 200)
  })

  it('is cut off once policy takes it away', { timeout: 30_000 }, async () => {
    const before = streams.size
    const waiting = tell(sidecar, get('stock', '/v1/events'))
    const stream = await until('the stream', () => (streams.size > before ? [...streams].at(-1) : undefined))
    const { 'application.yaml': application = '', ...rest } = rig.policy()
    const without = application.replace(/^ {2}- \{ name: stock.*\n/m, '')
    await rig.agent.setPolicy({ ...rest, 'application.yaml': without })
    expect((await waiting).status).toBe(200)
    await until('the end of the stream', () => !streams.has(stream))
    await rig.agent.setPolicy(rig.policy())
  })
})

describe('without an agent', () => {
  it('requests wait a while and hear why not', async () => {
    const lonely = await openSidecar({
      listen: { host: '127.0.0.1', port: 0 },
      secret: openSecret(secretFile),
      workloadSocket: join(rig.dir, 'none.sock'),
      egressSocket: join(rig.dir, 'none-egress.sock'),
      clock: systemClock,
      patience: 100,
    })
    expect(await tell(lonely, get('orders'))).toMatchObject({ status: 503, reason: 'agent_unreachable' })
    await lonely.stop()
  })
})

describe('the secret file', () => {
  const path = (name: string) => join(rig.dir, name)

  it('is made for its user alone, and kept', () => {
    openSecret(path('made'))
    const text = readFileSync(path('made'), 'utf8')
    expect(statSync(path('made')).mode & 0o777).toBe(0o600)
    expect(text).toMatch(/^[A-Za-z0-9_-]{43}\n$/)
    openSecret(path('made'))
    expect(readFileSync(path('made'), 'utf8')).toBe(text)
  })

  it('is made where one with the same pid was ended on the way', () => {
    writeFileSync(`${path('again')}.${process.pid}`, 'half', { mode: 0o600 })
    openSecret(path('again'))
    expect(readFileSync(path('again'), 'utf8')).toMatch(/^[A-Za-z0-9_-]{43}\n$/)
  })

  it.each([
    ['others may read', 'a'.repeat(43), 0o640, 'has mode 0640, wanted 0600'],
    ['holds too little', 'short', 0o600, 'holds no secret of this form'],
    ['is empty', '', 0o600, 'holds no secret of this form'],
  ])('that %s is refused', (what, text, mode, message) => {
    const file = path(what.replaceAll(' ', '-'))
    writeFileSync(file, text)
    chmodSync(file, mode)
    expect(faultOf(() => openSecret(file))).toContain(message)
  })

  it('that is a link or a directory is refused', () => {
    symlinkSync(secretFile, path('link'))
    mkdirSync(path('directory'))
    expect(faultOf(() => openSecret(path('link')))).toContain('is a symlink')
    expect(faultOf(() => openSecret(path('directory')))).toContain('is no regular file')
  })
})

describe("the network's namespace", () => {
  const proc = (name: string, files: Readonly<Record<string, string>>) => {
    const root = join(rig.dir, name)
    for (const [file, target] of Object.entries(files)) {
      mkdirSync(join(root, file, '..'), { recursive: true })
      if (target === '') writeFileSync(join(root, file), '')
      else symlinkSync(target, join(root, file))
    }
    return root
  }
  const FIRST = 'pid:[4026531836]'
  const POD = 'pid:[4026532300]'

  it.each([
    ['a setting of the first one', { 'sys/net/core/netdev_max_backlog': '' }, true],
    [
      "the one of the host's process 1",
      { 'self/ns/pid': FIRST, 'self/ns/net': 'net:[1]', '1/ns/net': 'net:[1]' },
      true,
    ],
    ['another than that', { 'self/ns/pid': FIRST, 'self/ns/net': 'net:[2]', '1/ns/net': 'net:[1]' }, false],
    [
      "the one of its container's process 1",
      { 'self/ns/pid': POD, 'self/ns/net': 'net:[2]', '1/ns/net': 'net:[2]' },
      false,
    ],
  ] as const)('that shows %s is the host: %s', (what, files, isHost) => {
    const root = proc(`proc-${what.length}`, files)
    const said = isHost ? faultOf(() => checkNetwork(false, root)) : checkNetwork(false, root)
    if (isHost) expect(said).toContain('this is the network of the host')
    expect(checkNetwork(true, root)).toBeUndefined()
  })
})

describe.runIf(isRoot)('the built command', () => {
  const COMMAND = join(ROOT, 'dist', 'holdfast.js')

  /** Runs `script` in namespaces of its own; it has $NODE, $COMMAND, $SECRET and the agent's socket. */
  function inside(flags: readonly string[], script: string) {
    const env = {
      PATH: process.env['PATH'] ?? '',
      SPIFFE_ENDPOINT_SOCKET: `unix://${rig.agent.socket}`,
      NODE: process.execPath,
      COMMAND,
      SECRET: join(rig.dir, 'built-secret'),
      DIR: rig.dir,
    }
    const child = spawn('unshare', [...flags, 'sh', '-ec', script], { env })
    let [out, err] = ['', '']
    child.stdout.on('data', (chunk) => {
      out += chunk
    })
    child.stderr.on('data', (chunk) => {
      err += chunk
    })
    return new Promise<{ code: number | null; out: string; err: string }>((resolve) =>
      child.once('close', (code) => resolve({ code, out, err })),
    )
  }

  it('serves in a network of its own, and ends cleanly on SIGTERM', async () => {
    const ran = await inside(
      ['-n'],
      `ip link set lo up
       "$NODE" "$COMMAND" sidecar --port 8181 --secret-file "$SECRET" > "$DIR/said" &
       pid=$!
       for n in $(seq 100); do [ -s "$DIR/said" ] && break; sleep 0.1; done
       curl -s -x http://127.0.0.1:8181 -H "Holdfast-Secret: $(cat "$SECRET")" http://orders/echo
       kill -TERM $pid
       wait $pid`,
    )
    expect(ran).toEqual({ code: 0, out: expect.stringContaining('"sub":"shop"'), err: '' })
    expect(readFileSync(join(rig.dir, 'said'), 'utf8')).toBe('listening on http://127.0.0.1:8181\n')
  })

  it('refuses the network of the host and names the flag that accepts it', async () => {
    const setting = join(rig.dir, 'core')
    mkdirSync(setting)
    writeFileSync(join(setting, 'netdev_max_backlog'), '1000\n')
    const secret = join(rig.dir, 'unmade')
    const ran = await inside(
      ['-m'],
      `mount --bind "$DIR/core" /proc/sys/net/core
       exec "$NODE" "$COMMAND" sidecar --port 0 --secret-file "$DIR/unmade"`,
    )
    expect(ran.code).toBe(2)
    expect(ran.err).toContain('this is the network of the host')
    expect(ran.err).toContain('--allow-host-network')
    expect(existsSync(secret)).toBe(false)
  })
})
