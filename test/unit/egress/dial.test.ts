import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createTcpServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { Fault } from '../../../src/base/fault.ts'
import { Dialer, type DialTlsAsk, placeOf } from '../../../src/egress/dial.ts'
import { type LookUp, Resolver } from '../../../src/egress/resolve.ts'
import { Trust } from '../../../src/egress/trust.ts'
import type { TlsTrust } from '../../../src/policy/grant.ts'
import { parseSpiffeId } from '../../../src/spiffe/id.ts'
import { bundleOfRoots } from '../../support/certificates.ts'
import { makeTestCa } from '../../support/tls.ts'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

const ca = makeTestCa()
const LOOPBACK = ['127.0.0.1', '::1']
const SYSTEM: TlsTrust = { trust: 'system', peerId: undefined, serverName: undefined }
const WEB = parseSpiffeId('spiffe://example.org/web')

function makeDialer(lookUp?: LookUp, patience = 2_000): Dialer {
  const bundle = bundleOfRoots(ca.authority)
  const trust = new Trust({
    clock: systemClock,
    bundleOf: (domain) => (domain === 'example.org' ? bundle : undefined),
  })
  const resolver = new Resolver({ clock: systemClock, ...(lookUp ? { lookUp } : {}) })
  return new Dialer({ clock: systemClock, resolver, trust, patience })
}

async function listen(server: Server): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => sockets.add(socket.on('error', () => {})))
  closing.push(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return typeof address === 'object' && address ? address.port : 0
}

function listenTls(options: TlsOptions, seen: (socket: TLSSocket) => void = () => {}): Promise<number> {
  const server = createServer(options, (socket) => {
    seen(socket)
    socket.write('hello')
  })
  return listen(server.on('tlsClientError', () => {}))
}

function inFile(text: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-trust-'))
  closing.push(() => rmSync(dir, { recursive: true }))
  writeFileSync(join(dir, 'ca.pem'), text)
  return join(dir, 'ca.pem')
}

/** `ok`, or reason and message. */
async function outcome(
  ask: Partial<DialTlsAsk> & { readonly port: number },
  dialer = makeDialer(),
): Promise<string> {
  const { signal } = new AbortController()
  try {
    const socket = await dialer.dialTls({
      host: 'localhost',
      addresses: LOOPBACK,
      tls: SYSTEM,
      signal,
      ...ask,
    })
    // Every server greets: a client that leaves earlier is none that it saw.
    await once(socket, 'data')
    socket.destroy()
    return 'ok'
  } catch (error) {
    return error instanceof Fault ? `${error.reason}: ${error.message}` : String(error)
  }
}

describe('a TLS connection', () => {
  it('is made to a server that a file of roots vouches for', async () => {
    const port = await listenTls(ca.serverFiles())
    expect(await outcome({ port, tls: { ...SYSTEM, trust: { file: inFile(ca.pem) } } })).toBe('ok')
  })

  it('is refused when the system has no root for it', async () => {
    const port = await listenTls(ca.serverFiles())
    expect(await outcome({ port })).toMatch(/^upstream_tls: the connection is not verified \([A-Z_]+\)$/)
  })

  it('is refused for another name than was dialled, also with the variable that turns verification off', async () => {
    const port = await listenTls(ca.serverFiles({ dns: 'other.example' }))
    const tls = { ...SYSTEM, trust: { file: inFile(ca.pem) } }
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0')
    closing.push(() => vi.unstubAllEnvs())
    expect(await outcome({ port, tls })).toBe(
      'upstream_tls: the connection is not verified (ERR_TLS_CERT_ALTNAME_INVALID)',
    )
    expect(await outcome({ port })).toContain('upstream_tls')
  })

  it('verifies and sends server_name instead of the host', async () => {
    const names: (string | false | null)[] = []
    const port = await listenTls(ca.serverFiles({ dns: 'other.example' }), (socket) => {
      names.push(socket.servername)
    })
    const tls = { ...SYSTEM, trust: { file: inFile(ca.pem) }, serverName: 'other.example' }
    expect(await outcome({ port, tls })).toBe('ok')
    expect(names).toEqual(['other.example'])
  })

  it('verifies the address of an IP literal', async () => {
    const tls = { ...SYSTEM, trust: { file: inFile(ca.pem) } }
    expect(await outcome({ port: await listenTls(ca.serverFiles()), host: '127.0.0.1', tls })).toBe('ok')
    const port = await listenTls(ca.serverFiles({ dns: 'localhost' }))
    expect(await outcome({ port, host: '127.0.0.1', tls })).toContain('ERR_TLS_CERT_ALTNAME_INVALID')
  })

  it('is refused below TLS 1.2', async () => {
    const port = await listenTls({
      ...ca.serverFiles(),
      minVersion: 'TLSv1.1',
      maxVersion: 'TLSv1.1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    })
    expect(await outcome({ port, tls: { ...SYSTEM, trust: { file: inFile(ca.pem) } } })).toContain(
      'upstream_tls',
    )
  })

  it('trusts the roots that the file holds now, and the last good ones while it holds none', async () => {
    const other = makeTestCa()
    const port = await listenTls(ca.serverFiles())
    const file = inFile(other.pem)
    const dialer = makeDialer()
    const tls = { ...SYSTEM, trust: { file } }
    expect(await outcome({ port, tls }, dialer)).toContain('upstream_tls')
    writeFileSync(file, `${other.pem}${ca.pem}`)
    expect(await outcome({ port, tls }, dialer)).toBe('ok')
    writeFileSync(file, 'nothing')
    expect(await outcome({ port, tls }, dialer)).toBe('ok')
    writeFileSync(file, `${other.pem}\n`)
    expect(await outcome({ port, tls }, dialer)).toContain('upstream_tls')
  })

  it.each([
    ['is not there', undefined],
    ['has no certificate', 'nothing'],
    ['has a broken certificate', '-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n'],
  ])('is refused when the file of roots %s', async (_what, text) => {
    const file = text === undefined ? '/nonexistent/ca.pem' : inFile(text)
    expect(await outcome({ port: 1, tls: { ...SYSTEM, trust: { file } } })).toMatch(
      /^upstream_tls: .*ca\.pem: /,
    )
  })

  it('speaks the protocol that was asked for', async () => {
    const port = await listenTls({ ...ca.serverFiles(), ALPNProtocols: ['h2'] })
    const tls = { ...SYSTEM, trust: { file: inFile(ca.pem) } }
    const { signal } = new AbortController()
    const socket = await makeDialer().dialTls({
      host: 'localhost',
      port,
      addresses: LOOPBACK,
      tls,
      signal,
      alpn: ['h2', 'http/1.1'],
    })
    expect(socket.alpnProtocol).toBe('h2')
    socket.destroy()
  })
})

describe('a TLS connection in a trust domain', () => {
  const spiffe = (peerId = WEB): TlsTrust => ({ trust: 'spiffe', peerId, serverName: undefined })

  it('is made to the one SPIFFE ID, whatever its name', async () => {
    const port = await listenTls(ca.serverFiles({ uri: WEB }))
    expect(await outcome({ port, tls: spiffe() })).toBe('ok')
  })

  it.each([
    ['another SPIFFE ID', { uri: 'spiffe://example.org/web/other' }, /the server is .*other, wanted .*web$/],
    ['the name alone', { dns: 'localhost' }, /0 URI names/],
  ])('is refused for %s', async (_what, names, message) => {
    const port = await listenTls(ca.serverFiles(names))
    expect(await outcome({ port, tls: spiffe() })).toMatch(message)
  })

  it('is refused for a certificate of another authority', async () => {
    const port = await listenTls(makeTestCa().serverFiles({ uri: WEB }))
    expect(await outcome({ port, tls: spiffe() })).toContain('upstream_tls: the connection is not verified')
  })

  it('is refused for a peer_id of a trust domain without a bundle', async () => {
    const port = await listenTls(ca.serverFiles({ uri: WEB }))
    const peerId = parseSpiffeId('spiffe://elsewhere.org/web')
    expect(await outcome({ port, tls: spiffe(peerId) })).toBe(
      'upstream_tls: there is no bundle for the trust domain of spiffe://elsewhere.org/web',
    )
    expect(await outcome({ port, tls: { ...SYSTEM, trust: 'spiffe' } })).toContain('there is no peer_id')
  })

  it('verifies each connection: none resumes the session of another', async () => {
    const seen: boolean[] = []
    const port = await listenTls(ca.serverFiles({ uri: WEB }), (socket) => {
      seen.push(socket.isSessionReused())
    })
    const dialer = makeDialer()
    expect([
      await outcome({ port, tls: spiffe() }, dialer),
      await outcome({ port, tls: spiffe() }, dialer),
    ]).toEqual(['ok', 'ok'])
    expect(seen).toEqual([false, false])
  })
})

describe('a connection', () => {
  it('goes to the address that was checked, whatever the name says afterwards', async () => {
    const reached: string[] = []
    const port = await listen(createTcpServer((socket) => reached.push(String(socket.remoteAddress))))
    const lookUp = vi.fn<LookUp>(async () => [{ address: '127.0.0.1', family: 4 }])
    const { signal } = new AbortController()
    const ask = { host: 'rebound.example', port, addresses: LOOPBACK, signal }
    const socket = await makeDialer(lookUp).dial(ask)
    expect([socket.remoteAddress, lookUp.mock.calls.length]).toEqual(['127.0.0.1', 1])
    socket.destroy()
  })

  it.each(['localhost', '127.0.0.1', '::1'])('does not reach %s unless it is listed', async (host) => {
    const reached = vi.fn()
    const port = await listen(createTcpServer(reached))
    expect(await outcome({ port, host, addresses: [] })).toContain('upstream_address')
    expect(reached).not.toHaveBeenCalled()
  })

  it('says that nobody listens', async () => {
    const server = createTcpServer()
    const port = await listen(server)
    await new Promise((resolve) => server.close(resolve))
    expect(await outcome({ port })).toMatch(/^upstream_unavailable: localhost cannot be reached \(/)
  })

  it('does not wait for a server that never speaks TLS, and closes the socket', async () => {
    const ended = vi.fn()
    const port = await listen(createTcpServer((socket) => socket.on('close', ended).resume()))
    expect(await outcome({ port }, makeDialer(undefined, 50))).toBe(
      'upstream_unavailable: localhost does not answer in time',
    )
    await vi.waitFor(() => expect(ended).toHaveBeenCalled())
  })

  it('says that a server hung up in the handshake', async () => {
    const port = await listen(createTcpServer((socket) => socket.destroy()))
    expect(await outcome({ port })).toMatch(/^upstream_unavailable: the TLS handshake was cut off/)
  })

  it('ends when the caller leaves', async () => {
    const port = await listen(createTcpServer(() => {}))
    const controller = new AbortController()
    const pending = outcome({ port, signal: controller.signal })
    setImmediate(() => controller.abort())
    expect(await pending).toContain('canceled')
    expect(await outcome({ port, signal: controller.signal })).toContain('canceled')
  })
})

describe('the place of an origin', () => {
  it.each([
    ['https://orders.example.org', 'orders.example.org', 443],
    ['https://orders.example.org:8443', 'orders.example.org', 8443],
    ['http://localhost', 'localhost', 80],
    ['https://[2001:db8::1]:8443', '2001:db8::1', 8443],
  ])('of %s is %s and %d', (origin, host, port) => {
    expect(placeOf(origin)).toEqual({ host, port })
  })
})
