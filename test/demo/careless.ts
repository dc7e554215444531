/**
 * A resource server that takes bearer tokens: it checks signature, issuer, audience and expiry, and not who sends. What
 * most servers do today.
 */
import { createServer, get } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from 'jose'
import type { TestCa } from '../support/tls.ts'

export interface CarelessOptions {
  readonly ca: TestCa
  readonly issuer: string
  readonly audience: string
}

export interface CarelessServer extends AsyncDisposable {
  readonly port: number
}

export async function startCareless({ ca, issuer, audience }: CarelessOptions): Promise<CarelessServer> {
  const keys = createLocalJWKSet(await keySetOf(issuer, ca))
  const server = createServer(ca.serverFiles(), async (request, response) => {
    const [scheme, token = ''] = (request.headers.authorization ?? '').split(' ')
    const isGood = await jwtVerify(token, keys, { issuer, audience }).then(
      () => scheme === 'Bearer',
      () => false,
    )
    response.writeHead(
      isGood ? 200 : 401,
      isGood ? {} : { 'WWW-Authenticate': 'Bearer error="invalid_token"' },
    )
    response.end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The issuer's public keys (RFC 7517). */
function keySetOf(issuer: string, ca: TestCa): Promise<JSONWebKeySet> {
  return new Promise((resolve, reject) => {
    get(`${issuer}/jwks`, { ca: ca.pem }, async (response) => {
      const chunks: Buffer[] = []
      for await (const chunk of response) chunks.push(chunk as Buffer)
      resolve(JSON.parse(Buffer.concat(chunks).toString('utf8')) as JSONWebKeySet)
    }).on('error', reject)
  })
}
