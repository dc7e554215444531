import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Fault } from '../../../src/base/fault.ts'
import { callAgent, followAgent } from '../../../src/client/http.ts'
import { refusal, startJsonAgent } from '../../support/json-agent.ts'

async function rejected(work: Promise<unknown>): Promise<Fault> {
  const error = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  )
  if (error instanceof Fault) return error
  throw new Error(`no Fault but ${String(error)}`)
}

const GET = { method: 'GET', path: '/v1/x' } as const

describe('callAgent', () => {
  it('sends the security header, and a body as JSON', async () => {
    await using agent = await startJsonAgent({ 'POST /v1/x': { done: true } })
    expect(await callAgent(agent.socket, { method: 'POST', path: '/v1/x', body: { a: 1 } })).toEqual({
      done: true,
    })
    const [{ headers, body } = { headers: {}, body: undefined }] = agent.asked
    expect(headers).toMatchObject({ 'workload.spiffe.io': 'true', 'content-type': 'application/json' })
    expect(headers).not.toHaveProperty('origin')
    expect(body).toEqual({ a: 1 })
  })

  it('throws the Fault of the agent, with its owner and when to try again', async () => {
    await using agent = await startJsonAgent({
      'GET /v1/x': refusal('rate_limited', 429, { 'retry-after': '7' }),
    })
    const fault = await rejected(callAgent(agent.socket, GET))
    expect(fault).toMatchObject({
      reason: 'rate_limited',
      message: 'rate_limited it is',
      action: 'Do this.',
      owner: 'identity',
      retryAfterSeconds: 7,
    })
  })

  it.each<[string, string]>([
    ['no JSON', 'hello'],
    ['an array', '[]'],
    ['a member twice', '{"a":1,"a":2}'],
    ['too deep an object', `${'{"a":'.repeat(40)}1${'}'.repeat(40)}`],
  ])('takes %s for no answer of an agent', async (_what, text) => {
    await using agent = await startJsonAgent({ 'GET /v1/x': (response) => response.end(text) })
    const { reason, message } = await rejected(callAgent(agent.socket, GET))
    expect([reason, message]).toEqual(['bug', 'the answer is not one of an agent: no JSON object'])
  })

  it('keeps the words of a reason that it does not know', async () => {
    await using agent = await startJsonAgent({ 'GET /v1/x': refusal('brand_new', 403) })
    expect(await rejected(callAgent(agent.socket, GET))).toMatchObject({
      reason: 'bug',
      message: 'brand_new: brand_new it is',
    })
  })

  it('does not gather an answer without end', async () => {
    await using agent = await startJsonAgent({
      'GET /v1/x': (response) => {
        const pour = () => {
          while (!response.destroyed && response.write('x'.repeat(65_536))) {}
          if (!response.destroyed) response.once('drain', pour)
        }
        pour()
      },
    })
    expect((await rejected(callAgent(agent.socket, GET))).message).toContain('is over 16777216 bytes')
  })

  it('gives up on an agent that accepts and says nothing', async () => {
    await using agent = await startJsonAgent({ 'GET /v1/x': () => {} })
    const fault = await rejected(callAgent(agent.socket, { ...GET, timeout: 50 }))
    expect(fault).toMatchObject({ reason: 'deadline', message: 'the agent did not answer within 0.05 s' })
  })

  it('gives up on an answer that stops in its middle', async () => {
    await using agent = await startJsonAgent({ 'GET /v1/x': (response) => void response.write('{"a":') })
    expect((await rejected(callAgent(agent.socket, { ...GET, timeout: 50 }))).reason).toBe('deadline')
  })

  it('says that nobody answers when the connection is closed', async () => {
    await using agent = await startJsonAgent({ 'GET /v1/x': (response) => response.destroy() })
    expect((await rejected(callAgent(agent.socket, GET))).reason).toBe('agent_unreachable')
  })

  it('takes no other protocol for an answer', async () => {
    await using agent = await startJsonAgent()
    const path = join(agent.dir, 'other.sock')
    const server = createServer((socket) => socket.end('SSH-2.0-x\r\n'))
    await new Promise<void>((resolve) => server.listen(path, resolve))
    expect((await rejected(callAgent(path, GET))).reason).toBe('agent_unreachable')
    server.close()
  })
})

describe('followAgent', () => {
  it('gives lines as they come, whatever the chunks are', async () => {
    await using agent = await startJsonAgent({
      'GET /v1/lines': (response) => {
        response.write('{"n":1}\n{"n"')
        setImmediate(() => response.end(':2}\n'))
      },
    })
    const lines: unknown[] = []
    for await (const line of followAgent(agent.socket, '/v1/lines', new AbortController().signal))
      lines.push(line)
    expect(lines).toEqual([{ n: 1 }, { n: 2 }])
  })

  it('ends without an error when it is stopped', async () => {
    await using agent = await startJsonAgent({
      'GET /v1/lines': (response) => void response.write('{"n":1}\n'),
    })
    const stop = new AbortController()
    for await (const _line of followAgent(agent.socket, '/v1/lines', stop.signal)) stop.abort()
    expect(stop.signal.aborted).toBe(true)
  })

  it('throws the Fault of an agent that refuses', async () => {
    await using agent = await startJsonAgent({ 'GET /v1/lines': refusal('admin_denied', 403) })
    const lines = followAgent(agent.socket, '/v1/lines', new AbortController().signal)
    expect((await rejected(lines.next())).reason).toBe('admin_denied')
  })

  it('does not gather a line without end', async () => {
    await using agent = await startJsonAgent({
      'GET /v1/lines': (response) => void response.write('x'.repeat(1_100_000)),
    })
    const lines = followAgent(agent.socket, '/v1/lines', new AbortController().signal)
    expect((await rejected(lines.next())).message).toContain('is over 1048576 characters')
  })
})
