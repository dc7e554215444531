import { X509Certificate } from 'node:crypto'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { describe, expect, it, vi } from 'vitest'
import { makeTlsKey } from '../../../src/keys/tls.ts'
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
    const key = makeTlsKey()
    const chain = [ca.certify(key.spki, { dns: 'client' })]
    const context = key.contextWith(chain, { ca: ca.pem, minVersion: 'TLSv1.2' })
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

  it('leaves no key text behind, also when no context can be made', () => {
    const ca = makeTestCa()
    const key = makeTlsKey()
    for (const chain of [[ca.certify(key.spki, { dns: 'client' })], [Buffer.from('none')]]) {
      createSecureContext.mockClear()
      if (chain[0]?.length === 4) expect(() => key.contextWith(chain, {})).toThrow()
      else key.contextWith(chain, {})
      const [[{ key: text } = { key: undefined }] = []] = createSecureContext.mock.calls as {
        key: Buffer
      }[][]
      expect(text).toEqual(Buffer.alloc(text?.length ?? 0))
      expect(text?.length).toBeGreaterThan(200)
    }
  })
})
