/** The middleware that asks an agent, and one that verifies itself, by the one table of cases of every way in. */

import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import type { Fault } from '../../src/base/fault.ts'
import { makeVerifier, type RequestVerifier } from '../../src/verify/create.ts'
import type { OnRefused, VerifierOptions } from '../../src/verify/options.ts'
import { type RunningServer, type Seen, sendRaw, WAYS, type Way } from '../support/middleware-servers.ts'
import { VERIFY_CASES } from '../support/verify-cases.ts'
import { AUDIENCE, openVerifyRig, type Received, TRADE, type VerifyRig } from '../support/verify-rig.ts'

let rig: VerifyRig
beforeAll(async () => {
  rig = await openVerifyRig()
})
afterAll(async () => {
  await rig[Symbol.asyncDispose]()
})

const heard: Fault[] = []
const onRefused: OnRefused = (fault) => heard.push(fault)

function agentOptions(route: string): VerifierOptions {
  return { socket: rig.socket, route, onRefused }
}

/** What the policy of the rig says of the route, as code. */
function localOptions(route: string): VerifierOptions {
  const [, issuer = ''] = /issuer: '([^']+)'/.exec(rig.policy['identity.yaml'] ?? '') ?? []
  return {
    name: route,
    servers: [{ name: 'login', issuer, statusLists: [issuer], ca: rig.ca.pem }],
    audience: [AUDIENCE],
    origins: ['https://api.example.org'],
    received: '/v1',
    public: '/orders/v1',
    binding: ['dpop', 'mtls'],
    maxTtl: 600,
    ...(route === 'strict' ? { nonce: 'required' } : {}),
    ...(route === 'traded'
      ? { txnToken: { server: 'login', audience: TRADE, presence: 'required' } as const }
      : {}),
    ...(route === 'gated'
      ? { hops: [{ name: 'front-gate', spiffeId: 'spiffe://dev.holdfast.test/gateway' }] }
      : {}),
    grants: [
      { callers: ['client:login/web'], methods: ['GET', 'POST'], paths: ['/orders/v1/**'], scopes: ['read'] },
    ],
    onRefused,
  }
}

/** One middleware a route, each behind a server of its own. */
async function serversOf(way: Way, options: (route: string) => VerifierOptions) {
  const clock = { ...systemClock, now: () => rig.now() * 1_000 }
  const opened = new Map<string, RunningServer & { readonly verifier: RequestVerifier }>()
  for (const route of ['api', 'strict', 'gated', 'traded']) {
    const verifier = makeVerifier(options(route), clock)
    opened.set(route, Object.assign(await way.open(verifier, {}), { verifier }))
  }
  // What was made before the memory began is below its floor.
  rig.pass(8)
  return {
    send: ({ route = 'api', method, path, headers }: Received) =>
      sendRaw(opened.get(route)?.port ?? 0, { method, path, headers: headers.flat() }),
    [Symbol.asyncDispose]: async () => {
      for (const server of opened.values()) {
        await server[Symbol.asyncDispose]()
        server.verifier.close()
      }
    },
  }
}

/** A URL has no dot segments: what was escaped never reaches a handler of Requests, nor the verifier. */
const PARSED: Readonly<Record<string, string>> = { 'a dot segment': 'ok' }
const WHOLE = WAYS.filter(({ name }) => !name.startsWith('a router'))
const cases = VERIFY_CASES.filter(({ needsPeer }) => !needsPeer)

describe.each([
  ['an agent', agentOptions],
  ['this process', localOptions],
] as const)('the middleware that verifies by %s', (_who, options) => {
  it.each(WHOLE)('judges every case behind $name', async (way) => {
    await using servers = await serversOf(way, options)
    for (const { name, reason, status, error, requests } of cases) {
      const wanted = way.name === 'fetch' ? (PARSED[name] ?? reason) : reason
      const sent = requests(rig)
      for (const before of sent.slice(0, -1)) expect.soft((await servers.send(before)).status, name).toBe(200)
      heard.length = 0
      const [last] = sent.slice(-1)
      const answer = last ? await servers.send(last) : undefined
      expect
        .soft([heard[0]?.reason ?? 'ok', answer?.status], name)
        .toEqual([wanted, wanted === 'ok' ? 200 : status])
      if (wanted === 'ok' || error === undefined) continue
      expect.soft(answer?.headers.get('www-authenticate'), name).toContain(`error="${error}"`)
      expect.soft(answer?.headers.has('dpop-nonce'), name).toBe(error === 'use_dpop_nonce')
    }
  })

  it.each(WHOLE)('takes one of 100 copies that come at once behind $name', async (way) => {
    await using servers = await serversOf(way, options)
    const request = rig.request()
    const answers = await Promise.all(Array.from({ length: 100 }, () => servers.send(request)))
    const statuses = answers.map(({ status }) => status)
    expect([statuses.filter((status) => status === 200).length, new Set(statuses)]).toEqual([
      1,
      new Set([200, 401]),
    ])
  })
})

describe('the middleware that asks an agent', () => {
  const [node] = WHOLE
  if (!node) throw new Error('no way')

  it('gives the application what the agent says, and has it on record there', async () => {
    await using servers = await serversOf(node, agentOptions)
    const { body } = await servers.send(rig.request())
    expect((JSON.parse(body) as Seen).verified).toMatchObject({
      route: 'api',
      caller: { names: ['client:login/web'], subject: 'ann', scopes: ['read', 'list'] },
      binding: { kind: 'dpop', jkt: rig.key.jkt },
    })
    expect(rig.verdicts().at(-1)).toMatchObject({ allowed: true, route: 'api' })
  })

  it('hands on the nonce of the agent, and a fresh one with each answer', async () => {
    await using servers = await serversOf(node, agentOptions)
    const refused = await servers.send(rig.request({ route: 'strict' }))
    const nonce = refused.headers.get('dpop-nonce')
    const taken = await servers.send(rig.request({ route: 'strict', proof: { nonce } }))
    expect([refused.status, taken.status]).toEqual([401, 200])
    expect(taken.headers.get('dpop-nonce')).toMatch(/^[\w-]{22}$/)
  })
})

describe('a route that hands out handles', () => {
  let handing: VerifyRig
  beforeAll(async () => {
    handing = await openVerifyRig({ handOut: 'handle' })
  })
  afterAll(() => handing?.[Symbol.asyncDispose]())

  it.each(WHOLE)('gives an application behind $name no token, nor what proved it', async (way) => {
    const verifier = makeVerifier({ socket: handing.socket, route: 'api' })
    await using server = await way.open(verifier, {})
    const { method, path, headers } = handing.request({ headers: [['X-Other', '1']] })
    const { body } = await sendRaw(server.port, { method, path, headers: headers.flat() })
    const { names, verified } = JSON.parse(body) as Seen
    expect(verified.handle).toMatch(/^[A-Za-z0-9_-]{43}$/)
    expect(names.filter((name) => ['authorization', 'dpop'].includes(name.toLowerCase()))).toEqual([])
    expect(names).toContain('x-other')
    verifier.close()
  })
})

describe('a handler of Requests', () => {
  it('is verified on the raw headers of its host, those of HTTP/2 among them, and gets the body unread', async () => {
    const verifier = makeVerifier(agentOptions('api'))
    const { headers } = rig.request({ method: 'POST', proof: { htm: 'POST' } })
    const handle = verifier.fetchHandler(async (request) =>
      Response.json([await request.text(), request.headers.has('x-holdfast-caller')]),
    )
    const sent = () =>
      new Request('https://internal.example.org/v1/items?q=1', {
        method: 'POST',
        body: 'an order',
        headers: { 'x-holdfast-caller': 'root' },
      })
    const raw = [':method', 'POST', ':path', '/v1/items?q=1', ...headers.flat()]
    const twice = await handle(sent(), { rawHeaders: [...raw, 'dpop', 'a.b.c'] })
    const once = await handle(sent(), { rawHeaders: raw })
    verifier.close()
    expect([twice.status, once.status, await once.json()]).toEqual([400, 200, ['an order', false]])
  })
})

/** What answers on the socket of an agent, for answers that no agent gives. */
async function withAgent(
  answer: (response: ServerResponse) => void,
  what: (verifier: RequestVerifier, restart: () => void) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-'))
  const server = createServer((request, response) => {
    request.resume().on('end', () => answer(response))
  })
  const socket = join(dir, 'verifier.sock')
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  const verifier = makeVerifier({ socket: `unix://${socket}`, onRefused, timeoutMs: 500 })
  try {
    await what(verifier, () => server.closeAllConnections())
  } finally {
    verifier.close()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    rmSync(dir, { recursive: true, force: true })
  }
}

const request = () => new Request('https://api.example.org/v1/items')
const GOOD = {
  route: 'api',
  caller: { names: ['c'], actors: [], scopes: [] },
  binding: { kind: 'dpop' },
  claims: {},
}

async function judged(verifier: RequestVerifier): Promise<string> {
  heard.length = 0
  const answer = await verifier.fetchHandler(() => new Response('in'))(request())
  return `${answer.status} ${heard[0]?.reason ?? 'ok'}`
}

describe('what is no answer of an agent', () => {
  const says = (status: number, body: string) => (response: ServerResponse) => {
    response.writeHead(status).end(body)
  }
  const error = { reason: 'token_stolen', message: 'm', action: 'a', owner: 'security' }

  it.each<[string, (response: ServerResponse) => void, string]>([
    ['one that is right', says(200, JSON.stringify(GOOD)), '200 ok'],
    ['200 with nothing', says(200, ''), '503 bug'],
    ['200 with an empty object', says(200, '{}'), '503 bug'],
    ['200 with a refusal', says(200, JSON.stringify({ error })), '503 bug'],
    ['204', says(204, ''), '503 bug'],
    ['a page', says(502, '<html>'), '503 bug'],
    [
      'a refusal with its challenge',
      says(401, JSON.stringify({ error, challenge: { status: 401, headers: {} } })),
      '401 token_stolen',
    ],
    [
      'a refusal whose challenge is a 200',
      says(401, JSON.stringify({ error, challenge: { status: 200, headers: {} } })),
      '503 token_stolen',
    ],
    [
      'a refusal of the application itself',
      says(403, JSON.stringify({ error: { ...error, reason: 'verifier_foreign' } })),
      '503 verifier_foreign',
    ],
    [
      'a request that is too large',
      says(413, JSON.stringify({ error: { ...error, reason: 'body_too_large' } })),
      '400 body_too_large',
    ],
    ['nothing', (response) => response.destroy(), '503 agent_unreachable'],
    ['silence', () => {}, '503 deadline'],
  ])('lets nobody in: %s', async (_what, answer, expected) => {
    await withAgent(answer, async (verifier) => expect(await judged(verifier)).toBe(expected))
  })

  it('puts no header of its own choice into the answer', async () => {
    const headers = {
      'www-authenticate': 'DPoP',
      'set-cookie': 'a=b',
      location: 'https://evil.example.org',
      'dpop-nonce': 7,
    }
    const text = JSON.stringify({ error, challenge: { status: 401, headers } })
    await withAgent(says(401, text), async (verifier) => {
      const answer = await verifier.fetchHandler(() => new Response('in'))(request())
      expect([...answer.headers]).toEqual([['www-authenticate', 'DPoP']])
    })
  })

  it('is told from an agent that was started anew, which is asked again', async () => {
    await withAgent(says(200, JSON.stringify(GOOD)), async (verifier, restart) => {
      expect(await judged(verifier)).toBe('200 ok')
      restart()
      expect(await judged(verifier)).toBe('200 ok')
    })
  })

  it('lets nobody in while no agent is there', async () => {
    const verifier = makeVerifier({ socket: '/nonexistent/verifier.sock', onRefused })
    expect(await judged(verifier)).toBe('503 agent_unreachable')
    verifier.close()
  })
})
