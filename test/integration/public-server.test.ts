/** TCP ports that anybody may reach: what holds a connection and gives nothing is let go, and others are served meanwhile. */
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { request } from 'node:https'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { openPublicServer, type PublicServer } from '../../src/serve/public-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const ca = makeTestCa()
const dir = mkdtempSync(join(tmpdir(), 'holdfast-public-'))
const files = { certificateFile: join(dir, 'cert.pem'), keyFile: join(dir, 'key.pem') }
const writePair = ({ cert, key }: { readonly cert: string; readonly key: string }) => {
  writeFileSync(files.certificateFile, cert)
  writeFileSync(files.keyFile, key)
}
/** More than two buffers of a kernel hold. */
const LONG = 'x'.repeat(100_000)
const ASK = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'

let server: PublicServer
const sockets: Socket[] = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
  server.stop()
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

async function open(isTls: boolean, connections = 8, onAsked = () => {}): Promise<void> {
  writePair(ca.serverFiles())
  server = await openPublicServer({
    name: 'test.listen',
    host: '127.0.0.1',
    port: 0,
    files: isTls ? files : undefined,
    connections,
    maxHeaderSize: 8192,
    patience: 300,
    listener: (_request, response) => {
      onAsked()
      response.end(LONG)
    },
  })
}

/** A connection on which `said` is sent and nothing is ever read. */
async function hold(said: string): Promise<Socket> {
  const socket = connect(server.port, '127.0.0.1')
  sockets.push(socket)
  socket.pause()
  socket.on('error', () => {})
  await once(socket, 'connect')
  if (said !== '') socket.write(said)
  return socket
}

/** Node's own fetch waits for ever where the connection is hung up on at once. */
const get = () =>
  new Promise<number>((resolve, reject) => {
    const sent = httpRequest({ host: '127.0.0.1', port: server.port, agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    sent.on('error', reject).end()
  })

const getSecure = () =>
  new Promise<number>((resolve, reject) => {
    const trusting = { servername: 'localhost', ca: ca.pem, agent: false }
    const sent = request({ host: '127.0.0.1', port: server.port, ...trusting }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    sent.on('error', reject).end()
  })

describe('a public port', () => {
  it.each([
    ['says nothing', ''],
    ['stops within a head', 'GET / HTTP/1.1\r\nHo'],
    ['stops within a body', 'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx'],
    ['asks again and again and takes no answer', ASK.repeat(500)],
  ])('is free again after somebody who %s', async (_what, said) => {
    await open(false, 2)
    await hold(said)
    await hold(said)
    // A third is hung up on until one of them is over.
    await until('a free place', async () => (await get().catch(() => 0)) === 200)
  })

  it('ends a connection that never shakes hands', async () => {
    await open(true)
    const socket = await hold('')
    await once(socket.resume(), 'close')
  })

  it.each([false, true])('outlives connections that break off, with TLS: %s', async (isTls) => {
    await open(isTls)
    for (const said of ['', 'GET / HT', ASK]) (await hold(said)).resetAndDestroy()
    expect(await (isTls ? getSecure() : get())).toBe(200)
  })

  it('is heard in turns, whoever asks', async () => {
    let asked = 0
    await open(false, 8, () => {
      asked += 1
    })
    const count = 1_000
    const socket = (await hold(ASK.repeat(count))).resume()
    let [last, most] = [0, 0]
    while (last < count) {
      await new Promise(setImmediate)
      most = Math.max(most, asked - last)
      last = asked
    }
    expect(most).toBeLessThanOrEqual(128)
    socket.destroy()
  })

  it('keeps the last good pair when the next does not fit, and shows the next that does', async () => {
    await open(true)
    const [first, second] = [ca.serverFiles(), ca.serverFiles()]
    writePair({ cert: first.cert, key: second.key })
    expect(() => server.reload()).toThrow(/test\.listen: its certificate and key .* do not fit/)
    expect(await getSecure()).toBe(200)
    writePair(second)
    server.reload()
    expect(await getSecure()).toBe(200)
  })
})
