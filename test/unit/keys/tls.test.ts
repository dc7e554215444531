import { X509Certificate } from 'node:crypto'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { describe, expect, it, vi } from 'vitest'
import { makeTlsContext } from '../../../src/keys/tls.ts'
import { makeTestCa } from '../../support/tls.ts'

const { createSecureContext } = vi.hoisted(() => ({ createSecureContext: vi.fn() }))
vi.mock('node:tls', async (original) => {
  const tls = await original<typeof import('node:tls')>()
  createSecureContext.mockImplementation(tls.createSecureContext)
  return { ...tls, createSecureContext }
})

describe('a key in a TLS context', () => {
  it('shows the certificate that was made for it, and proves that it holds the key', async () => {
    const ca = makeTestCa()
    const context = makeTlsContext((spki) => [ca.certify(spki, { dns: 'client' })], {
      ca: ca.pem,
      minVersion: 'TLSv1.2',
    })
    const server = createServer({ ...ca.serverFiles(), requestCert: true, ca: ca.pem })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const seen = new Promise<TLSSocket>((resolve) => server.once('secureConnection', resolve))
    const port = typeof address === 'object' && address ? address.port : 0
    const socket = connect({ port, host: 'localhost', secureContext: context })
    socket.on('error', () => {})
    const peer = await seen
    expect(peer.authorized).toBe(true)
    expect(new X509Certificate(peer.getPeerCertificate().raw).subjectAltName).toBe('DNS:client')
    socket.destroy()
    server.close()
  })

  it('leaves no key text behind, also when the certificate cannot be made', () => {
    const ca = makeTestCa()
    createSecureContext.mockClear()
    makeTlsContext((spki) => [ca.certify(spki, { dns: 'client' })], {})
    const [[{ key } = { key: undefined }] = []] = createSecureContext.mock.calls as { key: Buffer }[][]
    expect(key).toEqual(Buffer.alloc(key?.length ?? 0))
    expect(key?.length).toBeGreaterThan(200)
    const refuse = () => {
      throw new Error('no')
    }
    expect(() => makeTlsContext(refuse, {})).toThrow('no')
  })
})
