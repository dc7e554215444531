/** Frames in any order, from callers and from targets: the agent's process goes on, and so does everybody else. */
import { createSecureServer } from 'node:http2'
import { type AddressInfo, connect as dial } from 'node:net'
import { createServer as createTlsServer, type Server } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createHoldfastFetch } from '../../src/client/index.ts'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { watchEscapes } from '../support/escapes.ts'
import { type Draw, drawsOf, literal, writeAll } from '../support/h2-fuzz.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const SEED = 20_261_128
const CONNECTIONS = 400
const ABREAST = 8
const TARGET_CONNECTIONS = 60

const ca = makeTestCa()
const escaped = watchEscapes()
let server: ResourceServer
let modern: Server
let hostile: Server
let egress: TestEgress
let targetDraw: Draw = () => 0

const block = (fields: readonly (readonly [string, string])[]) =>
  Buffer.concat(fields.map(([name, value]) => literal(name, value)))

const head = (method: string, authority: string, path: string) =>
  [
    [':method', method],
    [':scheme', 'http'],
    [':authority', authority],
    [':path', path],
  ] as const

const HEADS: readonly Buffer[] = [
  ...['orders', 'modern', 'narrow', 'nobody'].flatMap((name) => [
    block(head('GET', name, '/echo')),
    block([...head('POST', name, '/upload'), ['te', 'trailers']]),
    block([...head('POST', name, '/upload'), ['content-length', '3']]),
    block([...head('POST', name, '/upload'), ['content-type', 'application/grpc']]),
  ]),
  block([...head('POST', 'orders', '/upload'), ['expect', '100-continue']]),
  block(head('HEAD', 'modern', '/echo')),
  block([...head('CONNECT', 'orders', '/'), [':protocol', 'websocket']]),
  block([['x-trailer', '1']]),
  block([
    ['grpc-status', '0'],
    ['etag', '1'],
    ['etag', '2'],
  ]),
  block([['x', 'a\r\nb']]),
  Buffer.from([0xff, 0xff, 0xff, 0x7f]),
  Buffer.from([0x82]),
]

const ANSWERS: readonly Buffer[] = [
  block([[':status', '200']]),
  block([
    [':status', '200'],
    ['content-length', '3'],
  ]),
  block([[':status', '100']]),
  block([
    [':status', '103'],
    ['link', 'x'],
  ]),
  block([
    [':status', '401'],
    ['dpop-nonce', 'n'],
    ['www-authenticate', 'DPoP error="use_dpop_nonce"'],
  ]),
  block([
    [':status', '302'],
    ['location', '/echo'],
  ]),
  block([[':status', '999']]),
  block([
    [':status', '200'],
    ['content-type', 'a'],
    ['content-type', 'b'],
  ]),
  block([['grpc-status', '0']]),
  block([
    ['etag', '1'],
    ['etag', '2'],
  ]),
  block([['x', 'y']]),
  Buffer.from([0x88]),
  Buffer.from([0xff, 0xff, 0xff, 0x7f]),
]

const listening = (one: { listen: Server['listen']; address: Server['address'] }) =>
  new Promise<number>((resolve) =>
    one.listen(0, '127.0.0.1', () => resolve((one.address() as AddressInfo).port)),
  )

beforeAll(async () => {
  server = await startResourceServer({
    ca,
    handlers: {
      '/upload': (request, response) => {
        request.resume()
        request.on('end', () => response.end('ok'))
      },
    },
  })
  const h2 = createSecureServer(ca.serverFiles())
  h2.on('sessionError', () => {})
  h2.on('stream', (stream) => {
    stream.on('error', () => {})
    stream.resume()
    stream.respond({ ':status': 200 }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-trailer': '1' }))
    stream.write('half')
    stream.on('end', () => stream.end('whole'))
  })
  modern = h2
  hostile = createTlsServer({ ...ca.serverFiles(), ALPNProtocols: ['h2'] }, (socket) => {
    socket.on('error', () => {})
    socket.resume()
    // Once the first request is there: its stream is open.
    socket.once('data', () => setTimeout(() => void writeAll(socket, targetDraw, ANSWERS, false), 5))
  })
  const at = (port: number) => ({ origin: `https://localhost:${port}` })
  egress = await startEgress({
    ca,
    targets: {
      orders: at(server.port),
      modern: at(await listening(modern)),
      hostile: at(await listening(hostile)),
      narrow: { ...at(server.port), paths: '["/v1/**"]' },
    },
    settings: { responseTimeout: 1, idleTimeout: 1 },
    streams: 6,
  })
})

afterAll(async () => {
  await egress?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  modern?.close()
  hostile?.close()
})

async function expectAlive(): Promise<void> {
  const api = createHoldfastFetch({ socket: egress.socket })
  expect((await api('http://orders/echo')).status).toBe(200)
  expect(escaped).toEqual([])
}

describe('frames in any order', () => {
  it('from callers end nothing but their own connection', async () => {
    const one = async (run: number) => {
      const draw = drawsOf(SEED + run)
      const socket = dial(egress.socket)
      socket.on('error', () => {})
      socket.resume()
      const closed = new Promise((resolve) => socket.once('close', resolve))
      await writeAll(socket, draw, HEADS, true)
      await closed
    }
    for (let run = 0; run < CONNECTIONS; run += ABREAST)
      await Promise.all(Array.from({ length: ABREAST }, (_, at) => one(run + at)))
    await expectAlive()
    // The fuzz is no use when nothing of it gets through. The HTTP/2 of newer Nodes ends most connections early.
    const reached = egress.records().filter(({ event, allowed }) => event === 'egress' && allowed)
    expect(reached.length).toBeGreaterThan(CONNECTIONS / 40)
  })

  it('from targets end nothing but the requests to them', async () => {
    let answers = 0
    for (let run = 0; run < TARGET_CONNECTIONS; run += 1) {
      targetDraw = drawsOf(SEED + run)
      const requests = ['GET', 'POST'].map(async (method) => {
        const socket = dial(egress.socket)
        socket.on('error', () => {})
        socket.on('data', () => {
          answers += 1
        })
        const closed = new Promise((resolve) => socket.once('close', resolve))
        socket.write(
          `${method} /echo HTTP/1.1\r\nHost: hostile\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
        )
        await closed
      })
      await Promise.all(requests)
      egress.door.close({ target: 'hostile' })
    }
    expect(answers).toBeGreaterThan(TARGET_CONNECTIONS)
    await until('every connection to the target to be gone', () => egress.door.connections() <= 2)
    await expectAlive()
  })
})
