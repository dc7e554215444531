/** holdfastFetch against the real egress door: what an application sees of it. */

import { mkdtempSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createHoldfastFetch, Fault, holdfastFetch } from '../../src/client/index.ts'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const ca = makeTestCa()
const waiting = new Set<ServerResponse>()
let server: ResourceServer
let egress: TestEgress
let api: typeof fetch

const echo = (request: IncomingMessage, response: ServerResponse) => {
  const { 'content-length': length, 'content-type': type } = request.headers
  response.writeHead(200, {
    'x-length': length ?? 'none',
    'x-type': type ?? 'none',
    'x-method': request.method,
  })
  request.pipe(response)
}

beforeAll(async () => {
  server = await startResourceServer({
    ca,
    handlers: {
      '/mirror': echo,
      '/empty': (_request, response) => response.writeHead(204).end(),
      '/missing': (_request, response) => response.writeHead(404, { 'Set-Cookie': ['a=1', 'b=2'] }).end('no'),
      '/moved': (_request, response) => response.writeHead(302, { Location: '/echo' }).end(),
      '/events': (_request, response) => {
        response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write('data: 1\n\n')
        waiting.add(response)
        response.on('close', () => waiting.delete(response))
      },
      '/cut': (_request, response) => {
        response.writeHead(200, { 'Content-Length': '100' }).write('half')
        setTimeout(() => response.destroy(), 20)
      },
    },
  })
  const origin = `https://localhost:${server.port}`
  egress = await startEgress({
    ca,
    users: { web: process.getuid?.() ?? 0, batch: process.getuid?.() ?? 0 },
    targets: { orders: { origin }, narrow: { origin, paths: '["/v1/**"]' } },
  })
  api = createHoldfastFetch({ socket: egress.socket })
})

afterAll(async () => {
  await egress?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

async function faultOf(call: Promise<unknown>): Promise<Fault> {
  const caught = await call.then(
    () => new Error('it did not fail'),
    (error: unknown) => error,
  )
  if (caught instanceof Fault) return caught
  throw caught
}

describe('holdfastFetch', () => {
  it('reaches a target with a token and a proof that the application never sees', async () => {
    const response = await api('http://orders/echo?q=1')
    expect(response).toBeInstanceOf(Response)
    expect([response.status, response.ok, response.url]).toEqual([200, true, 'http://orders/echo?q=1'])
    expect(((await response.json()) as { sub: string }).sub).toBe('spiffe://example.org/web')
    expect([response.headers.get('authorization'), response.headers.get('dpop')]).toEqual([null, null])
    expect(server.refused).toEqual([])
  })

  it('takes every kind of body, with its length and type where they are known', async () => {
    const sent = async (body: NonNullable<RequestInit['body']>) => {
      const response = await api('http://orders/mirror', { method: 'POST', body })
      return [
        response.headers.get('x-length'),
        response.headers.get('x-type')?.split(/[;]/)[0],
        await response.text(),
      ]
    }
    expect(await sent('zwölf')).toEqual(['6', 'text/plain', 'zwölf'])
    expect(await sent(new Uint8Array([65, 66]))).toEqual(['2', 'none', 'AB'])
    expect(await sent(new URLSearchParams({ a: 'b c' }))).toEqual([
      '5',
      'application/x-www-form-urlencoded',
      'a=b+c',
    ])
    expect(await sent(new Blob(['xyz'], { type: 'text/css' }))).toEqual(['3', 'text/css', 'xyz'])
    const form = new FormData()
    form.set('name', 'value')
    expect((await sent(form)).slice(0, 2)).toEqual(['none', 'multipart/form-data'])
  })

  it('takes a Request, and what init says over it', async () => {
    const response = await api(new Request('http://orders/mirror', { method: 'PUT', body: 'old' }), {
      method: 'PATCH',
    })
    expect([response.headers.get('x-method'), await response.text()]).toEqual(['PATCH', 'old'])
  })

  it('streams both ways: each chunk comes back before the next is sent', async () => {
    let push = (_text: string) => {}
    let end = () => {}
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        push = (text) => controller.enqueue(Buffer.from(text))
        end = () => controller.close()
      },
    })
    push('0')
    const response = await api('http://orders/mirror', { method: 'POST', body })
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    expect((await reader?.read())?.value).toBe('0')
    push('1')
    expect((await reader?.read())?.value).toBe('1')
    end()
    expect((await reader?.read())?.done).toBe(true)
  })

  it("resolves with the target's own errors, and with its redirects", async () => {
    const missing = await api('http://orders/missing')
    expect([missing.status, await missing.text(), missing.headers.getSetCookie()]).toEqual([
      404,
      'no',
      ['a=1', 'b=2'],
    ])
    const moved = await api('http://orders/moved')
    expect([moved.status, moved.headers.get('location')]).toEqual([302, '/echo'])
    const empty = await api('http://orders/empty')
    expect([empty.status, empty.body]).toEqual([204, null])
    expect((await api('http://orders/echo', { method: 'HEAD' })).body).toBeNull()
  })

  it.each([
    ['http://nobody/', 'target_unknown', 'platform'],
    ['http://narrow/v2', 'policy_denied', 'application'],
  ])('rejects for %s with the refusal of the agent', async (url, reason, owner) => {
    const fault = await faultOf(api(url))
    expect([fault.reason, fault.owner]).toEqual([reason, owner])
    expect(fault.action).not.toBe('')
  })

  it.each(['https://orders/', 'http://orders:8080/', 'http://me@orders/', 'file:///etc/passwd'])(
    'refuses %s before anything is sent',
    async (url) => {
      const before = egress.records().length
      await expect(api(url)).rejects.toThrow()
      expect(egress.records()).toHaveLength(before)
    },
  )

  it('asks as the identity it was made for, and only as its own', async () => {
    const as = (name: string) =>
      createHoldfastFetch({ socket: egress.socket, spiffeId: `spiffe://example.org/${name}` })
    const response = await as('batch')('http://orders/echo')
    expect(((await response.json()) as { sub: string }).sub).toBe('spiffe://example.org/batch')
    expect((await faultOf(as('foreign')('http://orders/echo'))).reason).toBe('no_identity')
  })

  it('sends a subject that the agent does not know nowhere', async () => {
    const asked = createHoldfastFetch({ socket: egress.socket, subject: 'a'.repeat(43) })(
      'http://orders/echo',
    )
    expect((await faultOf(asked)).owner).toBe('caller')
  })

  it('ends with its signal: before, while it waits, and while it reads', async () => {
    const reason = new Error('enough')
    await expect(api('http://orders/echo', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const controller = new AbortController()
    const response = await api('http://orders/events', { signal: controller.signal })
    const reader = response.body?.getReader()
    await reader?.read()
    controller.abort(reason)
    await expect(reader?.read()).rejects.toBe(reason)
    await until('the target to hear of it', () => waiting.size === 0)
  })

  it('gives an answer up when its reader cancels', async () => {
    const response = await api('http://orders/events')
    await until('the answer to be open', () => waiting.size === 1)
    await response.body?.cancel()
    await until('the target to hear of it', () => waiting.size === 0, 5_000)
  })

  it('fails in the middle of an answer that is cut off', async () => {
    const response = await api('http://orders/cut')
    await expect(response.text()).rejects.toThrow()
  })

  it('says so when no agent answers', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'holdfast-fetch-'))
    const absent = createHoldfastFetch({ socket: join(dir, 'egress.sock') })
    expect((await faultOf(absent('http://orders/'))).reason).toBe('agent_unreachable')
    const mute: Server = createServer((socket) => socket.destroy())
    await new Promise<void>((resolve) => mute.listen(join(dir, 'mute.sock'), resolve))
    const muted = createHoldfastFetch({ socket: `unix://${join(dir, 'mute.sock')}` })
    expect((await faultOf(muted('http://orders/'))).reason).toBe('agent_unreachable')
    mute.close()
    rmSync(dir, { recursive: true })
  })

  it('finds the socket that the environment names', async () => {
    process.env['HOLDFAST_EGRESS_SOCKET'] = `unix://${egress.socket}`
    const response = await holdfastFetch('http://orders/echo')
    delete process.env['HOLDFAST_EGRESS_SOCKET']
    expect(response.status).toBe(200)
  })
})
