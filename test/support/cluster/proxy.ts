/** What `kubectl proxy` is: the API server on a loopback port, for whoever may use the certificate of the operator. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Api } from './api.ts'

export interface Proxy extends AsyncDisposable {
  readonly url: string
}

export async function startProxy(api: Api): Promise<Proxy> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const sent = chunks.length === 0 ? undefined : Buffer.concat(chunks).toString('utf8')
    const { status, body } = await api.call(request.method ?? '', request.url ?? '', sent)
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
