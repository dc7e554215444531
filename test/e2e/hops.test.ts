/**
 * A request from an application through egress, a gateway that rewrites paths, service B, exchange and service C, each
 * of which verifies it anew. All parts are real: agents as built, nginx, an authorization server, TLS throughout.
 */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Agent as PlainAgent } from 'node:http'
import { Agent } from 'node:https'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type LabKey, makeLabKey } from '../../src/probe/key.ts'
import { ROOT } from '../support/built-agent.ts'
import { call } from '../support/call.ts'
import { type Chain, openChain } from '../support/hops-chain.ts'
import { SERVICE_B, SHOP } from '../support/hops-policy.ts'
import { get as getStatus, headersFor } from '../support/keyed-caller.ts'
import { hasNginx } from '../support/nginx.ts'
import { hasRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

let chain: Chain<'good' | 'spread'>
const key = makeLabKey()
const run = promisify(execFile)

beforeAll(async () => {
  if (!hasNginx) throw new Error('nginx is missing: install it (Debian: nginx-light), or run .ci/tools')
  if (!hasRedis) throw new Error('redis-server is missing: install it, or run .ci/tools')
  chain = await openChain({ good: {}, spread: { isSpread: true } }, 'redis')
}, 120_000)
afterAll(() => chain?.[Symbol.asyncDispose]())

/** What curl prints of the body, and the status: the application, which holds nothing. */
async function app(path: string): Promise<readonly [status: number, body: Record<string, unknown>]> {
  const url = `http://orders${path}`
  const args = ['-sS', '--max-time', '10', '-w', '\\n%{http_code}', '--unix-socket', chain.egress.app, url]
  const { stdout } = await run('curl', args)
  const [body = '', status] = stdout.split('\n')
  return [Number(status), body.startsWith('{') ? JSON.parse(body) : {}]
}

/** The operator of the node of the application, or of that of service B. */
function holdfast(node: 0 | 1 | 2, ...args: readonly string[]): Promise<unknown> {
  return run(process.execPath, ['dist/holdfast.js', ...args, '--dir', chain.nodes[node].dir], { cwd: ROOT })
}

const headersOf = (token: string, htu: string, by: LabKey = key) => headersFor(by, token, htu)
const get = (url: string, headers: Record<string, string>, agent?: Agent) =>
  getStatus(url, headers, chain.ca.pem, agent)

describe('the whole chain', () => {
  it('carries a request of an application that holds neither key nor token to service B', async () => {
    expect(await app('/orders/v1/items')).toEqual([200, { from: 'b' }])
  })

  it('tells service C whose request it is, and that B acts', async () => {
    const [status, body] = await app('/orders/v1/through')
    expect([status, body]).toEqual([
      200,
      expect.objectContaining({
        route: 'stock',
        caller: expect.objectContaining({ subject: 'shop', client_id: 'b', actors: [SERVICE_B] }),
      }),
    ])
  })

  it('tells an application behind nginx who calls, and hands it no token', async () => {
    const [status, body] = await app('/guarded/items')
    expect([status, body]).toEqual([
      200,
      expect.objectContaining({ 'x-holdfast-caller': 'client:login/shop', 'x-holdfast-subject': 'shop' }),
    ])
    expect(Object.keys(body).filter((name) => name === 'authorization' || name === 'dpop')).toEqual([])
  })

  it('is not entered behind the gateway', async () => {
    const { url, behind, service } = chain.ways.good
    expect(await get(behind, headersOf(await chain.token(key), url))).toBe(403)
    expect(service.refused.at(-1)).toBe('hop_unexpected')
  })

  it('refuses a proof that was used before, at the gateway and at B', async () => {
    const { url, guarded, service } = chain.ways.good
    const token = await chain.token(key)
    for (const [place, after] of [
      [url, [200, 401]],
      [guarded, [200, 401]],
    ] as const) {
      const headers = headersOf(token, place)
      expect([await get(place, headers), await get(place, headers)]).toEqual(after)
    }
    expect(service.refused.at(-1)).toBe('proof_replayed')
  })

  it('refuses at one node what was used at another, since they share a Redis server', async () => {
    const { url, service } = chain.ways.spread
    const headers = headersOf(await chain.token(key), url)
    const statuses = [await get(url, headers), await get(url, headers), await get(url, headers)]
    expect([statuses, service.refused.slice(-2)]).toEqual([
      [200, 401, 401],
      ['proof_replayed', 'proof_replayed'],
    ])
    const allowedAt = chain.nodes.map((node) => verdictsOf(node.dir).length > 0)
    expect(allowedAt).toEqual([false, true, true])
  })

  it('takes one of many copies of a proof that come to both nodes at once', async () => {
    const { url } = chain.ways.spread
    const headers = headersOf(await chain.token(key), url)
    const statuses = await Promise.all(Array.from({ length: 20 }, () => get(url, headers)))
    expect(statuses.filter((status) => status === 200)).toHaveLength(1)
    expect(new Set(statuses)).toEqual(new Set([200, 401]))
  })
})

/** What a node's verifier has on record. */
function verdictsOf(dir: string): readonly string[] {
  const lines = readFileSync(join(dir, 'private', 'audit.jsonl'), 'utf8').split('\n')
  return lines.filter((line) => line.includes('"event":"verify"'))
}

describe('a revocation', () => {
  it('of a key is heard on the next request of an open connection', async () => {
    const { url, service } = chain.ways.good
    const other = makeLabKey()
    const token = await chain.token(other)
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    try {
      expect(await get(url, headersOf(token, url, other), agent)).toBe(200)
      await holdfast(1, 'revoke', '--jkt', other.jkt)
      expect(await get(url, headersOf(token, url, other), agent)).toBe(401)
      expect(service.refused.at(-1)).toBe('token_revoked')
    } finally {
      agent.destroy()
    }
  })

  it('by one operator is heard at the other node of the service', async () => {
    const { url, service } = chain.ways.spread
    const other = makeLabKey()
    const token = await chain.token(other)
    expect(await get(url, headersOf(token, url, other))).toBe(200)
    await holdfast(2, 'revoke', '--jkt', other.jkt)
    // The nodes are asked in turn: both refuse.
    const bothRefuse = async () => {
      const statuses = [
        await get(url, headersOf(token, url, other)),
        await get(url, headersOf(token, url, other)),
      ]
      return statuses.every((status) => status === 401)
    }
    await until('the revocation at both nodes', bothRefuse, 2_000)
    expect(service.refused.at(-1)).toBe('token_revoked')
  })

  it('of an identity ends what it sends, on a connection that was open before', async () => {
    const agent = new PlainAgent({ keepAlive: true, maxSockets: 1 })
    const ask = () => call(chain.egress.b, 'GET', '/v1/items', { headers: { host: 'stock' }, agent })
    try {
      expect((await ask()).body.error.reason).toBe('subject_required')
      await holdfast(1, 'revoke', '--spiffe-id', SERVICE_B)
      expect((await ask()).body.error.reason).toBe('revoked')
      await holdfast(1, 'revoke', '--spiffe-id', SERVICE_B, '--lift')
      await holdfast(0, 'revoke', '--spiffe-id', SHOP)
      expect((await app('/orders/v1/items'))[0]).toBe(403)
    } finally {
      agent.destroy()
      await holdfast(0, 'revoke', '--spiffe-id', SHOP, '--lift')
    }
    expect(await app('/orders/v1/through')).toEqual([200, expect.anything()])
  })
})
