/** The middleware in real servers over TLS on loopback, one for each shape it comes in. */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createSecureServer } from 'node:http2'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { type ConnectionOptions, connect, type TLSSocket, type TlsOptions } from 'node:tls'
import express from 'express'
import Fastify from 'fastify'
import type { RequestVerifier } from '../../src/verify/create.ts'
import type { VerifiedRequest } from '../../src/verify/outcome.ts'
import { makeTestCa, type TestCa } from './tls.ts'

/** What the application behind the middleware answers with, so that tests see what it saw. */
export interface Seen {
  readonly verified: VerifiedRequest
  /** Names of the headers that it finds, in every view it has. */
  readonly names: readonly string[]
}

export interface Way {
  readonly name: string
  open(verifier: RequestVerifier, tls: TlsOptions): Promise<RunningServer>
}

export interface RunningServer extends AsyncDisposable {
  readonly port: number
}

export const ca: TestCa = makeTestCa()
const files = ca.serverFiles()

export const WAYS: readonly Way[] = [
  {
    name: 'node',
    open: (verifier, tls) => listening(createServer(tlsOf(tls), nodeHandler(verifier))),
  },
  {
    name: 'express',
    open: (verifier, tls) => {
      const app = express()
      app.use(verifier.express())
      app.use((request: IncomingMessage, response: ServerResponse) =>
        answer(response, seenBy(request, verifiedIn(request))),
      )
      return listening(createServer(tlsOf(tls), app))
    },
  },
  {
    name: 'a router of express',
    open: (verifier, tls) => {
      const router = express.Router()
      router.use(verifier.express())
      router.use((request: IncomingMessage, response: ServerResponse) =>
        answer(response, seenBy(request, verifiedIn(request))),
      )
      const app = express()
      app.use('/v1', router)
      app.use((request: IncomingMessage, response: ServerResponse) => {
        // What no router takes is for nobody: the middleware has not seen it.
        response.statusCode = request.url === undefined ? 500 : 404
        response.end()
      })
      return listening(createServer(tlsOf(tls), app))
    },
  },
  { name: 'fastify', open: openFastify },
  {
    name: 'fetch',
    open: (verifier, tls) => listening(createServer(tlsOf(tls), fetchListener(verifier))),
  },
]

export const HTTP2_WAY: Way = {
  name: 'http2',
  open: (verifier, tls) => {
    const server = createSecureServer({ ...tlsOf(tls), allowHTTP1: false })
    server.on('request', (request, response) => {
      const [plain, out] = [request as unknown as IncomingMessage, response as unknown as ServerResponse]
      void nodeHandler(verifier)(plain, out)
    })
    return listening(server as unknown as Server)
  },
}

const tlsOf = (tls: TlsOptions): TlsOptions => ({ ...files, ...tls })

function nodeHandler(verifier: RequestVerifier) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const outcome = await verifier.node(request)
    if (!outcome.verified) {
      response.writeHead(outcome.challenge.status, outcome.challenge.headers).end()
      return
    }
    for (const [name, value] of Object.entries(outcome.headers)) response.setHeader(name, value)
    answer(response, seenBy(request, outcome.verified))
  }
}

async function openFastify(verifier: RequestVerifier, tls: TlsOptions): Promise<RunningServer> {
  const app = Fastify({ https: tlsOf(tls) })
  await app.register(verifier.fastify())
  app.all('/*', (request, reply) => {
    void reply.send(seenBy(request.raw, verifiedIn(request)))
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  return {
    port: (app.server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () => app.close(),
  }
}

/** As the adapters of fetch-style frameworks do it: Headers joins the lines of a name. */
function fetchListener(verifier: RequestVerifier) {
  const handle = verifier.fetchHandler((request, verified) =>
    Response.json({ verified, names: [...request.headers.keys()] } satisfies Seen),
  )
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const headers = new Headers()
    for (let at = 0; at < request.rawHeaders.length; at += 2)
      headers.append(request.rawHeaders[at] ?? '', request.rawHeaders[at + 1] ?? '')
    const { method = 'GET', url = '/' } = request
    const answered = await handle(
      new Request(`https://localhost${url}`, { method, headers }),
      factsOf(request),
    )
    response.writeHead(answered.status, Object.fromEntries(answered.headers)).end(await answered.text())
  }
}

function factsOf({ socket }: IncomingMessage) {
  const { raw } = (socket as TLSSocket).authorized
    ? (socket as TLSSocket).getPeerCertificate()
    : { raw: undefined }
  const address = socket.remoteAddress
  return { ...(raw ? { chain: [raw] } : {}), ...(address === undefined ? {} : { address }) }
}

function verifiedIn(request: object): VerifiedRequest {
  const { holdfast } = request as { readonly holdfast?: VerifiedRequest }
  if (!holdfast) throw new Error('the application got a request that was not verified')
  return holdfast
}

function seenBy(
  { headers, headersDistinct = {}, rawHeaders }: IncomingMessage,
  verified: VerifiedRequest,
): Seen {
  const raw = rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase())
  return { verified, names: [...new Set([...raw, ...Object.keys(headers), ...Object.keys(headersDistinct)])] }
}

function answer(response: ServerResponse, seen: Seen): void {
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(seen))
}

async function listening(server: Server): Promise<RunningServer> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      if ('closeAllConnections' in server) server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

export interface WireAnswer {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

/** Sends a request line and header lines as they are, over TLS, and reads the answer to its end. */
export async function sendRaw(
  port: number,
  request: { readonly method: string; readonly path: string; readonly headers: readonly string[] },
  tls: ConnectionOptions = {},
): Promise<WireAnswer> {
  const lines = request.headers.flatMap((name, at) =>
    at % 2 === 0 ? [`${name}: ${request.headers[at + 1]}`] : [],
  )
  const head = [`${request.method} ${request.path} HTTP/1.1`, ...lines, 'Connection: close', '', '']
  const socket = connect({ host: '127.0.0.1', port, servername: 'localhost', ca: ca.pem, ...tls })
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  await once(socket, 'secureConnect')
  socket.write(head.join('\r\n'))
  await once(socket, 'close')
  return parseAnswer(Buffer.concat(chunks).toString('latin1'))
}

function parseAnswer(text: string): WireAnswer {
  const end = text.indexOf('\r\n\r\n')
  const [line = '', ...rest] = text.slice(0, end).split('\r\n')
  const headers = new Map(
    rest.map((header) => {
      const at = header.indexOf(':')
      return [header.slice(0, at).toLowerCase(), header.slice(at + 1).trim()] as const
    }),
  )
  const raw = text.slice(end + 4)
  const body = headers.get('transfer-encoding') === 'chunked' ? dechunked(raw) : raw
  return { status: Number(line.split(' ')[1]), headers, body }
}

function dechunked(text: string): string {
  const at = text.indexOf('\r\n')
  const size = Number.parseInt(text.slice(0, at), 16)
  return size > 0 ? text.slice(at + 2, at + 2 + size) + dechunked(text.slice(at + 4 + size)) : ''
}
