/**
 * The process beyond the agent: a real authorization server, and a resource server over TLS that checks token and proof
 * of each request. One process, so that neither side of a comparison has it in its own.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { PublicJwk } from '../../src/spiffe/jwk.ts'
import { startIssuer } from '../support/issuer.ts'
import { checkProof } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { BIG, type FromUpstream, RESOURCES, type ToUpstream } from './upstreams.ts'

const CHUNK = Buffer.alloc(64 * 1024, 'x')
const TTL = 300
// Whoever measures repeats no proof; the memory of them must not be what is measured.
const SEEN_LIMIT = 100_000

const tell = (news: FromUpstream) => process.send?.(news)
const seen = new Set<string>()

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [path = ''] = (request.url ?? '').split('?')
  try {
    const { authorization = '', host = '' } = request.headers
    const proofs = [request.headers['dpop']].flat().map(String)
    if (seen.size > SEEN_LIMIT) seen.clear()
    const shown = { authorization: [authorization], proofs, method: request.method ?? '', nonce: undefined }
    await checkProof({ ...shown, place: `https://${host}${path}` }, seen)
  } catch (error) {
    response.writeHead(401).end(String(error))
    return
  }
  if (path === '/v1/source') source(response)
  else if (path === '/v1/hold') hold(request, response)
  else {
    let received = 0
    request.on('data', (chunk: Buffer) => {
      received += chunk.length
    })
    request.on('end', () => response.end(JSON.stringify({ received })))
  }
}

/** As many bytes as BIG, no faster than they are taken. */
function source(response: ServerResponse): void {
  let left = BIG
  const go = () => {
    while (left > 0) {
      const chunk = CHUNK.subarray(0, Math.min(left, CHUNK.length))
      left -= chunk.length
      if (!response.write(chunk)) return
    }
    response.off('drain', go)
    response.end()
  }
  response.on('drain', go)
  response.writeHead(200, { 'Content-Length': BIG })
  go()
}

/** An answer that goes on until its connection ends. */
function hold(request: IncomingMessage, response: ServerResponse): void {
  request.socket.once('close', () => tell({ closed: String(process.hrtime.bigint()) }))
  response.writeHead(200).write('x')
}

async function start(jwk: PublicJwk & { readonly kid: string }): Promise<void> {
  const ca = makeTestCa()
  const resources = RESOURCES.map((resource) => [resource, { scopes: ['orders'], ttlSeconds: TTL }] as const)
  const issuer = await startIssuer({
    ca,
    clients: [{ clientId: 'shop', jwks: [jwk], scopes: ['orders'] }],
    resources: Object.fromEntries(resources),
  })
  const server = createServer(ca.serverFiles())
  server.on('request', (request, response) => void serve(request, response))
  await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }, resolve))
  process.on('message', (wish: ToUpstream) => {
    if (wish !== 'count') return
    const answered = issuer.requests.filter(({ path }) => path === '/token')
    const issued = answered.filter(({ status }) => status === 200).length
    tell({ issued, refused: answered.length - issued })
  })
  tell({ issuer: issuer.issuer, port: (server.address() as AddressInfo).port, ca: ca.pem })
}

process.once('message', (jwk: PublicJwk & { readonly kid: string }) => void start(jwk))
process.once('disconnect', () => process.exit())
