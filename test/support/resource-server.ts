/**
 * A resource server as others run it: TLS on loopback, tokens and DPoP proofs checked by jose, nonces demanded on
 * request, and every byte that came kept. What it answers beyond that is the test's.
 */
import { createHash, randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { calculateJwkThumbprint, decodeJwt, EmbeddedJWK, jwtVerify } from 'jose'
import type { TestCa } from './tls.ts'

/** What a request proved. */
export interface Proved {
  readonly sub: string
  readonly jkt: string
  /** The certificate that the connection showed, where one is demanded. */
  readonly x5t?: string
}

export type Handler = (request: IncomingMessage, response: ServerResponse, proved: Proved) => void

export interface ResourceOptions {
  readonly ca: TestCa
  /** Where it is; `localhost` at 127.0.0.1 when absent. */
  readonly at?: { readonly name: string; readonly address: string }
  /** By path; `/echo` answers with what was proved. */
  readonly handlers?: Readonly<Record<string, Handler>>
  /** Roots of client certificates in PEM: demands one, and tokens that are bound to it (RFC 8705) in place of proofs. */
  readonly clientRoots?: string
  /** Paths of `handlers` that want no token. */
  readonly open?: readonly string[]
  readonly upgrade?: (request: IncomingMessage, socket: Duplex, head: Buffer) => void
}

const NOBODY: Proved = { sub: '', jkt: '' }

/** A running server. */
export interface ResourceServer extends AsyncDisposable {
  readonly port: number
  /** Demands this nonce when set; then refuses every token that a certificate binds. */
  nonce: string | undefined
  /** All that came, decrypted, of all connections. */
  readonly bytes: string
  readonly requests: readonly IncomingMessage[]
  /** Why it refused. */
  readonly refused: readonly string[]
  readonly connections: number
  readonly accepted: number
}

export async function startResourceServer(options: ResourceOptions): Promise<ResourceServer> {
  const chunks: Buffer[] = []
  const requests: IncomingMessage[] = []
  const refused: string[] = []
  const seen = new Set<string>()
  let [open, accepted] = [0, 0]
  const state = { nonce: undefined as string | undefined }
  const { name, address } = options.at ?? { name: 'localhost', address: '127.0.0.1' }
  const server = createServer({
    ...options.ca.serverFiles({ dns: name, ip: address }),
    ALPNProtocols: ['http/1.1'],
    ...(options.clientRoots === undefined
      ? {}
      : { requestCert: true, rejectUnauthorized: true, ca: options.clientRoots }),
  })
  server.on('secureConnection', (socket) => {
    open += 1
    accepted += 1
    socket.on('close', () => {
      open -= 1
    })
    socket.on('error', () => {})
    // Heads and short bodies are what tests look at.
    socket.on('data', (chunk: Buffer) => chunk.length < 8192 && chunks.push(chunk))
  })
  const serve = async (request: IncomingMessage, response: ServerResponse) => {
    requests.push(request)
    const place = `https://${name}:${(server.address() as AddressInfo).port}${request.url?.split('?')[0]}`
    const path = request.url?.split('?')[0] ?? ''
    if (options.open?.includes(path)) return options.handlers?.[path]?.(request, response, NOBODY)
    const checking =
      options.clientRoots === undefined
        ? check(request, place, state.nonce, seen)
        : checkCertificate(request, state.nonce)
    const proved = await checking.catch((error: Error) => error.message)
    if (typeof proved === 'string') {
      refused.push(proved)
      const scheme = options.clientRoots === undefined ? 'DPoP algs="ES256",' : 'Bearer'
      const challenge = `${scheme} error="${proved}"`
      response.writeHead(401, {
        'WWW-Authenticate': challenge,
        ...(state.nonce ? { 'DPoP-Nonce': state.nonce } : {}),
      })
      return response.end('{}')
    }
    if (request.headers.expect) response.writeContinue()
    const handler = options.handlers?.[path]
    if (handler) return handler(request, response, proved)
    request.resume()
    return response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(proved))
  }
  server.on('request', (request, response) => void serve(request, response))
  server.on('checkContinue', (request, response) => void serve(request, response))
  if (options.upgrade) server.on('upgrade', options.upgrade)
  await new Promise<void>((resolve) => server.listen(0, address, resolve))
  return {
    port: (server.address() as AddressInfo).port,
    get nonce() {
      return state.nonce
    },
    set nonce(nonce) {
      state.nonce = nonce
    },
    get bytes() {
      return Buffer.concat(chunks).toString('latin1')
    },
    requests,
    refused,
    get connections() {
      return open
    },
    get accepted() {
      return accepted
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function check(
  request: IncomingMessage,
  place: string,
  nonce: string | undefined,
  seen: Set<string>,
): Promise<Proved> {
  const lines = (name: string) =>
    request.rawHeaders.filter(
      (_text, at) => at % 2 === 1 && request.rawHeaders[at - 1]?.toLowerCase() === name,
    )
  const [authorization, proofs] = [lines('authorization'), lines('dpop')]
  return checkProof({ authorization, proofs, method: request.method ?? '', place, nonce }, seen)
}

/** What a request shows, and what it has to be for. */
export interface Shown {
  readonly authorization: readonly string[]
  readonly proofs: readonly string[]
  readonly method: string
  /** The `htu` that is wanted. */
  readonly place: string
  readonly nonce: string | undefined
}

/** RFC 9449 s.4.3, with the token's own binding; throws an error whose message is the OAuth error. */
export async function checkProof(shown: Shown, seen: Set<string>): Promise<Proved> {
  const { authorization: lines, method, nonce, place } = shown
  const [authorization = '', ...others] = lines
  const [proof = '', ...proofs] = shown.proofs
  if (others.length + proofs.length > 0) throw new Error('invalid_request')
  const [scheme, token = ''] = authorization.split(' ')
  if (scheme !== 'DPoP') throw new Error('invalid_token')
  const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, {
    typ: 'dpop+jwt',
    algorithms: ['ES256'],
    maxTokenAge: '60s',
  }).catch(() => {
    throw new Error('invalid_dpop_proof')
  })
  const ath = createHash('sha256').update(token).digest('base64url')
  const isRight = payload['htm'] === method && payload['htu'] === place && payload['ath'] === ath
  if (!isRight || seen.has(String(payload.jti))) throw new Error('invalid_dpop_proof')
  seen.add(String(payload.jti))
  if (nonce !== undefined && payload['nonce'] !== nonce) throw new Error('use_dpop_nonce')
  const jkt = await calculateJwkThumbprint(protectedHeader.jwk as object)
  const claims = decodeJwt(token)
  if ((claims['cnf'] as { jkt?: string } | undefined)?.jkt !== jkt) throw new Error('invalid_token')
  return { sub: claims.sub ?? '', jkt }
}

/** RFC 8705 s.3: the token names the certificate of the very connection it came over. */
async function checkCertificate(
  { headers, socket }: IncomingMessage,
  nonce: string | undefined,
): Promise<Proved> {
  if (nonce !== undefined) throw new Error('invalid_token')
  const der = (socket as TLSSocket).getPeerX509Certificate()?.raw ?? Buffer.alloc(0)
  const x5t = createHash('sha256').update(der).digest('base64url')
  const [scheme, token = ''] = (headers.authorization ?? '').split(' ')
  if (scheme !== 'Bearer' || headers['dpop'] !== undefined) throw new Error('invalid_token')
  const { sub = '', cnf } = decodeJwt(token)
  if ((cnf as Record<string, string> | undefined)?.['x5t#S256'] !== x5t) throw new Error('invalid_token')
  return { sub, jkt: '', x5t }
}

export const freshNonce = () => `nonce-${randomUUID()}`
