/** The sockets themselves: what may be said on them, by how many, how slowly, and who owns their paths. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Fault } from '../../src/base/fault.ts'
import { prepareDirectories } from '../../src/serve/directories.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { startBuiltAgent } from '../support/built-agent.ts'
import { call } from '../support/call.ts'
import { ManualClock } from '../support/clock.ts'
import { faultOf } from '../support/faults.ts'
import { startPeer } from '../support/peer.ts'
import { first, RawClient } from '../support/raw-client.ts'
import { answerIn, ask, openWire } from '../support/raw-http.ts'
import { until } from '../support/until.ts'

const IS_ROOT = process.getuid?.() === 0
if (!IS_ROOT) console.warn('SKIPPED: peers of several uids need root')
const asRoot = it.skipIf(!IS_ROOT)

const HEADERS = 'Host: localhost\r\nworkload.spiffe.io: true\r\n'
const GET = `GET /v1/identity HTTP/1.1\r\n${HEADERS}\r\n`
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
/** The preface and an empty SETTINGS frame. */
const HELLO = Buffer.concat([PREFACE, Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])])
const PROOF = { method: 'GET', url: 'https://api.example.test/x' }
const API = 'SpiffeWorkloadAPI'

const post = (body: string | Buffer, headers = 'Content-Type: application/json\r\n', path = '/v1/dpop') =>
  Buffer.concat([
    Buffer.from(
      `POST ${path} HTTP/1.1\r\n${HEADERS}${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n`,
    ),
    Buffer.from(body),
  ])

const connectionsOf = (agent: TestAgent) => agent.daemon.status().connections
const descriptors = () => readdirSync('/proc/self/fd').length

describe('one socket', () => {
  it('serves gRPC and HTTP/1.1', async () => {
    await using agent = await startAgent()
    using client = new RawClient(agent.socket)
    const [grpc, http] = await Promise.all([
      first(client, `${API}/FetchX509SVID`),
      call(agent.socket, 'GET', '/v1/identity'),
    ])
    expect(http.status).toBe(200)
    expect(grpc.svids[0].spiffe_id).toBe(http.body.identities[0].spiffe_id)
  })

  it('knows HTTP/2 wherever its preface and first frame are split', async () => {
    await using agent = await startAgent()
    for (let at = 1; at < HELLO.length; at++) {
      using wire = await openWire(agent.socket)
      await wire.write(HELLO.subarray(0, at))
      await new Promise((resolve) => setTimeout(resolve, 2))
      expect(wire.received, `before byte ${at}`).toHaveLength(0)
      await wire.write(HELLO.subarray(at))
      await until(`SETTINGS after a split at ${at}`, () => wire.received[3] === 4)
    }
  })

  it('knows HTTP/1.1 wherever its first line is split', async () => {
    await using agent = await startAgent()
    for (let at = 1; at < 26; at++) {
      using wire = await openWire(agent.socket)
      await wire.write(GET.slice(0, at))
      await new Promise((resolve) => setTimeout(resolve, 2))
      await wire.write(GET.slice(at))
      expect((await until(`an answer, split at ${at}`, () => answerIn(wire.received))).status).toBe(200)
    }
  })

  it.each([
    [
      'a preface that turns wrong in its last byte',
      Buffer.concat([PREFACE.subarray(0, 23), Buffer.from('x')]),
    ],
    ['a TLS hello', Buffer.from('1603010200010001fc0303', 'hex')],
    ['zeros', Buffer.alloc(64)],
  ])('answers %s with 400 and closes', async (_what, bytes) => {
    await using agent = await startAgent()
    using wire = await openWire(agent.socket)
    await wire.write(bytes)
    await wire.closed()
    expect(answerIn(wire.received)).toMatchObject({
      status: 400,
      body: { error: { reason: 'invalid_request' } },
    })
  })

  it('closes on a first frame that is too long for SETTINGS', async () => {
    await using agent = await startAgent()
    using wire = await openWire(agent.socket)
    await wire.write(Buffer.concat([PREFACE, Buffer.from([0, 5, 0, 4, 0, 0, 0, 0, 0])]))
    await wire.closed()
    expect(wire.received).toHaveLength(0)
  })
})

describe('HTTP/1.1', () => {
  let agent: TestAgent
  beforeEach(async () => {
    agent = await startAgent()
  })
  afterEach(() => agent[Symbol.asyncDispose]())

  const head = (line: string, headers = HEADERS) => `${line} HTTP/1.1\r\n${headers}\r\n`
  const chunked = (coding: string) =>
    `POST /v1/dpop HTTP/1.1\r\n${HEADERS}Content-Type: application/json\r\n${coding}\r\n2\r\n{}\r\n0\r\n\r\n`
  const many = Array.from({ length: 70 }, (_, index) => `X-${index}: x\r\n`).join('')
  const deep = `{"requests":${'['.repeat(20)}${']'.repeat(20)}}`

  it.each([
    ['no Host', head('GET /v1/identity', 'workload.spiffe.io: true\r\n'), 400, 'invalid_request'],
    ['two Hosts', head('GET /v1/identity', `Host: a\r\n${HEADERS}`), 400, 'invalid_request'],
    ['no security header', head('GET /v1/identity', 'Host: a\r\n'), 400, 'header_missing'],
    [
      'a false security header',
      head('GET /v1/identity', 'Host: a\r\nworkload.spiffe.io: false\r\n'),
      400,
      'header_missing',
    ],
    [
      'the security header twice',
      head('GET /v1/identity', `${HEADERS}workload.spiffe.io: true\r\n`),
      400,
      'header_missing',
    ],
    ['an Origin', head('GET /v1/identity', `${HEADERS}Origin: http://a\r\n`), 403, 'browser_refused'],
    ['an empty Origin', head('GET /v1/identity', `${HEADERS}Origin:\r\n`), 403, 'browser_refused'],
    ['a Referer', head('GET /v1/identity', `${HEADERS}Referer: http://a/\r\n`), 403, 'browser_refused'],
    [
      'an Origin behind 70 other headers',
      head('GET /v1/identity', `${HEADERS}${many}Origin: http://a\r\n`),
      400,
      'invalid_request',
    ],
    [
      'headers over 16 KiB',
      head('GET /v1/identity', `${HEADERS}X: ${'x'.repeat(17_000)}\r\n`),
      400,
      'invalid_request',
    ],
    ['a path over 16 KiB', head(`GET /${'x'.repeat(17_000)}`), 400, 'invalid_request'],
    ['a target in absolute form', head('GET http://localhost/v1/identity'), 400, 'invalid_request'],
    ['the target *', head('OPTIONS *'), 400, 'invalid_request'],
    ['CONNECT', head('CONNECT localhost:80'), 405, 'method_not_allowed'],
    [
      'an upgrade to h2c',
      head(
        'GET /v1/identity',
        `${HEADERS}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n`,
      ),
      400,
      'invalid_request',
    ],
    [
      'an upgrade to WebSocket',
      head(
        'GET /v1/identity',
        `${HEADERS}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n`,
      ),
      400,
      'invalid_request',
    ],
    [
      'an unknown expectation',
      head('GET /v1/identity', `${HEADERS}Expect: 200-ok\r\n`),
      400,
      'invalid_request',
    ],
    [
      'a length given twice',
      post('{}', 'Content-Type: application/json\r\nContent-Length: 2\r\n'),
      400,
      'invalid_request',
    ],
    [
      'a length and a chunked body',
      chunked('Content-Length: 2\r\nTransfer-Encoding: chunked\r\n'),
      400,
      'invalid_request',
    ],
    ['an unknown transfer coding', chunked('Transfer-Encoding: xchunked\r\n'), 400, 'invalid_request'],
    ['a coding after chunked', chunked('Transfer-Encoding: chunked, gzip\r\n'), 400, 'invalid_request'],
    [
      'a negative length',
      `POST /v1/dpop HTTP/1.1\r\n${HEADERS}Content-Length: -1\r\n\r\n`,
      400,
      'invalid_request',
    ],
    ['a space before a colon', head('GET /v1/identity', `${HEADERS}X : y\r\n`), 400, 'invalid_request'],
    ['a folded header', head('GET /v1/identity', `${HEADERS}X: y\r\n z\r\n`), 400, 'invalid_request'],
    ['an unknown method', head('BREW /v1/identity'), 400, 'invalid_request'],
    ['HTTP/3.0', `GET /v1/identity HTTP/3.0\r\n${HEADERS}\r\n`, 400, 'invalid_request'],
    ['an unknown path', head('GET /v1/nothing'), 404, 'not_found'],
    ['a path of Object.prototype', head('GET /constructor'), 404, 'not_found'],
    ['a known path with a slash more', head('GET /v1/identity/'), 404, 'not_found'],
    ['no media type', post('{}', ''), 415, 'media_type'],
    ['another media type', post('{}', 'Content-Type: text/plain\r\n'), 415, 'media_type'],
    ['a form', post('a=b', 'Content-Type: application/x-www-form-urlencoded\r\n'), 415, 'media_type'],
    [
      'another character set',
      post('{}', 'Content-Type: application/json; charset=latin1\r\n'),
      415,
      'media_type',
    ],
    ['a body over 64 KiB', post(`{"x":"${'x'.repeat(65_536)}"}`), 413, 'body_too_large'],
    [
      'an announced body over 64 KiB',
      `POST /v1/dpop HTTP/1.1\r\n${HEADERS}Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n`,
      413,
      'body_too_large',
    ],
    [
      'a chunked body over 64 KiB',
      `${chunked('Transfer-Encoding: chunked\r\n').slice(0, -12)}20000\r\n${'x'.repeat(0x20000)}\r\n0\r\n\r\n`,
      413,
      'body_too_large',
    ],
    ['no JSON', post('{'), 400, 'invalid_request'],
    ['an empty body', post(''), 400, 'invalid_request'],
    ['a JSON array', post('[]'), 400, 'invalid_request'],
    ['JSON null', post('null'), 400, 'invalid_request'],
    [
      'a member twice',
      post('{"method":"GET","method":"PUT","url":"https://api.example.test/"}'),
      400,
      'invalid_request',
    ],
    ['an unknown member', post(JSON.stringify({ ...PROOF, extra: 1 })), 400, 'invalid_request'],
    [
      'a member __proto__',
      post('{"__proto__":{"method":"GET"},"url":"https://api.example.test/"}'),
      400,
      'invalid_request',
    ],
    ['a member of another type', post(JSON.stringify({ ...PROOF, method: 1 })), 400, 'invalid_request'],
    [
      'an unknown member beside a batch',
      post('{"requests":[],"x":1}', undefined, '/v1/proofs'),
      400,
      'invalid_request',
    ],
    ['JSON nested too deep', post(deep, undefined, '/v1/proofs'), 400, 'invalid_request'],
    [
      'a batch of 65',
      post(JSON.stringify({ requests: Array(65).fill({}) }), undefined, '/v1/proofs'),
      400,
      'invalid_request',
    ],
  ] as const)('refuses %s', async (_what, bytes, status, reason) => {
    const answer = await ask(agent.socket, bytes)
    expect(answer.status).toBe(status)
    const error = { reason, message: expect.any(String), action: expect.any(String), owner: 'caller' }
    expect(answer.body.error).toMatchObject(error)
    expect(answer.headers).toMatchObject({ 'cache-control': 'no-store', 'content-type': 'application/json' })
    expect((await call(agent.socket, 'GET', '/v1/identity')).status).toBe(200)
  })

  it.each([
    ['GET', '/v1/dpop', 'POST'],
    ['DELETE', '/v1/proofs', 'POST'],
    ['POST', '/v1/identity', 'GET'],
    ['HEAD', '/v1/identity', 'GET'],
  ])('answers %s %s with 405 and names %s', async (method, path, allow) => {
    const answer = await call(agent.socket, method, path, method === 'POST' ? { body: {} } : {})
    expect(answer).toMatchObject({ status: 405, headers: { allow, 'cache-control': 'no-store' } })
  })

  it('never stores an answer', async () => {
    for (const [method, path, body] of [
      ['GET', '/v1/identity'],
      ['POST', '/v1/dpop', PROOF],
    ] as const) {
      const answer = await call(agent.socket, method, path, body ? { body } : {})
      expect(answer).toMatchObject({ status: 200, headers: { 'cache-control': 'no-store' } })
    }
  })

  it('answers one item of a batch that is refused, and the others all the same', async () => {
    const requests = [{ kind: 'dpop', ...PROOF }, { kind: 'x' }, null, { kind: 'dpop', ...PROOF, extra: 1 }]
    const { status, body } = await call(agent.socket, 'POST', '/v1/proofs', { body: { requests } })
    expect(status).toBe(200)
    expect(body.results.map((result: object) => Object.keys(result)[0])).toEqual([
      'proof',
      'error',
      'error',
      'error',
    ])
  })

  it('refuses bytes that are no UTF-8, where a repaired text would do', async () => {
    const bytes = Buffer.from(JSON.stringify({ ...PROOF, nonce: 'x' }))
    bytes[bytes.indexOf('GET')] = 0xff
    const { status, body } = await ask(agent.socket, post(bytes))
    expect({ status, message: body.error.message }).toEqual({ status: 400, message: 'the body is not UTF-8' })
  })

  it('does not take what is left of a refused body for the next request', async () => {
    using wire = await openWire(agent.socket)
    await wire.write(
      Buffer.concat([post(GET, 'Content-Type: text/plain\r\n'), Buffer.from(head('GET /v1/end'))]),
    )
    const statuses = () =>
      [...wire.received.toString('latin1').matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, code]) => code)
    await until('the last answer', () => wire.isClosed || statuses().includes('404'))
    expect(statuses()[0]).toBe('415')
    expect(statuses()).not.toContain('200')
  })
})

describe('limits', () => {
  it('refuses proofs beyond the rate with 429 and Retry-After', async () => {
    const clock = new ManualClock()
    const config = (
      same: Parameters<NonNullable<Parameters<typeof startAgent>[0]>['config'] & object>[0],
    ) => ({
      ...same,
      limits: { ...same.limits, proofsPerSecond: 1 },
    })
    await using agent = await startAgent({ clock, config })
    const sign = () => call(agent.socket, 'POST', '/v1/dpop', { body: PROOF })
    const answers = [await sign(), await sign(), await sign()]
    const last = answers.at(-1)
    expect(last).toMatchObject({ status: 429, body: { error: { reason: 'rate_limited' } } })
    expect(Number(last?.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    clock.advance(2_000)
    expect((await sign()).status).toBe(200)
  })

  it.each([
    ['says nothing', Buffer.alloc(0)],
    ['stops inside the preface', PREFACE.subarray(0, 10)],
    ['stops after the preface', PREFACE],
    ['stops inside its SETTINGS', HELLO.subarray(0, -1)],
  ])('closes a connection that %s, at the deadline', async (_what, bytes) => {
    const clock = new ManualClock()
    await using agent = await startAgent({ clock })
    using wire = await openWire(agent.socket)
    await wire.write(bytes)
    await until('the connection to be counted', () => connectionsOf(agent) === 1)
    clock.advance(4_999)
    expect((await call(agent.socket, 'GET', '/v1/identity')).status).toBe(200)
    expect(wire.isClosed).toBe(false)
    clock.advance(2)
    await wire.closed()
    await until('the connection to be forgotten', () => connectionsOf(agent) === 0)
  })

  it.each([
    ['a head that never ends', 'GET /v1/identity HTTP/1.1\r\nHost: a\r\n'],
    [
      'a body that never comes',
      `POST /v1/dpop HTTP/1.1\r\n${HEADERS}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{`,
    ],
    ['one byte', 'G'],
  ])('closes a connection with %s, at the deadline', async (_what, bytes) => {
    await using agent = await startAgent({
      config: (config) => ({ ...config, limits: { ...config.limits, headerTimeout: 1 } }),
    })
    using wire = await openWire(agent.socket)
    await wire.write(bytes)
    await wire.closed()
    expect(answerIn(wire.received)).toMatchObject({ status: 408, body: { error: { reason: 'deadline' } } })
    await until('the connection to be forgotten', () => connectionsOf(agent) === 0)
  })

  it('closes its half when a client has closed its own before saying anything', async () => {
    await using agent = await startAgent()
    using wire = await openWire(agent.socket)
    wire.socket.end()
    await wire.closed()
    await until('the connection to be forgotten', () => connectionsOf(agent) === 0)
  })

  it('keeps no descriptor of 10,000 connections whose callers died in the handshake', async () => {
    await using agent = await startAgent({
      config: (config) => ({ ...config, limits: { ...config.limits, connectionsPerUid: 2_000 } }),
    })
    await call(agent.socket, 'GET', '/v1/identity')
    const before = await until('a quiet agent', () =>
      connectionsOf(agent) === 0 ? descriptors() : undefined,
    )
    for (let caller = 0; caller < 20; caller++) {
      const child = startCrowd(
        agent.socket,
        500,
        [HELLO.subarray(0, 1 + caller).toString('latin1'), 'GET /v1', ''][caller % 3] ?? '',
      )
      await until('the crowd to be in', () => connectionsOf(agent) >= 400)
      await killed(child)
      await until('the crowd to be gone', () => connectionsOf(agent) === 0)
    }
    await until('no descriptor to be left', () => descriptors() <= before + 2)
    expect((await call(agent.socket, 'GET', '/v1/identity')).status).toBe(200)
  })

  it('keeps nothing of connections that a living caller closed', async () => {
    await using agent = await startAgent({
      config: (config) => ({ ...config, ops: { listen: { host: '127.0.0.1', port: 0 } } }),
    })
    const attested = async () => {
      const text = await (await fetch(`http://127.0.0.1:${agent.daemon.opsPort}/metrics`)).text()
      return /^holdfast_connections (\d+)$/m.exec(text)?.[1]
    }
    await call(agent.socket, 'GET', '/v1/identity')
    await attested()
    const before = await until('a quiet agent', () =>
      connectionsOf(agent) === 0 ? descriptors() : undefined,
    )
    for (const bytes of ['', 'G', GET, HELLO]) {
      for (let index = 0; index < 100; index++) {
        using wire = await openWire(agent.socket)
        await wire.write(bytes)
      }
    }
    await until('the connections to be gone', () => connectionsOf(agent) === 0)
    await until('no descriptor to be left', () => descriptors() <= before + 2)
    await until('no caller to be left', async () => (await attested()) === '0')
  })

  asRoot('refuses the flooder at its limit, and serves another uid all the while', async () => {
    await using agent = await startAgent({
      uids: [0, 65_001],
      config: (config) => ({ ...config, limits: { ...config.limits, connectionsPerUid: 20 } }),
    })
    const flood = startCrowd(agent.socket, 1_000, 'G', 65_000)
    await using victim = await startPeer(agent.socket, { uid: 65_001, gid: 65_001 })
    for (let index = 0; index < 50; index++)
      expect((await victim.call('POST', '/v1/dpop', PROOF)).status).toBe(200)
    expect(connectionsOf(agent)).toBeLessThanOrEqual(21)
    await killed(flood)
    await until('the flood to be gone', () => connectionsOf(agent) <= 1)
    await using late = await startPeer(agent.socket, { uid: 65_000, gid: 65_000 })
    expect((await late.call('GET', '/v1/identity')).body.error.reason).toBe('no_identity')
  })

  it('lets a caller in past those who connected and left', async () => {
    await using agent = await startAgent()
    // The agent is this process: it takes nobody in meanwhile.
    connectAndLeave(agent.socket, 2_000)
    let turns = 0
    const next = () => {
      turns += 1
      turning = setImmediate(next)
    }
    let turning = setImmediate(next)
    expect((await call(agent.socket, 'GET', '/v1/identity')).status).toBe(200)
    clearImmediate(turning)
    expect(turns).toBeLessThan(500)
  })

  it('begins what one uid asks for at once over several turns, so that others come in between', async () => {
    await using agent = await startAgent()
    using wire = await openWire(agent.socket)
    const signed = () => agent.records.filter((record) => record.event === 'sign.dpop').length
    const count = 500
    await wire.write(Buffer.concat(Array.from({ length: count }, () => post(JSON.stringify(PROOF)))))
    let [last, most] = [0, 0]
    while (last < count) {
      await new Promise(setImmediate)
      const now = signed()
      most = Math.max(most, now - last)
      last = now
    }
    // A few turns' records share a write.
    expect(most).toBeLessThanOrEqual(128)
  })

  it('tells of a caller without an entry once, however often it asks, and how often that was', async () => {
    await using agent = await startAgent({ uids: [65_001] })
    const requests = Array.from({ length: 64 }, () => ({ kind: 'dpop', ...PROOF }))
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => call(agent.socket, 'POST', '/v1/proofs', { body: { requests } })),
    )
    for (const { body } of answers) expect(body.results[63].error.reason).toBe('no_identity')
    const refused = () => agent.records.filter(({ reason }) => reason === 'no_identity')
    const counted = () => refused().reduce((sum, { count = 1 }) => sum + count, 0)
    await until('all refusals to be on record', () => counted() >= 50 * 64)
    expect(counted()).toBe(50 * 64)
    expect(refused().length).toBeLessThan(100)
  })

  it('stops reading from a stream whose answers nobody reads, and loses none', async () => {
    await using agent = await startAgent()
    using client = new RawClient(agent.socket)
    const stream = client.open('holdfast.v1.ProofService/SignProofs', undefined)
    stream.send({ requests: [{ id: 0, dpop: PROOF }] })
    await stream.message(1)
    stream.pause()
    const count = 4_000
    const signed = () => agent.records.filter((record) => record.event === 'sign.dpop').length
    for (let id = 1; id <= count; id++) stream.send({ requests: [{ id, dpop: PROOF }] })
    let last = -1
    await until('signing to stop', async () => {
      const now = signed()
      await new Promise((resolve) => setTimeout(resolve, 100))
      const isStill = now === last
      last = now
      return isStill
    })
    expect(signed()).toBeLessThan(count / 2)
    stream.resume()
    await stream.message(count + 1)
    const ids = stream.messages.map((message) => message.results[0].id)
    expect(ids).toEqual(Array.from({ length: count + 1 }, (_, id) => id))
  })

  it('closes idle connections of both kinds when it stops', async () => {
    await using agent = await startAgent()
    using http = await openWire(agent.socket)
    using grpc = await openWire(agent.socket)
    await http.write(GET)
    await grpc.write(HELLO)
    await until('both to be served', () => http.received.length > 0 && grpc.received.length > 0)
    await agent.daemon.stop(0)
    await Promise.all([http.closed(), grpc.closed()])
  })

  it('takes no more streams on one connection than it says', async () => {
    await using agent = await startAgent({
      config: (config) => ({ ...config, limits: { ...config.limits, streamsPerConnection: 3 } }),
    })
    using client = new RawClient(agent.socket)
    const streams = Array.from({ length: 5 }, () => client.open(`${API}/FetchX509Bundles`, {}))
    await until('three streams', () => streams.filter((stream) => stream.messages.length > 0).length === 3)
    streams[0]?.cancel()
    await until(
      'a fourth in its place',
      () => streams.filter((stream) => stream.messages.length > 0).length === 4,
    )
  })
})

/** A process with `count` connections that have sent `bytes`; it never ends by itself. */
function connectAndLeave(socket: string, count: number): void {
  const script = `
    const net = require('node:net')
    for (let i = 0; i < ${count}; i++) net.connect(${JSON.stringify(socket)}, function () { this.destroy() })`
  expect(spawnSync(process.execPath, ['-e', script], { timeout: 30_000 }).status).toBe(0)
}

function startCrowd(socket: string, count: number, bytes: string, uid?: number): ChildProcess {
  const script = `
    const net = require('node:net')
    for (let i = 0; i < ${count}; i++) {
      const socket = net.connect(${JSON.stringify(socket)}, () => socket.write(Buffer.from(${JSON.stringify(bytes)}, 'latin1')))
      socket.on('error', () => {})
    }
    setInterval(() => {}, 1000)`
  const own = uid === undefined ? {} : { uid, gid: uid }
  return spawn(process.execPath, ['-e', script], { ...own, cwd: '/', stdio: 'ignore' })
}

function killed(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once('exit', () => resolve())
    child.kill('SIGKILL')
  })
}

describe('the paths', () => {
  let parent: string
  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), 'holdfast-paths-'))
  })
  afterEach(() => rmSync(parent, { recursive: true, force: true }))

  const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)
  const refusal = (dir: string): Promise<Fault> =>
    startAgent({ dir }).then(
      async (agent) => {
        await agent.daemon.stop(0)
        throw new Error('it started')
      },
      (error: unknown) => error as Fault,
    )

  it('are open where callers must get in and closed where only operators may', async () => {
    await using agent = await startAgent()
    expect({
      dir: modeOf(agent.dir),
      public: modeOf(join(agent.dir, 'public')),
      private: modeOf(join(agent.dir, 'private')),
      workload: modeOf(agent.socket),
      admin: modeOf(agent.adminSocket),
    }).toEqual({ dir: '755', public: '755', private: '700', workload: '777', admin: '600' })
  })

  it('are refused when too long for a socket, and nothing listens on a cut one', async () => {
    const dir = join(parent, 'x'.repeat(100))
    mkdirSync(dir)
    const fault = await refusal(dir)
    expect(fault).toMatchObject({ reason: 'socket_unusable', message: expect.stringContaining('too long') })
    expect(readdirSync(join(dir, 'public'))).toEqual([])
  })

  it.each(['.', 'public', 'private'])('are refused when %s is a link', async (name) => {
    const dir = join(parent, 'agent')
    mkdirSync(join(parent, 'elsewhere'))
    if (name !== '.') mkdirSync(dir)
    symlinkSync(join(parent, 'elsewhere'), join(dir, name).replace(/\/$/, ''))
    expect(await refusal(dir)).toMatchObject({ reason: 'socket_unusable' })
    expect(readdirSync(join(parent, 'elsewhere'))).not.toContain('workload.sock')
  })

  asRoot.each(['.', 'public', 'private'])('are refused when %s belongs to somebody else', (name) => {
    const dir = join(parent, 'agent')
    mkdirSync(join(dir, name), { recursive: true })
    chownSync(join(dir, name), 65_000, 65_000)
    expect(faultOf(() => prepareDirectories(dir))).toMatch(/^socket_unusable: .* belongs to uid 65000/)
  })

  it('are refused below a directory where others may put theirs, and not in one that is sticky', () => {
    const dir = join(parent, 'agent')
    chmodSync(parent, 0o777)
    expect(faultOf(() => prepareDirectories(dir))).toMatch(
      /^socket_unusable: .* others may write the directory/,
    )
    chmodSync(parent, 0o1777)
    expect(prepareDirectories(dir).dir).toBe(dir)
  })

  asRoot('are refused below a directory of somebody else', () => {
    chownSync(parent, 65_000, 65_000)
    expect(faultOf(() => prepareDirectories(join(parent, 'agent')))).toMatch(
      /^socket_unusable: .* belongs to uid 65000/,
    )
  })

  it('stay with a live agent: a second one refuses to start and names its pid', async () => {
    await using agent = await startAgent()
    const inode = statSync(agent.socket).ino
    const fault = await refusal(agent.dir)
    expect(fault.reason).toBe('agent_running')
    expect(fault.message).toContain(String(process.pid))
    expect(statSync(agent.socket).ino).toBe(inode)
    expect((await call(agent.socket, 'GET', '/v1/identity')).status).toBe(200)
  })

  it('are taken from an agent that was killed', async () => {
    const killedOne = await startBuiltAgent({ dir: parent })
    await killedOne.stop('SIGKILL')
    const inode = statSync(killedOne.socket).ino
    await using next = await startAgent({ dir: parent })
    expect(statSync(next.socket).ino).not.toBe(inode)
    expect((await call(next.socket, 'GET', '/v1/identity')).status).toBe(200)
  })

  it('move to a newcomer that takes over, and the old agent never touches them again', async () => {
    const clock = new ManualClock()
    await using old = await startAgent({ dir: parent, clock })
    using client = new RawClient(old.socket)
    const stream = client.open(`${API}/FetchX509Bundles`, {})
    await stream.message(1)
    const epoch = async () => (await call(old.socket, 'GET', '/v1/identity')).body.epoch
    const oldEpoch = await epoch()
    const next = await startAgent({ dir: parent, takeover: true })
    const inode = statSync(next.socket).ino
    expect(await epoch()).not.toBe(oldEpoch)
    await until('the old agent to see it', () => {
      clock.advance(1_000)
      return old.daemon.status().state === 'passive'
    })
    expect((await stream.end()).code).not.toBe('OK')
    await old.daemon.stop(0)
    expect(statSync(next.socket).ino).toBe(inode)
    expect(statSync(next.adminSocket).isSocket()).toBe(true)
    expect(await epoch()).not.toBe(oldEpoch)
    await next.daemon.stop(0)
    expect(readdirSync(join(parent, 'public'))).toEqual([])
  })

  it('move to a newcomer, and the old agent still serves whoever had connected before it is ended', async () => {
    const clock = new ManualClock()
    await using old = await startAgent({ dir: parent, clock })
    using early = await openWire(old.socket)
    await until('a connection', () => connectionsOf(old) === 1)
    await using next = await startAgent({ dir: parent, takeover: true })
    const stopped = old.daemon.stop(2_000)
    await early.write(GET)
    expect((await until('an answer', () => answerIn(early.received))).status).toBe(200)
    clock.advance(500)
    await until('the old agent to drain', () => old.daemon.status().state === 'draining')
    using late = await openWire(next.socket)
    await late.write(GET)
    expect((await until('an answer', () => answerIn(late.received))).status).toBe(200)
    await until('its end', () => {
      clock.advance(100)
      return connectionsOf(old) === 0
    })
    clock.advance(2_000)
    await stopped
  })

  it('come back to a passive agent once nobody answers there', async () => {
    const clock = new ManualClock()
    await using old = await startAgent({ dir: parent, clock })
    const seen = async (state: string) =>
      await until(`the old agent to be ${state}`, () => {
        clock.advance(1_000)
        return old.daemon.status().state === state
      })
    const next = await startAgent({ dir: parent, takeover: true })
    await seen('passive')
    await next.daemon.stop(0)
    await seen('ready')
    expect((await call(old.socket, 'GET', '/v1/identity')).status).toBe(200)
    using client = new RawClient(old.socket)
    expect(await first(client, `${API}/FetchX509SVID`)).toHaveProperty('svids')
  })
})
