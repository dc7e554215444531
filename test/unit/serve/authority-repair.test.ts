import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { type ClientHttp2Session, connect, createServer as createHttp2 } from 'node:http2'
import { connect as connectSocket, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import {
  Client,
  credentials,
  experimental,
  Server as GrpcServer,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
} from '@grpc/grpc-js'
import { afterEach, describe, expect, it } from 'vitest'
import { needsRepair, repairAuthority } from '../../../src/serve/authority-repair.ts'
import { FLAG, FRAME, frame, opening, PREFACE, raw } from '../../support/h2.ts'
import { until } from '../../support/until.ts'

const LATER = frame(FRAME.headers, 4, 1, Buffer.from([0x82]))

describe('needsRepair', () => {
  it.each([
    [
      'grpc-java',
      [
        [2, 0],
        [3, 0],
        [4, 1_048_576],
        [6, 8_192],
      ],
      true,
    ],
    ['a client nobody has met', [[3, 100]], true],
    ['grpc-go', [], false],
    ['grpc-js', [[4, 65_535]], false],
    [
      'tonic',
      [
        [2, 0],
        [4, 1_048_576],
        [5, 16_384],
        [6, 16_384],
      ],
      false,
    ],
    [
      'gRPC C-core',
      [
        [2, 0],
        [3, 0],
        [4, 4_194_304],
        [5, 4_194_304],
        [6, 16_384],
        [65_027, 1],
      ],
      false,
    ],
  ] as const)('tells %s by its SETTINGS', (_client, settings, expected) => {
    expect(needsRepair(opening(settings))).toBe(expected)
    expect(needsRepair(Buffer.concat([opening(settings), LATER]))).toBe(expected)
  })

  const envoy = opening([
    [2, 0],
    [1, 4_096],
    [8, 0],
    [3, 1_024],
    [4, 16_777_216],
  ])
  /** A call that says `authority`, as a literal that later calls name by its place in the table. */
  const callOf = (authority: string) =>
    frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.concat([Buffer.from([0x83, 0x41]), raw(authority)]))

  it.each([
    ['without a slash', [callOf('holdfast')], false],
    ['with a slash', [callOf('/run/holdfast')], true],
    ['with a slash in the second call', [callOf('holdfast'), callOf('a/b')], true],
    ['not yet there', [], true],
    ['not whole', [callOf('holdfast').subarray(0, -1)], true],
    ['of a broken block', [frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.from([0x41, 0x7f]))], true],
  ])("tells an Envoy by its SETTINGS and its first call's authority: %s", (_what, calls, expected) => {
    const bytes = Buffer.concat([envoy, ...calls])
    const before = Buffer.from(bytes)
    expect(needsRepair(bytes)).toBe(expected)
    expect(bytes).toEqual(before)
  })

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['the preface alone', PREFACE],
    ['SETTINGS that are cut off', opening([[4, 1]]).subarray(0, -1)],
    ['SETTINGS of a broken length', Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0, Buffer.alloc(5))])],
    ['another frame first', Buffer.concat([PREFACE, frame(FRAME.data, 0, 0)])],
  ])('repairs %s, since it is not known to be good', (_what, bytes) => {
    expect(needsRepair(bytes)).toBe(true)
  })
})

const path = join(tmpdir(), `holdfast-repair-${process.pid}.sock`)
const open: { close(): void }[] = []
afterEach(() => {
  for (const one of open.splice(0)) one.close()
  rmSync(path, { force: true })
})

/** A server that gives each repaired connection to `take`. */
async function listen(
  take: (repaired: Duplex, socket: Socket) => void,
  allowHalfOpen = false,
): Promise<Server> {
  const server = createServer({ allowHalfOpen, pauseOnConnect: true }, (socket) =>
    take(repairAuthority(socket), socket),
  )
  server.listen(path)
  await once(server, 'listening')
  open.push(server)
  return server
}

function openHttp2Client(): ClientHttp2Session {
  const client = connect('http://localhost', { createConnection: () => connectSocket(path) })
  open.push({ close: () => client.destroy() })
  return client
}

/** An HTTP/2 server that answers with the authority it saw, and the body it got. */
async function listenHttp2(): Promise<void> {
  const http2 = createHttp2()
  http2.on('stream', (stream, headers) => {
    stream.respond({
      'x-authority': headers[':authority'] ?? 'none',
      'x-size': `${headers['x-large']?.length}`,
    })
    stream.pipe(stream)
  })
  await listen((repaired) => http2.emit('connection', repaired))
}

async function ask(client: ClientHttp2Session, authority: string, extra: object = {}, body?: Buffer) {
  const stream = client.request(
    { ':authority': authority, ':method': 'POST', ...extra },
    { endStream: !body },
  )
  const answer: { headers: Record<string, unknown> } = { headers: {} }
  stream.on('response', (headers) => {
    answer.headers = headers
  })
  if (body) stream.end(body)
  const hash = createHash('sha256')
  for await (const chunk of stream) hash.update(chunk)
  return { headers: answer.headers, sha256: hash.digest('hex') }
}

describe('repairAuthority', () => {
  it('lets Node serve authorities with slashes while both dynamic tables evolve', async () => {
    await listenHttp2()
    const client = openHttp2Client()
    const authorities = Array.from(
      { length: 60 },
      (_, index) => `/run/${'d/'.repeat(index % 40)}x${index % 7}`,
    )
    for (const authority of [...authorities, ...authorities, 'localhost', 'localhost']) {
      // A fresh header each time pushes old entries out of the table.
      const { headers } = await ask(client, authority, { 'x-filler': randomBytes(150).toString('hex') })
      expect(headers['x-authority']).toBe(authority.replaceAll('/', '-'))
    }
  })

  it('carries header blocks of several frames', async () => {
    await listenHttp2()
    const { headers } = await ask(openHttp2Client(), '/a/b', {
      'x-large': randomBytes(20_000).toString('hex'),
    })
    expect(headers).toMatchObject({ 'x-authority': '-a-b', 'x-size': '40000' })
  })

  it('carries large bodies both ways without keeping them in memory', async () => {
    await listenHttp2()
    const body = randomBytes(8 * 1024 * 1024)
    const { sha256 } = await ask(openHttp2Client(), '/a/b', {}, body)
    expect(sha256).toBe(createHash('sha256').update(body).digest('hex'))
  })

  it('stops reading from a client while nobody reads it', async () => {
    const seen: { repaired?: Duplex; socket?: Socket } = {}
    await listen((repaired, socket) => Object.assign(seen, { repaired, socket }))
    const client = connectSocket(path)
    open.push({ close: () => client.destroy() })
    client.write(opening([]))
    client.write(Buffer.concat(Array(4_096).fill(frame(FRAME.data, 0, 1, Buffer.alloc(16_000)))))
    const { repaired, socket } = await until('the connection', () => seen.repaired && seen)
    repaired?.read(0)
    await until('the pause', () => socket?.isPaused())
    expect(socket?.bytesRead).toBeLessThan(1024 * 1024)
    expect(repaired?.readableLength).toBeLessThan(1024 * 1024)
  })

  it('waits for a client that does not read', async () => {
    const seen: { repaired?: Duplex } = {}
    await listen((repaired) => Object.assign(seen, { repaired }))
    const client = connectSocket(path)
    client.pause()
    open.push({ close: () => client.destroy() })
    const { repaired } = await until('the connection', () => seen.repaired && seen)
    let written = 0
    const more = () => {
      for (let hasRoom = true; hasRoom && written < 1_000; written++)
        hasRoom = repaired?.write(Buffer.alloc(16_384)) ?? false
    }
    repaired?.on('drain', more)
    more()
    await new Promise((resolve) => setImmediate(resolve))
    expect(written).toBeLessThan(100)
    client.resume()
    await until('the rest', () => written >= 1_000)
  })

  it('is the socket to grpc-js: a call arrives, under the name that an interceptor gives it', async () => {
    const server = new GrpcServer()
    const peers: string[] = []
    const echo = {
      path: '/t.T/Echo',
      requestStream: false,
      responseStream: false,
      requestSerialize: (value: Buffer) => value,
      requestDeserialize: (value: Buffer) => value,
      responseSerialize: (value: Buffer) => value,
      responseDeserialize: (value: Buffer) => value,
    } as const
    server.addService(
      { Echo: echo },
      {
        Echo: (call: { request: Buffer; getPeer(): string }, done: (error: null, value: Buffer) => void) => {
          peers.push(call.getPeer())
          done(null, call.request)
        },
      },
    )
    // Node shows no address of a JavaScript stream, so its calls are named by an interceptor.
    const named: ServerInterceptor = (_method, call) =>
      Object.assign(new ServerInterceptingCall(call), { getPeer: () => 'peer-7' })
    const insecure = ServerCredentials.createInsecure()
    const injector = server.createConnectionInjector(
      experimental.createServerCredentialsWithInterceptors(insecure, [named]),
    )
    await listen((repaired) => injector.injectConnection(repaired))
    const client = new Client(`unix:${path}`, credentials.createInsecure(), {
      'grpc.default_authority': path,
    })
    open.push({ close: () => client.close() }, { close: () => server.forceShutdown() })
    const answer = await new Promise((resolve, reject) =>
      client.makeUnaryRequest(
        echo.path,
        echo.requestSerialize,
        echo.responseDeserialize,
        Buffer.from('hello'),
        (error, value) => (error ? reject(error) : resolve(value)),
      ),
    )
    expect(answer).toEqual(Buffer.from('hello'))
    expect(peers).toEqual(['peer-7'])
  })

  it.each([
    ['a broken preface', Buffer.from('PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n')],
    ['a broken header block', Buffer.concat([opening([]), frame(FRAME.headers, 4, 1, Buffer.from([0x41]))])],
  ])('ends the connection on %s, without an error for anyone', async (_what, bytes) => {
    const seen: { repaired?: Duplex } = {}
    await listen((repaired) => {
      repaired.resume()
      seen.repaired = repaired
    })
    const client = connectSocket(path)
    client.on('error', () => {})
    client.write(bytes)
    client.resume()
    await once(client, 'close')
    await until('the other side', () => seen.repaired?.destroyed)
  })

  it('tells of the end of either half, and closes when both are over', async () => {
    const seen: { repaired?: Duplex; socket?: Socket; ended?: boolean } = {}
    await listen((repaired, socket) => {
      repaired.resume()
      repaired.on('end', () => {
        seen.ended = true
      })
      Object.assign(seen, { repaired, socket })
    }, true)
    const client = connectSocket({ path, allowHalfOpen: true })
    const got: Buffer[] = []
    client.on('data', (chunk: Buffer) => got.push(chunk))
    client.end(opening([]))
    await until('the end of the client', () => seen.ended)
    seen.repaired?.end(Buffer.from('still here'))
    await once(client, 'close')
    expect(Buffer.concat(got).toString()).toBe('still here')
    await until('both closed', () => seen.repaired?.destroyed && seen.socket?.destroyed)
  })

  it.each([
    ['the client', (client: Socket) => client.destroy()],
    ['the user', (_client: Socket, repaired: Duplex) => repaired.destroy()],
    [
      'the socket',
      (_client: Socket, _repaired: Duplex, socket: Socket) => socket.destroy(new Error('reset')),
    ],
  ])('closes both sides when %s goes away', async (_who, goAway) => {
    const seen: { repaired?: Duplex; socket?: Socket } = {}
    await listen((repaired, socket) => {
      socket.on('error', () => {})
      Object.assign(seen, { repaired, socket })
    })
    const client = connectSocket(path)
    client.on('error', () => {})
    const { repaired, socket } = await until('the connection', () => seen.socket && seen)
    if (!repaired || !socket) throw new Error('no connection')
    repaired.resume()
    goAway(client, repaired, socket)
    await until('both closed', () => repaired.destroyed && socket.destroyed)
    client.destroy()
  })

  it('is closed at once for a socket that is', async () => {
    const socket = connectSocket(path)
    socket.on('error', () => {})
    socket.destroy()
    expect(repairAuthority(socket).destroyed).toBe(true)
  })
})
