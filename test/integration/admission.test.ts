/** What a request has to pass beside policy, at every door of a real agent: budgets, a person, the decision hook. */
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, request, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Config } from '../../src/config.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { ROOT } from '../support/built-agent.ts'
import { call } from '../support/call.ts'
import { startPeer } from '../support/peer.ts'
import { RawClient } from '../support/raw-client.ts'
import { makeTestCa } from '../support/tls.ts'
import { until } from '../support/until.ts'

const uid = process.getuid?.() ?? 0
const ID = 'spiffe://dev.holdfast.test/agent'
const COMMAND = join(ROOT, 'dist', 'holdfast.js')

let upstream: Server
let port: number
/** Answers that a test lets go by hand. */
const held: ServerResponse[] = []

beforeAll(async () => {
  execFileSync(process.execPath, ['.setup.cjs'], { cwd: ROOT, stdio: 'inherit' })
  upstream = createServer((asked, response) => {
    if (asked.url === '/v1/held') held.push(response)
    else response.end('{}')
  })
  port = await listen(upstream)
})
afterAll(() => upstream?.close())

async function listen(server: Server, path?: string): Promise<number> {
  await new Promise<void>((resolve) =>
    path === undefined ? server.listen(0, '127.0.0.1', resolve) : server.listen(path, resolve),
  )
  const address = server.address()
  return typeof address === 'object' ? ((address as AddressInfo | null)?.port ?? 0) : 0
}

/** Two targets, alike: `grant` goes to the grants of both, `platform` to where they are. */
function policy(grant: string, platform = ''): Readonly<Record<string, string>> {
  const names = ['orders', 'stock']
  const identity = names.map(
    (name) =>
      `  - { name: ${name}, server: none, tokenless: true, custody: headers, binding: [dpop, wpt] }\n`,
  )
  const where = names.map(
    (name) =>
      `  - { name: ${name}, origins: ['http://${name === 'orders' ? 'localhost' : '127.0.0.1'}:${port}'], addresses: [127.0.0.1]${platform} }\n`,
  )
  const application = names.map(
    (name) =>
      `  - { name: ${name}, grants: [{ callers: [${ID}], methods: ['*'], paths: [/v1/**], ${grant} }] }\n`,
  )
  return {
    'identity.yaml': `layer: identity\nentries:\n  - { name: agent, spiffe_id: ${ID}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false } }\ntargets:\n${identity.join('')}`,
    'platform.yaml': `layer: platform\ntargets:\n${where.join('')}`,
    'application.yaml': `layer: application\ntargets:\n${application.join('')}`,
  }
}

const start = (grant: string, over: { platform?: string; hook?: Partial<Config['decisionHook']> } = {}) =>
  startAgent({
    policy: policy(grant, over.platform),
    config: (config) => ({ ...config, decisionHook: { ...config.decisionHook, ...over.hook } }),
  })

interface Got {
  readonly status: number
  readonly reason: string
}

interface Sent extends Promise<Got> {
  readonly abort: () => void
}

/** A request of this process through the egress door. */
function send(agent: TestAgent, method = 'GET', path = '/v1/items', host = 'orders'): Sent {
  const socketPath = agent.daemon.directories.egressSocket
  let abort = () => {}
  const got = new Promise<Got>((resolve, reject) => {
    const sent = request({ socketPath, method, path, headers: { host }, agent: false }, (response) => {
      response.resume()
      const reason = response.headers['holdfast-reason']
      response.on('end', () => resolve({ status: response.statusCode ?? 0, reason: String(reason ?? 'ok') }))
    })
    sent.on('error', reject)
    sent.end()
    abort = () => sent.destroy()
  })
  got.catch(() => {})
  return Object.assign(got, { abort })
}

const urlOf = (path = '/v1/items') => `http://localhost:${port}${path}`

/** The reason of the workload socket's JSON door, or ok. */
async function ask(agent: TestAgent, path: string, body: object): Promise<string> {
  const { status, body: answer } = await call(agent.socket, 'POST', path, { body })
  return status === 200 ? 'ok' : answer.error.reason
}

/** Each way in, as this process. */
const DOORS: Readonly<Record<string, (agent: TestAgent, method?: string) => Promise<string>>> = {
  egress: async (agent, method) => (await send(agent, method)).reason,
  headers: (agent, method = 'GET') => ask(agent, '/v1/headers', { method, url: urlOf() }),
  dpop: (agent, method = 'GET') => ask(agent, '/v1/dpop', { method, url: urlOf() }),
  wpt: (agent) => ask(agent, '/v1/wpt', { url: urlOf() }),
  proofs: async (agent, method = 'GET') => {
    const requests = [{ kind: 'dpop', method, url: urlOf() }]
    const { body } = await call(agent.socket, 'POST', '/v1/proofs', { body: { requests } })
    return body.results[0].error?.reason ?? 'ok'
  },
  'gRPC SignProof': async (agent, method = 'GET') => {
    using client = new RawClient(agent.socket)
    const requests = [{ dpop: { method, url: urlOf() } }]
    const answer = (await client.unary('holdfast.v1.ProofService/SignProof', { requests })) as {
      results: { refusal?: { reason: string } }[]
    }
    return answer.results[0]?.refusal?.reason ?? 'ok'
  },
}

interface Ran {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** Runs the built command beside the agent of this process. */
function holdfast(agent: TestAgent, ...args: readonly string[]): Promise<Ran> {
  const child = spawn(process.execPath, [COMMAND, ...args, '--dir', agent.dir], { env: {} })
  const written = { out: '', err: '' }
  child.stdout.on('data', (text) => {
    written.out += text
  })
  child.stderr.on('data', (text) => {
    written.err += text
  })
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...written })))
}

async function waitingOf(agent: TestAgent, count = 1) {
  return until(`${count} waiting`, async () => {
    const { body } = await call(agent.adminSocket, 'GET', '/v1/approvals')
    return body.waiting.length === count ? (body.waiting as readonly Record<string, unknown>[]) : undefined
  })
}

describe('a budget', () => {
  it.each(Object.keys(DOORS))('of calls holds at every door once it is used up at %s', async (name) => {
    await using agent = await start("when: 'session_calls < 2'")
    for (let at = 0; at < 2; at++) expect(await DOORS[name]?.(agent)).toBe('ok')
    for (const door of Object.values(DOORS)) expect(await door(agent)).toBe('policy_denied')
  })

  it('of writes leaves reads', async () => {
    await using agent = await start('when: \'method == "GET" || session_writes < 1\'')
    expect((await send(agent, 'POST')).reason).toBe('ok')
    expect((await send(agent, 'DELETE')).reason).toBe('policy_denied')
    expect(await DOORS['dpop']?.(agent, 'PUT')).toBe('policy_denied')
    expect((await send(agent)).reason).toBe('ok')
  })

  it('of targets leaves those that were used', async () => {
    await using agent = await start("when: 'session_targets < 1 || !first_use'")
    expect((await send(agent)).reason).toBe('ok')
    expect((await send(agent)).reason).toBe('ok')
    expect((await send(agent, 'GET', '/v1/items', 'stock')).reason).toBe('policy_denied')
  })

  it('is each process its own, and gone with it', async () => {
    await using agent = await start("when: 'session_calls < 1'")
    const { egressSocket } = agent.daemon.directories
    for (let at = 0; at < 2; at++) {
      await using peer = await startPeer(egressSocket)
      expect((await peer.call('GET', '/v1/items', undefined, { host: 'orders' })).status).toBe(200)
      expect((await peer.call('GET', '/v1/items', undefined, { host: 'orders' })).status).toBe(403)
    }
  })

  it('has one last request, of ten at once', async () => {
    await using agent = await start("when: 'session_calls < 1'")
    const all = await Promise.all(Array.from({ length: 10 }, () => send(agent)))
    expect(all.filter(({ reason }) => reason === 'ok')).toHaveLength(1)
  })
})

describe('a request that waits for a person', () => {
  it('is listed and let go by holdfast approve, and so are later ones', async () => {
    await using agent = await start('approval: { wait: 60s }')
    const sent = send(agent, 'GET', '/v1/items?secret=hidden')
    const [waiting] = await waitingOf(agent)
    const listed = await holdfast(agent, 'approve')
    expect(listed.code).toBe(0)
    expect(listed.out).toMatch(/^ID +SPIFFE ID +PID +REQUEST +TARGET +SINCE +REFUSED\n/)
    expect(listed.out).toContain(`${waiting?.['id']}   ${ID}   ${process.pid}   GET /v1/**   orders`)
    const shown = JSON.parse((await holdfast(agent, 'approve', '-o', 'json')).out)
    expect(shown).toEqual({ waiting: [waiting] })
    expect(JSON.stringify(shown)).not.toMatch(/secret|hidden|items/)
    const approved = await holdfast(agent, 'approve', String(waiting?.['id']))
    expect(approved).toMatchObject({ code: 0, out: expect.stringContaining(`Approved: ${ID} at orders`) })
    expect((await sent).reason).toBe('ok')
    expect((await send(agent, 'POST')).reason).toBe('ok')
    for (const door of Object.values(DOORS)) expect(await door(agent)).toBe('ok')
    expect(agent.records.find(({ event }) => event === 'approve')).toMatchObject({
      allowed: true,
      uid,
      spiffe_id: ID,
      target: 'orders',
      method: 'GET',
      path: '/v1/**',
      detail: `id=${waiting?.['id']} pid=${process.pid}`,
    })
  })

  it('is refused with --deny, in JSON too, and is on record', async () => {
    await using agent = await start('approval: { on: always }')
    const sent = send(agent)
    const [waiting] = await waitingOf(agent)
    const denied = await holdfast(agent, 'approve', String(waiting?.['id']), '--deny', '-o', 'json')
    expect(JSON.parse(denied.out)).toEqual({ allowed: false, request: waiting, answered: 1 })
    expect(await sent).toEqual({ status: 403, reason: 'approval_refused' })
    const refused = await until('a record', () => agent.records.find(({ event }) => event === 'egress'))
    expect(refused).toMatchObject({ allowed: false, reason: 'approval_refused', path: '/v1/**' })
    expect(agent.records.find(({ event }) => event === 'approve')).toMatchObject({
      allowed: false,
      detail: `id=${waiting?.['id']} pid=${process.pid} denied`,
    })
  })

  it('waits at the headers door too, over JSON and gRPC', async () => {
    await using agent = await start('approval: { on: always }')
    using client = new RawClient(agent.socket)
    const asked = [
      ask(agent, '/v1/headers', { method: 'GET', url: urlOf() }),
      client.unary('holdfast.v1.ProofService/RequestHeaders', { method: 'GET', url: urlOf() }),
    ]
    for (const { id } of await waitingOf(agent, 2))
      await call(agent.adminSocket, 'POST', '/v1/approve', { body: { id } })
    const [json, grpc] = await Promise.all(asked)
    expect(json).toBe('ok')
    expect(grpc).toMatchObject({ headers: { dpop: expect.any(String) } })
  })

  it.each(['dpop', 'wpt', 'proofs', 'gRPC SignProof'])(
    'is refused at %s, which cannot wait',
    async (name) => {
      await using agent = await start('approval: {}')
      expect(await DOORS[name]?.(agent)).toBe('approval_refused')
      expect((await call(agent.adminSocket, 'GET', '/v1/approvals')).body).toEqual({ waiting: [] })
    },
  )

  it('waits no longer when its caller has gone or its lease has ended', async () => {
    await using agent = await start('approval: {}')
    const sent = send(agent)
    await waitingOf(agent)
    sent.abort()
    await waitingOf(agent, 0)
    using client = new RawClient(agent.socket)
    const opened = client.open('holdfast.v1.ProofService/RequestHeaders', { method: 'GET', url: urlOf() })
    await waitingOf(agent)
    opened.cancel()
    await waitingOf(agent, 0)
    const next = send(agent)
    await waitingOf(agent)
    await call(agent.adminSocket, 'POST', '/v1/revoke', { body: { spiffe_id: ID } })
    expect(['lease_ended', 'revoked']).toContain((await next).reason)
    await waitingOf(agent, 0)
  })

  it('gets no answer by another id', async () => {
    await using agent = await start('approval: {}')
    for (const id of ['0123456789ab', 'x'])
      expect(await holdfast(agent, 'approve', id)).toMatchObject({
        code: 2,
        err: expect.stringMatching(/id/),
      })
  })
})

describe('a decision hook', () => {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-hook-'))
  afterAll(() => rmSync(dir, { recursive: true, force: true }))

  interface TestHook extends AsyncDisposable {
    readonly socket: string
    readonly told: readonly Record<string, unknown>[]
  }

  let count = 0
  async function startHook(answer: (response: ServerResponse) => void): Promise<TestHook> {
    const told: Record<string, unknown>[] = []
    const server = createServer(async (asked, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of asked) chunks.push(chunk as Buffer)
      told.push(JSON.parse(Buffer.concat(chunks).toString()))
      answer(response)
    })
    count += 1
    const socket = join(dir, `${count}.sock`)
    await listen(server, socket)
    const stop = async () => {
      server.close()
      server.closeAllConnections()
    }
    return { socket, told, [Symbol.asyncDispose]: stop }
  }

  const json = (text: string) => (response: ServerResponse) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end(text)

  it('is asked by every door that waits, and its no is policy', async () => {
    let answer = '{"allow":true}'
    await using hook = await startHook((response) => json(answer)(response))
    await using agent = await start('hook: true', { hook: { socket: hook.socket } })
    expect((await send(agent, 'POST', '/v1/items?secret=hidden')).reason).toBe('ok')
    expect(await DOORS['headers']?.(agent)).toBe('ok')
    expect(hook.told).toMatchObject([
      {
        spiffe_id: ID,
        target: 'orders',
        method: 'POST',
        granted_path: '/v1/**',
        path: '/v1/items',
        session: { calls: 0, writes: 0, targets: 0, first_use: true },
      },
      { method: 'GET', session: { calls: 1, writes: 1, targets: 1, first_use: false } },
    ])
    expect(JSON.stringify(hook.told)).not.toContain('hidden')
    answer = '{"allow":false,"reason":"not on Sundays"}'
    expect(await send(agent)).toEqual({ status: 403, reason: 'policy_denied' })
    for (const name of ['dpop', 'wpt', 'proofs', 'gRPC SignProof'])
      expect(await DOORS[name]?.(agent)).toBe('hook_unavailable')
  })

  it('is asked over loopback HTTP', async () => {
    const server = createServer((_asked, response) => json('{"allow":true}')(response))
    const hookPort = await listen(server)
    await using agent = await start('hook: true', { hook: { url: `http://127.0.0.1:${hookPort}/decide` } })
    expect((await send(agent)).reason).toBe('ok')
    server.close()
    server.closeAllConnections()
    expect((await send(agent)).reason).toBe('hook_unavailable')
  })

  it('is not believed with a certificate that does not verify', async () => {
    const server = createTlsServer(makeTestCa().serverFiles(), (_asked, response) =>
      json('{"allow":true}')(response as ServerResponse),
    )
    const hookPort = await listen(server)
    await using agent = await start('hook: true', { hook: { url: `https://localhost:${hookPort}/` } })
    expect((await send(agent)).reason).toBe('hook_unavailable')
    server.close()
  })

  it.each<[string, (response: ServerResponse) => void]>([
    ['hangs up', (response) => response.destroy()],
    [
      'breaks off',
      (response) =>
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': 99 }).write('{') &&
        response.destroy(),
    ],
    [
      'answers without end',
      (response) => json(`{"allow":true,"reason":"${'a'.repeat(1_000_000)}"}`)(response),
    ],
    ['answers with what is no JSON', json('allow')],
    ['answers with two answers', json('{"allow":false,"allow":true}')],
    ['sends elsewhere', (response) => response.writeHead(302, { location: '/' }).end()],
    [
      'fails',
      (response) => response.writeHead(500, { 'content-type': 'application/json' }).end('{"allow":true}'),
    ],
    ['says nothing at all', () => {}],
  ])('that %s lets nothing through', async (_what, answer) => {
    await using hook = await startHook(answer)
    await using agent = await start('hook: true', { hook: { socket: hook.socket, timeout: 1 } })
    expect(await send(agent)).toEqual({ status: 503, reason: 'hook_unavailable' })
  })

  it('that is down lets nothing through, and one that is not configured loads no policy', async () => {
    await using agent = await start('hook: true', { hook: { socket: join(dir, 'nobody.sock') } })
    expect(await send(agent)).toEqual({ status: 503, reason: 'hook_unavailable' })
    await expect(start('hook: true')).rejects.toMatchObject({ reason: 'policy_invalid' })
  })

  it('is asked once for requests alike while its answer holds', async () => {
    await using hook = await startHook(json('{"allow":true}'))
    await using agent = await start('hook: true', { hook: { socket: hook.socket, cache: 60 } })
    for (let at = 0; at < 3; at++) expect((await send(agent)).reason).toBe('ok')
    expect(await DOORS['dpop']?.(agent)).toBe('ok')
    expect(hook.told).toHaveLength(1)
  })
})

describe('a target', () => {
  it('has as many requests of one instance open as platform says', async () => {
    await using agent = await start("when: 'true'", { platform: ', concurrency: 1' })
    const first = send(agent, 'GET', '/v1/held')
    const response = await until('a held request', () => held.shift())
    expect(await send(agent)).toEqual({ status: 429, reason: 'target_busy' })
    expect(await DOORS['headers']?.(agent)).toBe('target_busy')
    expect((await send(agent, 'GET', '/v1/items', 'stock')).reason).toBe('ok')
    response.end('{}')
    expect((await first).reason).toBe('ok')
    expect(await until('room', async () => (await send(agent)).reason === 'ok')).toBe(true)
  })

  it.each(Object.keys(DOORS))('has one rate for all doors, used up at %s', async (name) => {
    await using agent = await start("when: 'true'", { platform: ', rate: 1' })
    expect(await DOORS[name]?.(agent)).toBe('ok')
    const others = await Promise.all(Object.values(DOORS).map((door) => door(agent)))
    expect(others).toContain('rate_limited')
  })
})
