/** Bodies of signed requests behind real servers: compared before the application gets them, and then read like any other. */
import { once } from 'node:events'
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  request as send,
} from 'node:http'
import { connect, createServer as createHttp2Server } from 'node:http2'
import type { AddressInfo } from 'node:net'
import express from 'express'
import Fastify from 'fastify'
import { describe, expect, it } from 'vitest'
import type { RequestVerifier } from '../../src/verify/create.ts'
import type { LocalOptions } from '../../src/verify/options.ts'
import { openSignedCaller } from '../support/signed-caller.ts'

type Close = () => Promise<unknown>

/** A server whose application answers with the body that it got. */
interface Way {
  readonly name: string
  readonly isHttp2?: boolean
  open(verifier: RequestVerifier): Promise<{ readonly port: number; readonly close: Close }>
}

const bodyOf = async (request: AsyncIterable<Buffer>) => {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(part)
  return Buffer.concat(parts).toString()
}

const byNode = (verifier: RequestVerifier) => async (request: IncomingMessage, response: ServerResponse) => {
  const outcome = await verifier.node(request)
  if (outcome.verified) return response.end(await bodyOf(request))
  return response.writeHead(outcome.challenge.status, outcome.challenge.headers).end()
}

const parsed = (request: object) => JSON.stringify((request as { body?: unknown }).body)

const WAYS: readonly Way[] = [
  { name: 'node', open: (verifier) => listening(createServer(byNode(verifier))) },
  {
    name: 'express with express.json()',
    open: (verifier) => {
      const app = express()
      app.use(verifier.express(), express.json(), (request: IncomingMessage, response: ServerResponse) =>
        response.end(parsed(request)),
      )
      return listening(createServer(app))
    },
  },
  {
    name: 'express with express.raw()',
    open: (verifier) => {
      const app = express()
      const raw = express.raw({ type: '*/*' })
      app.use(verifier.express(), raw, (request: IncomingMessage, response: ServerResponse) => {
        const { body } = request as unknown as { body: unknown }
        response.end(Buffer.isBuffer(body) ? body : '')
      })
      return listening(createServer(app))
    },
  },
  {
    name: 'fastify',
    open: async (verifier) => {
      const app = Fastify()
      await app.register(verifier.fastify())
      app.post('/x', (request, reply) => reply.send(parsed(request)))
      await app.listen({ host: '127.0.0.1', port: 0 })
      return { port: (app.server.address() as AddressInfo).port, close: () => app.close() }
    },
  },
  {
    name: 'http2',
    isHttp2: true,
    open: (verifier) => {
      const server = createHttp2Server((request, response) =>
        byNode(verifier)(request as unknown as IncomingMessage, response as unknown as ServerResponse),
      )
      return listening(server as unknown as Server)
    },
  },
]

async function listening(server: Server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = () => {
    server.closeAllConnections?.()
    return new Promise((resolve) => server.close(resolve))
  }
  return { port: (server.address() as AddressInfo).port, close }
}

type Headers = readonly (readonly [string, string])[]
interface Answer {
  readonly status: number
  readonly body: string
}

/** Sends `parts` one after the other, each when the server has had time to see the one before. */
async function post(
  port: number,
  headers: Headers,
  parts: readonly Buffer[],
  length?: number,
): Promise<Answer> {
  const fields = Object.fromEntries(headers)
  const size = length === undefined ? {} : { 'content-length': length }
  const asked = send({
    port,
    host: '127.0.0.1',
    method: 'POST',
    path: '/x?a=1',
    headers: { ...fields, ...size },
  })
  asked.on('error', () => {})
  asked.flushHeaders()
  const answered = once(asked, 'response')
  for (const part of parts) {
    await new Promise((resolve) => setImmediate(resolve))
    asked.write(part)
  }
  asked.end()
  const [response] = (await answered) as [IncomingMessage]
  return { status: response.statusCode ?? 0, body: await bodyOf(response) }
}

async function post2(port: number, headers: Headers, parts: readonly Buffer[]): Promise<Answer> {
  const session = connect(`http://127.0.0.1:${port}`)
  const fields = Object.fromEntries(headers.map(([name, value]) => [name.toLowerCase(), value]))
  const stream = session.request({ ':method': 'POST', ':path': '/x?a=1', ...fields })
  stream.on('error', () => {})
  for (const part of parts) {
    await new Promise((resolve) => setImmediate(resolve))
    stream.write(part)
  }
  stream.end()
  const [head] = (await once(stream, 'response')) as [{ ':status'?: number }]
  const body = await bodyOf(stream)
  session.close()
  return { status: Number(head[':status']), body }
}

const cut = (body: Buffer, size: number) =>
  Array.from({ length: Math.ceil(body.length / size) }, (_, at) => body.subarray(at * size, (at + 1) * size))

describe.each(WAYS.map((way) => [way.name, way] as const))('by %s', (_name, way) => {
  interface Sent {
    readonly body: Buffer
    readonly signed?: Buffer | undefined
    readonly size?: number
    readonly isChunked?: boolean
    readonly options?: Partial<LocalOptions>
  }

  async function ask({ body, size = 8_000, isChunked = false, options, ...more }: Sent) {
    const caller = await openSignedCaller(options)
    const { port, close } = await way.open(caller.verifier)
    try {
      const headers = caller.headers('signed' in more ? more.signed : body)
      const parts = cut(body, size)
      const answer = way.isHttp2
        ? await post2(port, headers, parts)
        : await post(port, headers, parts, isChunked ? undefined : body.length)
      return { ...answer, heard: caller.heard }
    } finally {
      await close()
    }
  }

  const text = (length: number) => Buffer.from(JSON.stringify({ text: 'é'.repeat(length) }))

  it.each([
    ['small', text(3), 8_000, false],
    ['of many parts', text(20_000), 999, false],
    ['over the mark where node stops reading', text(40_000), 80_010, false],
    ['of chunks', text(1_000), 500, true],
    ['of one chunk', text(10), 8_000, true],
  ])('a body %s is what was sent', async (_what, body, size, isChunked) => {
    const { status, body: got, heard } = await ask({ body, size, isChunked })
    expect([status, heard]).toEqual([200, []])
    expect(got).toBe(body.toString())
  })

  it.each([
    ['another body', { body: text(3), signed: text(4) }, 400, 'digest_mismatch'],
    ['another body of chunks', { body: text(3), signed: text(4), isChunked: true }, 400, 'digest_mismatch'],
    ['a body that nothing signs', { body: text(3), signed: undefined }, 400, 'proof_coverage'],
    [
      'a longer body than is read',
      { body: text(30_000), isChunked: true, options: { bodyLimit: 50_000 } },
      413,
      'body_too_large',
    ],
  ])('%s is refused', async (_what, sent, status, reason) => {
    const answer = await ask(sent)
    expect([answer.status, answer.heard, answer.body]).toEqual([status, [reason], ''])
  })

  it('is up to an application that compares itself', async () => {
    const { status, heard } = await ask({ body: text(3), signed: text(4), options: { bodyLimit: 0 } })
    expect([status, heard]).toEqual([200, []])
  })
})

it('a body that was read before the verifier came to it is refused, and the application hears why', async () => {
  const caller = await openSignedCaller()
  const app = express()
  app.use(express.json(), caller.verifier.express(), (_request: IncomingMessage, response: ServerResponse) =>
    response.end('in'),
  )
  const { port, close } = await listening(createServer(app))
  const body = Buffer.from('{"a":1}')
  const answer = await post(port, caller.headers(body), [body], body.length)
  await close()
  expect([answer, caller.heard]).toEqual([{ status: 500, body: '' }, ['bug']])
})
