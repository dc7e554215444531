/** A TLS connection to a server of the cluster, verified before its first byte: by a CA, by its very certificate, or not. */
import { timingSafeEqual, X509Certificate } from 'node:crypto'
import { connect as connectPlain, type Socket } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import { certificateBlocks } from '../base/pem.ts'

/**
 * `cluster-ca`: the chain and the name or address, by the roots in `file`. `pinned`: the certificate is one of those in
 * `file`, whatever it says. `skip`: whoever answers is believed. `plain`: the same without TLS, as on the read-only
 * port of old kubelets.
 */
export type Verification =
  | { readonly kind: 'cluster-ca' | 'pinned'; readonly file: string }
  | { readonly kind: 'skip' | 'plain' }

export interface ClusterPlace {
  readonly host: string
  readonly port: number
  readonly kind: Verification['kind']
  /** The certificates (PEM) that decide; empty where nobody is verified. */
  readonly trusted: string
}

/** The connection; rejects when it fails or the certificate is not the server's. */
export function dial(place: ClusterPlace): Promise<Socket> {
  const { host, port, kind, trusted } = place
  if (kind === 'plain') return connected(connectPlain({ host, port }))
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port,
      ALPNProtocols: ['http/1.1'],
      minVersion: 'TLSv1.2',
      rejectUnauthorized: kind === 'cluster-ca',
      ...(kind === 'cluster-ca' ? { ca: trusted } : {}),
    })
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('the connection was closed during the handshake')))
    socket.once('secureConnect', () => {
      if (kind === 'pinned' && !isPinned(socket, trusted)) {
        socket.destroy()
        reject(new Error('its certificate is not the pinned one'))
        return
      }
      socket.off('error', reject)
      resolve(socket)
    })
  })
}

function connected(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
  })
}

function isPinned(socket: TLSSocket, trusted: string): boolean {
  const seen = socket.getPeerX509Certificate()?.raw
  if (!seen) return false
  return certificateBlocks(trusted).some((pem) => {
    const { raw } = new X509Certificate(pem)
    return raw.length === seen.length && timingSafeEqual(raw, seen)
  })
}
