/** A request as an application's server received it, on raw headers: one header joined of two is two. */
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { DetailedPeerCertificate, TLSSocket } from 'node:tls'
import { Fault } from '../base/fault.ts'
import type { RawHeaders } from '../ingress/inbound.ts'
import type { AskedPeer } from '../ingress/question.ts'

export interface Received {
  readonly method: string
  /** As it arrived, without query. */
  readonly path: string
  /** Empty, or `?` and what follows it: signatures cover it. */
  readonly query: string
  readonly headers: RawHeaders
  readonly peer: AskedPeer
}

/** What the host of a fetch-style handler knows of the connection; nothing is taken from headers instead. */
export interface PeerFacts {
  /** The client's certificate and its intermediates in DER, leaf first, when the handshake verified them. */
  readonly chain?: readonly Uint8Array[]
  readonly address?: string
  /** Names and values in turn, as received: without them two lines of a kind are known by their comma alone. */
  readonly rawHeaders?: readonly string[]
}

const TARGET_LIMIT = 8_192
const CHAIN_LIMIT = 8
/** Never a list: with a comma, two lines were joined. */
const SINGLE: ReadonlySet<string> = new Set([
  'authorization',
  'dpop',
  'workload-identity-token',
  'workload-proof-token',
  'txn-token',
  'client-cert',
  'x-forwarded-client-cert',
])

/** `target` is the one that arrived: frameworks rewrite `url`. Throws invalid_request for one that is not a path. */
export function receivedByNode(
  { method = '', rawHeaders, socket }: IncomingMessage,
  target: string,
): Received {
  const { path, query } = splitTarget(target)
  const peer = { chain: chainOf(socket), address: socket.remoteAddress }
  return { method, path, query, headers: withoutPseudo(rawHeaders), peer }
}

/** The host and the scheme of the URL do not count: the public origins of the route do. */
export function receivedByFetch({ method, url, headers }: Request, facts: PeerFacts): Received {
  const { chain = [], address, rawHeaders } = facts
  const { pathname: path, search: query } = new URL(url)
  return {
    method,
    path,
    query,
    headers: rawHeaders ? withoutPseudo(rawHeaders) : [...headers].flatMap(linesOf),
    peer: { chain: chain.map((der) => Buffer.from(der)), address },
  }
}

function linesOf([name, value]: readonly [string, string]): readonly string[] {
  return SINGLE.has(name) ? value.split(',').flatMap((line) => [name, line.trim()]) : [name, value]
}

/** Origin form only: an absolute target would name a second host (RFC 9112 s.3.2). */
function splitTarget(target: string): Pick<Received, 'path' | 'query'> {
  if (!target.startsWith('/') || target.length > TARGET_LIMIT)
    throw new Fault('invalid_request', 'the request target is not a path, or too long')
  const end = target.indexOf('?')
  return end < 0 ? { path: target, query: '' } : { path: target.slice(0, end), query: target.slice(end) }
}

/** HTTP/2 has its method and path among its headers. */
function withoutPseudo(headers: RawHeaders): RawHeaders {
  if (!headers[0]?.startsWith(':')) return headers
  const pairs = headers.flatMap((name, at) => (at % 2 === 0 ? [[name, headers[at + 1] ?? '']] : []))
  return pairs.filter(([name]) => !name?.startsWith(':')).flat()
}

/** Leaf first; empty when the handshake has verified none. */
function chainOf(socket: Socket): readonly Buffer[] {
  const { authorized, getPeerCertificate } = socket as Partial<TLSSocket>
  if (authorized !== true || !getPeerCertificate) return []
  const chain: Buffer[] = []
  let next: Partial<DetailedPeerCertificate> | undefined = (socket as TLSSocket).getPeerCertificate(true)
  while (next?.raw && chain.length < CHAIN_LIMIT && !chain.at(-1)?.equals(next.raw)) {
    chain.push(next.raw)
    next = next.issuerCertificate
  }
  return chain
}
