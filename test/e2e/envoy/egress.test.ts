/**
 * An application behind an Envoy, whose requests the agent signs: the configurations to copy against a real
 * authorization server and a target that demands proofs and nonces. The application holds neither token nor proof.
 */
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startAgent } from '../../support/agent.ts'
import { ENVOY_VERSIONS, hasEnvoy, type TestEnvoy } from '../../support/envoy.ts'
import { openSigning, sendBy } from '../../support/envoy-egress.ts'
import { UNHEARD } from '../../support/envoy-sample.ts'
import { ID, type SigningRig, startSigningRig } from '../../support/envoy-signing.ts'
import { until } from '../../support/until.ts'

const reasonOf = ({ body }: { readonly body: string }) =>
  (JSON.parse(body) as { error?: { reason: string } }).error?.reason

const OTHER = 'spiffe://dev.holdfast.test/other'
const FORGED = {
  authorization: 'Bearer forged',
  dpop: 'forged',
  'workload-identity-token': 'forged',
  'workload-proof-token': 'forged',
  signature: 'forged',
  'txn-token': 'forged',
  'proxy-authorization': 'forged',
  // To servers that build variables of names they are the same.
  workload_identity_token: 'forged',
  signature_input: 'forged',
  txn_token: 'forged',
}

let rig: SigningRig
beforeAll(async () => {
  if (hasEnvoy) rig = await startSigningRig()
})
afterAll(async () => rig?.[Symbol.asyncDispose]())

/** What arrived at the target since the mark. */
function arrived(since: number) {
  return rig.orders.requests.slice(since).map(({ headers }) => ({
    headers,
    proof: decodeJwt(String(headers['dpop'])),
  }))
}

/** Calls of the agent by an Envoy, once all have ended, and how many it reset. */
function callsOf(envoy: TestEnvoy) {
  return until('the calls to end', async () => {
    const found = await envoy.stats(/^cluster\.holdfast\.(http2\.tx_reset|upstream_rq_(total|active))$/)
    const of = (name: string) => found[`cluster.holdfast.${name}`] ?? 0
    if (of('upstream_rq_active') > 0) return undefined
    return { total: of('upstream_rq_total'), reset: of('http2.tx_reset') }
  })
}

describe.skipIf(!hasEnvoy).each(ENVOY_VERSIONS)('requests signed at each try, by Envoy %s', (version) => {
  let envoy: TestEnvoy
  let port: number
  beforeAll(async () => {
    ;({ envoy, port } = await openSigning('egress-signing.yaml', rig, {}, version))
  }, 300_000)
  afterAll(async () => envoy?.[Symbol.asyncDispose]())
  let mark = 0
  beforeEach(() => {
    rig.orders.nonce = undefined
    mark = rig.orders.requests.length
  })

  it('arrive with a token and a proof of the caller, which the application never had', async () => {
    const { status, body } = await sendBy(port, { path: '/v1/items?x=1' })
    const [first] = arrived(mark)
    expect([status, JSON.parse(body).sub]).toEqual([200, 'shop'])
    expect(first?.headers.authorization).toMatch(/^DPoP ey/)
    expect(first?.proof).toMatchObject({ htm: 'GET', htu: `https://localhost:${rig.orders.port}/v1/items` })
    expect(rig.agent.records.findLast(({ event }) => event === 'sign.headers')).toMatchObject({
      allowed: true,
      spiffe_id: ID,
      target: 'orders',
      pid: envoy.pid,
      jti: first?.proof.jti,
    })
  })

  it('carry a fresh proof at each try, and the nonce challenge never reaches the application', async () => {
    rig.orders.nonce = `nonce-of-${version}`
    const { status, headers } = await sendBy(port, { method: 'POST', body: 'x'.repeat(5_000) })
    const tries = arrived(mark)
    expect([status, headers['dpop-nonce'], headers['www-authenticate']]).toEqual([200, undefined, undefined])
    expect(tries.map(({ proof }) => proof['nonce'])).toEqual([
      tries[0]?.proof['nonce'],
      `nonce-of-${version}`,
    ])
    expect(new Set(tries.map(({ proof }) => proof.jti)).size).toBe(2)
    expect((await sendBy(port)).status).toBe(200)
    expect(arrived(mark).length).toBe(3)
  })

  it('reset no call, which the agent would have to take for a flood', async () => {
    rig.orders.nonce = `next-of-${version}`
    for (let at = 0; at < 3; at++) expect((await sendBy(port)).status).toBe(200)
    const { total, reset } = await callsOf(envoy)
    expect(total).toBeGreaterThan(3)
    expect(reset).toBe(0)
  })

  it('lose what the application says of itself', async () => {
    const forged = { ...FORGED, dpop: ['forged', 'twice'], 'holdfast-spiffe-id': OTHER }
    const { status } = await sendBy(port, { headers: forged })
    const [first] = arrived(mark)
    expect(status).toBe(200)
    expect(JSON.stringify(first?.headers)).not.toContain('forged')
    expect(first?.headers).not.toHaveProperty('holdfast-spiffe-id')
  })

  it.each([
    ['a path that no grant allows', { path: '/v2/items' }, 403, 'policy_denied'],
    ['a method that no grant allows', { method: 'DELETE' }, 403, 'policy_denied'],
    ['escapes that are no UTF-8', { path: '/v1/%C0%AE' }, 400, 'url_refused'],
    ['a handle of nobody', { headers: { 'holdfast-subject': 'nobody' } }, 403, 'subject_unknown'],
  ])('are refused for %s, with the reason and the cure', async (_what, sent, status, reason) => {
    const got = await sendBy(port, sent)
    expect([got.status, reasonOf(got)]).toEqual([status, reason])
    expect(got.headers['content-type']).toBe('application/json')
    expect(rig.orders.requests.length).toBe(mark)
  })

  it.each([['/v1/./y/../items'], ['/v1//items'], ['/v1/%69tems']])(
    'are signed as they are sent: %s',
    async (path) => {
      expect((await sendBy(port, { path })).status).toBe(200)
      expect(arrived(mark)[0]?.proof['htu']).toBe(`https://localhost:${rig.orders.port}/v1/items`)
    },
  )

  it('name no other target, whatever Host says', async () => {
    expect((await sendBy(port, { headers: { host: 'evil.example.org' } })).status).toBe(200)
    expect(arrived(mark)[0]?.proof['htu']).toBe(`https://localhost:${rig.orders.port}/v1/items`)
  })

  it('are refused at custody nothing: an Envoy that adds headers holds them', async () => {
    await rig.agent.setPolicy(rig.policy('nothing'))
    try {
      const got = await sendBy(port)
      expect([got.status, reasonOf(got)]).toEqual([403, 'custody_denied'])
      expect(rig.orders.requests.length).toBe(mark)
    } finally {
      await rig.agent.setPolicy(rig.policy('headers'))
    }
  })
})

describe.skipIf(!hasEnvoy)('requests signed without a name of the target', () => {
  it('belong to the target whose origin is their authority, by TLS though the scheme says http', async () => {
    const places = {
      'initial_metadata:\n                    - { key: holdfast-target, value: orders }\n': '',
      'host_rewrite_literal: localhost': `host_rewrite_literal: LOCALHOST:${rig.orders.port}`,
    }
    const { envoy, port } = await openSigning('egress-signing.yaml', rig, places)
    await using _envoy = envoy
    const mark = rig.orders.requests.length
    expect((await sendBy(port)).status).toBe(200)
    expect(arrived(mark)[0]?.proof['htu']).toBe(`https://localhost:${rig.orders.port}/v1/items`)
  })
})

describe.skipIf(!hasEnvoy).each(ENVOY_VERSIONS)(
  'requests whose answers go unheard, by Envoy %s',
  (version) => {
    it('are signed in one round trip, end their calls in good order, and tell the application of nonces', async () => {
      rig.orders.nonce = undefined
      const { envoy, port } = await openSigning('egress-signing.yaml', rig, UNHEARD, version)
      await using _envoy = envoy
      const mark = rig.orders.requests.length
      for (let at = 0; at < 3; at++) expect((await sendBy(port)).status).toBe(200)
      expect(new Set(arrived(mark).map(({ proof }) => proof.jti)).size).toBe(3)
      rig.orders.nonce = `unheard-of-${version}`
      const { status, headers } = await sendBy(port)
      expect([status, headers['dpop-nonce']]).toEqual([401, `unheard-of-${version}`])
      expect((await callsOf(envoy)).reset).toBe(0)
    })
  },
)

describe.skipIf(!hasEnvoy)('requests signed once, by ext_authz', () => {
  let envoy: TestEnvoy
  let port: number
  beforeAll(async () => {
    ;({ envoy, port } = await openSigning('egress-check.yaml', rig))
  }, 300_000)
  afterAll(async () => envoy?.[Symbol.asyncDispose]())
  let mark = 0
  beforeEach(() => {
    rig.orders.nonce = undefined
    mark = rig.orders.requests.length
  })

  it('arrive with a token and a proof', async () => {
    const { status } = await sendBy(port, { headers: FORGED })
    const [first] = arrived(mark)
    expect(status).toBe(200)
    expect(JSON.stringify(first?.headers)).not.toContain('forged')
    expect(first?.headers.authorization).toMatch(/^DPoP ey/)
    expect(first?.proof['htu']).toBe(`https://localhost:${rig.orders.port}/v1/items`)
  })

  it('bring the nonce challenge to the application, since nothing hears the answer', async () => {
    rig.orders.nonce = 'unheard'
    const { status, headers } = await sendBy(port)
    expect([status, headers['dpop-nonce']]).toEqual([401, 'unheard'])
  })

  it.each([
    ['a path that no grant allows', { path: '/v2/items' }, 403, 'policy_denied'],
    ['escapes that are no UTF-8', { path: '/v1/%C0%AE' }, 400, 'url_refused'],
  ])('are refused for %s, with the reason and the cure', async (_what, sent, status, reason) => {
    const got = await sendBy(port, sent)
    expect([got.status, reasonOf(got)]).toEqual([status, reason])
    expect(rig.orders.requests.length).toBe(mark)
  })

  it('are refused at custody nothing', async () => {
    await rig.agent.setPolicy(rig.policy('nothing'))
    try {
      const got = await sendBy(port)
      expect([got.status, reasonOf(got)]).toEqual([403, 'custody_denied'])
    } finally {
      await rig.agent.setPolicy(rig.policy('headers'))
    }
  })
})

describe.skipIf(!hasEnvoy)("an Envoy's connection to the agent", () => {
  it('may say any authority', async () => {
    const named = 'envoy_grpc: { cluster_name: holdfast'
    const places = { [named]: `${named}, authority: /run/holdfast` }
    const { envoy, port } = await openSigning('egress-check.yaml', rig, places)
    await using _envoy = envoy
    expect((await sendBy(port)).status).toBe(200)
  })
})

describe.skipIf(!hasEnvoy)('an agent that ends and comes back', () => {
  /** Requests one after the other on four lines; what was not answered 200. */
  function load(port: number) {
    const failed: unknown[] = []
    let [done, isOver] = [0, false]
    const line = async () => {
      while (!isOver) {
        const answer = await sendBy(port).catch((error: Error) => ({ status: 0, body: error.message }))
        done += 1
        if (answer.status !== 200) failed.push([answer.status, answer.body])
      }
    }
    const lines = Promise.all(Array.from({ length: 4 }, line))
    return {
      answered: (more: number) => {
        const wanted = done + more
        return until('answers', () => done >= wanted)
      },
      end: () => {
        isOver = true
        return lines.then(() => failed)
      },
    }
  }

  it.each([
    ['in good order', false],
    ['for another that takes its socket over', true],
  ])('%s loses no request of an Envoy', async (_how, takeover) => {
    await using own = await startSigningRig()
    const { envoy, port } = await openSigning('egress-signing.yaml', own)
    await using _envoy = envoy
    const under = load(port)
    await under.answered(20)
    if (!takeover) await own.agent.daemon.stop(1_000)
    await using _next = await startAgent({ dir: own.agent.dir, policy: own.policy('headers'), takeover })
    await under.answered(40)
    expect(await under.end()).toEqual([])
  })

  it('is told as 503 while it is away for good, and nothing leaves unsigned', async () => {
    await using own = await startSigningRig()
    const fast = { 'num_retries: 10': 'num_retries: 1' }
    const { envoy, port } = await openSigning('egress-signing.yaml', own, fast)
    await using _envoy = envoy
    expect((await sendBy(port)).status).toBe(200)
    const before = own.orders.requests.length
    await own.agent.daemon.stop(0)
    expect((await sendBy(port)).status).toBe(503)
    expect(own.orders.requests.length).toBe(before)
  })
})
