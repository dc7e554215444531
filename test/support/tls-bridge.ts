/** A unix socket that speaks mutual TLS to a TCP port, so that whatever asks on a unix socket asks over TLS. */

import { createPrivateKey } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { pem } from './openssl.ts'
import { first, RawClient } from './raw-client.ts'

/** What a client shows. */
export type Shown = Pick<ConnectionOptions, 'cert' | 'key'>

/** The X.509-SVID of `id`, as the agent at `socket` delivers it to this process. */
export async function shownOf(socket: string, id: string): Promise<Shown> {
  using client = new RawClient(socket)
  const { svids } = await first(client, 'SpiffeWorkloadAPI/FetchX509SVID')
  const svid = svids.find(({ spiffe_id: one }: { spiffe_id: string }) => one === id)
  const key = createPrivateKey({ key: svid.x509_svid_key, format: 'der', type: 'pkcs8' })
  return { cert: pem(svid.x509_svid), key: key.export({ format: 'pem', type: 'pkcs8' }) }
}

/** Connects as `shown`; resolves once the handshake is over, or undefined when the server hung up on it. */
export async function dialTls(
  port: number,
  shown: Shown,
  options: ConnectionOptions = {},
): Promise<TLSSocket | undefined> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...shown, ...options })
  socket.on('error', () => {})
  await Promise.race([once(socket, 'secureConnect'), once(socket, 'close')])
  return socket.destroyed ? undefined : socket
}

export interface TlsBridge extends Disposable {
  readonly socket: string
  /** Connections that the server has ended. */
  readonly ended: number
}

/** HTTP/2 where the client begins with its preface, HTTP/1.1 otherwise. */
export async function openTlsBridge(port: number, shown: Shown): Promise<TlsBridge> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-bridge-'))
  const socket = join(dir, 's')
  const open = new Set<Socket>()
  let ended = 0
  const server = createServer((near) => {
    open.add(near)
    near.on('error', () => near.destroy()).on('close', () => open.delete(near))
    near.once('data', (bytes) => {
      near.pause()
      const alpn = bytes.toString('latin1').startsWith('PRI ') ? 'h2' : 'http/1.1'
      void dialTls(port, shown, { ALPNProtocols: [alpn] }).then((far) => {
        if (!far) return void near.destroy()
        far.on('close', () => {
          ended += 1
          near.destroy()
        })
        far.write(bytes)
        near.pipe(far).pipe(near)
      })
    })
  })
  server.listen(socket)
  await once(server, 'listening')
  return {
    socket,
    get ended() {
      return ended
    },
    [Symbol.dispose]: () => {
      server.close()
      for (const each of open) each.destroy()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
