/**
 * A gateway that ends TLS and sends requests on: one that breaks the binding on the way, or, mended, one that passes
 * both headers as they came.
 */
import { createServer, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { checkProof, type Proved } from '../support/resource-server.ts'
import type { TestCa } from '../support/tls.ts'

export interface Gateway extends AsyncDisposable {
  readonly origin: string
  /** From now on passes `Authorization` and `DPoP` as they came, to a service that checks both. */
  mend(): void
}

export async function startGateway(ca: TestCa, carelessPort: number): Promise<Gateway> {
  let isMended = false
  const behind = await startBehind(ca, () => origin)
  const server = createServer(ca.serverFiles(), (incoming, outgoing) => {
    const { authorization = '', ...others } = incoming.headers
    const { dpop, ...rest } = others
    const broken = { ...rest, authorization: authorization.replace(/^DPoP /, 'Bearer ') }
    const headers = isMended ? incoming.headers : broken
    const port = isMended ? behind.port : carelessPort
    const { url: path, method } = incoming
    request({ host: 'localhost', port, path, method, headers, ca: ca.pem, agent: false }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
      .on('error', () => outgoing.destroy())
      .end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const origin = `https://localhost:${(server.address() as AddressInfo).port}`
  return {
    origin,
    mend: () => {
      isMended = true
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await behind[Symbol.asyncDispose]()
    },
  }
}

/** The careful service: proofs are for the public place, that of the gateway. */
async function startBehind(ca: TestCa, origin: () => string) {
  const seen = new Set<string>()
  const server = createServer(
    ca.serverFiles(),
    async ({ headers, method = '', url = '', rawHeaders }, response) => {
      const proofs = rawHeaders.filter(
        (_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === 'dpop',
      )
      const place = `${origin()}${url.split('?')[0]}`
      const authorization = [headers.authorization ?? '']
      const shown = { authorization, proofs, method, place, nonce: undefined }
      const proved: Proved | Error = await checkProof(shown, seen).catch((error: Error) => error)
      const refused = proved instanceof Error
      const error = refused ? proved.message : ''
      response.writeHead(
        refused ? 401 : 200,
        refused ? { 'WWW-Authenticate': `DPoP error="${error}", algs="ES256"` } : {},
      )
      response.end()
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
