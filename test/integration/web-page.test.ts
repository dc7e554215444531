/** What a web page could make a browser send to the agent, by a forwarded port or a rebound name: all of it is refused. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'

const PROOF = { method: 'GET', url: 'https://api.example.test/v1/items' }

describe('threats row 21: a web page', () => {
  let agent: Awaited<ReturnType<typeof startAgent>>
  beforeAll(async () => {
    agent = await startAgent()
  })
  afterAll(() => agent[Symbol.asyncDispose]())

  it.each([
    ['of another origin', { origin: 'https://evil.test' }, 403, 'browser_refused'],
    ['of a rebound name', { origin: 'http://localhost', host: 'localhost' }, 403, 'browser_refused'],
    ['whose origin is opaque', { origin: 'null' }, 403, 'browser_refused'],
    ['that only names its referrer', { referer: 'https://evil.test/page' }, 403, 'browser_refused'],
    ['that sends a form', { 'content-type': 'text/plain' }, 415, 'media_type'],
    ['that cannot set the security header', { 'workload.spiffe.io': '' }, 400, 'header_missing'],
    ['that spells the security header otherwise', { 'workload.spiffe.io': 'TRUE' }, 400, 'header_missing'],
  ])('%s gets no proof', async (_which, headers, status, reason) => {
    const answer = await call(agent.socket, 'POST', '/v1/dpop', { body: PROOF, headers })
    expect({ status: answer.status, reason: answer.body.error.reason }).toEqual({ status, reason })
  })

  it('is not even answered when it asks before it posts', async () => {
    const headers = { origin: 'https://evil.test', 'access-control-request-method': 'POST' }
    const answer = await call(agent.socket, 'OPTIONS', '/v1/dpop', { headers })
    expect(answer.status).toBe(403)
    expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
  })

  it('is told apart from a service, which gets its proof', async () => {
    expect((await call(agent.socket, 'POST', '/v1/dpop', { body: PROOF })).status).toBe(200)
  })
})
