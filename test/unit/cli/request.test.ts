/** `holdfast request` against a door that answers as a test says, on a real socket. */
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { exitCodeOf } from '../../../src/cli/failure.ts'
import { request } from '../../../src/cli/request.ts'
import { keptIo } from '../../support/io.ts'
import { type JsonAgent, startJsonAgent } from '../../support/json-agent.ts'

interface Seen {
  readonly line: string
  readonly raw: readonly string[]
  readonly body: string
}

let agent: JsonAgent
let door: Server
let seen: Seen[]
let answer: (response: ServerResponse) => void

beforeEach(async () => {
  agent = await startJsonAgent()
  seen = []
  answer = (response) => response.writeHead(200, { 'content-type': 'text/plain' }).end('two apples')
  door = createServer(async (incoming: IncomingMessage, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks).toString()
    seen.push({ line: `${incoming.method} ${incoming.url}`, raw: incoming.rawHeaders, body })
    answer(response)
  })
})
afterEach(async () => {
  door.closeAllConnections()
  await new Promise((resolve) => door.close(resolve))
  await agent[Symbol.asyncDispose]()
})

const listen = () =>
  new Promise<void>((resolve) => door.listen(join(agent.dir, 'public', 'egress.sock'), resolve))

async function faultOf(work: Promise<unknown>): Promise<Fault> {
  const caught = await work.catch((error: unknown) => error)
  if (caught instanceof Fault) return caught
  throw new Error(`no Fault but ${String(caught)}`)
}

describe('request', () => {
  beforeEach(listen)

  it('sends the path as written to the target that the host names, and prints what comes', async () => {
    const io = keptIo()
    expect(await request('GET', 'http://orders/v1/a%2Fb?c=d', { dir: agent.dir }, io)).toBe(0)
    expect(seen[0]?.line).toBe('GET /v1/a%2Fb?c=d')
    expect(seen[0]?.raw.slice(0, 2)).toEqual(['Host', 'orders'])
    expect(io.written).toEqual({ out: 'two apples', err: 'HTTP/1.1 200 OK\n' })
  })

  it.each([
    ['JSON', '{"a":1}', [], 'application/json'],
    ['anything else', 'abc', [], 'application/octet-stream'],
    ['what a header names', '{}', ['content-type: text/x'], 'text/x'],
  ])('sends a body as %s', async (_what, data, header, type) => {
    await request('POST', 'http://orders/v1', { dir: agent.dir, data, header }, keptIo())
    const at = seen[0]?.raw.findIndex((name) => name.toLowerCase() === 'content-type') ?? -1
    expect([seen[0]?.body, seen[0]?.raw[at + 1]]).toEqual([data, type])
    expect(seen[0]?.raw).toContain(String(data.length))
  })

  it('takes a body from a file, and from standard input', async () => {
    const file = join(agent.dir, 'body')
    writeFileSync(file, 'of a file')
    const io = keptIo({ input: 'of the input' })
    for (const data of [`@${file}`, '@-'])
      await request('PUT', 'http://orders/', { dir: agent.dir, data }, io)
    expect(seen.map(({ body }) => body)).toEqual(['of a file', 'of the input'])
  })

  it('sends headers and the identity that was chosen', async () => {
    const options = { dir: agent.dir, header: ['Accept: text/plain', 'X-A:b'], spiffeId: 'spiffe://a.test/b' }
    await request('GET', 'http://orders/', options, keptIo())
    const wanted = ['Accept', 'text/plain', 'X-A', 'b', 'Holdfast-Spiffe-Id', 'spiffe://a.test/b']
    expect(seen[0]?.raw.slice(2, 8)).toEqual(wanted)
  })

  it('ends with 1 when the target says no, and prints what it says', async () => {
    answer = (response) => response.writeHead(404).end('none here')
    const io = keptIo()
    expect(await request('GET', 'http://orders/', { dir: agent.dir }, io)).toBe(1)
    expect(io.written).toEqual({ out: 'none here', err: 'HTTP/1.1 404 Not Found\n' })
  })

  it('is refused in the words of the agent', async () => {
    const error = { reason: 'revoked', message: 'an operator did it', action: 'Ask them.', owner: 'security' }
    answer = (response) =>
      response.writeHead(403, { 'holdfast-reason': 'revoked' }).end(JSON.stringify({ error }))
    const fault = await faultOf(request('GET', 'http://orders/', { dir: agent.dir }, keptIo()))
    expect(fault).toMatchObject(error)
    expect(exitCodeOf(fault)).toBe(4)
  })

  it('answers in JSON', async () => {
    const io = keptIo()
    await request('GET', 'http://orders/', { dir: agent.dir, output: 'json' }, io)
    expect(JSON.parse(io.written.out)).toMatchObject({
      status: 200,
      headers: { 'content-type': 'text/plain' },
      body: 'two apples',
    })
    expect(io.written.err).toBe('')
  })

  it('lets no target drive the terminal', async () => {
    answer = (response) => response.end('a\u001b[2Jb\r\n\tc')
    const io = keptIo({ isTerminal: true })
    await request('GET', 'http://orders/', { dir: agent.dir }, io)
    expect(io.written.out).toBe('a\ufffd[2Jb\n\tc')
  })

  it('says so when the answer is not text, or breaks off', async () => {
    answer = (response) => response.end(Buffer.from([0xff, 0xfe]))
    const ask = () => faultOf(request('GET', 'http://orders/', { dir: agent.dir }, keptIo()))
    expect((await ask()).message).toBe('the answer is not text')
    answer = (response) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('part', () => response.destroy())
    }
    expect((await ask()).reason).toBe('agent_unreachable')
  })

  it.each([
    ['https://orders/', {}, 'the URL begins with https:, and it is the agent that speaks TLS to the target'],
    ['orders/v1', {}, 'the URL is not http://TARGET/PATH'],
    ['http://orders/a#b', {}, 'the URL is not http://TARGET/PATH'],
    ['http://orders/a b', {}, 'the URL is not http://TARGET/PATH'],
    ['http://orders/', { header: ['X: a\r\nY: b'] }, 'header 1 is not "Name: value"'],
    ['http://orders/', { data: '@/nonexistent' }, '/nonexistent: cannot be read'],
  ])('refuses %s with %j', async (url, options, message) => {
    const fault = await faultOf(request('GET', url, { dir: agent.dir, ...options }, keptIo()))
    expect([fault.reason, fault.message]).toEqual(['usage', message])
    expect(seen).toEqual([])
  })
})

describe('an agent without an egress door', () => {
  it('is told from one that does not run', async () => {
    const off = await faultOf(request('GET', 'http://orders/', { dir: agent.dir }, keptIo()))
    expect([off.reason, off.action]).toEqual([
      'unimplemented',
      'Set `egress: { socket: on }` in the configuration and start the agent again.',
    ])
    const gone = await faultOf(request('GET', 'http://orders/', { dir: '/nonexistent' }, keptIo()))
    expect(gone.reason).toBe('agent_unreachable')
  })
})
