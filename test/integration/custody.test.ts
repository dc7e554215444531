/** One policy on every way in (threats row 15): what an entry may not have, no door gives it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  type Connection,
  type Ending,
  loadServices,
  type Message,
  type StreamMethod,
} from '../../src/client/grpc.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { checkOnce, type Lines, linesOf, outcomeOf, processOnce } from '../support/envoy-stream.ts'
import { RawClient } from '../support/raw-client.ts'
import { fetchSecrets, openSds, SDS, secretsIn } from '../support/sds.ts'

const ID = 'spiffe://dev.holdfast.test/caller'
const URL_OF = { held: 'https://held.example.test/x', headers: 'https://headers.example.test/x' }
const AS = 'https://as.example.test'

const policy = {
  'identity.yaml': `layer: identity
entries:
  - name: caller
    spiffe_id: ${ID}
    selectors: ['unix:uid:${process.getuid?.() ?? 0}']
    deliver: { x509: false, jwt: true, wit: false }
targets:
  - { name: held, server: { issuer: '${AS}' }, custody: nothing, max_ttl: 5m, tokenless: true, hash_only: true, binding: [dpop, wpt] }
  - { name: headers, server: { issuer: '${AS}', token_endpoint: '${AS}/token' }, custody: headers, max_ttl: 5m, binding: [dpop] }
`,
  'platform.yaml': `layer: platform
targets:
  - { name: held, origins: ['https://held.example.test'] }
  - { name: headers, origins: ['https://headers.example.test'] }
`,
  'application.yaml': `layer: application
targets:
  - name: held
    grants: [{ callers: [${ID}], methods: ['*'], paths: [/**] }]
  - name: headers
    grants: [{ callers: [${ID}], methods: ['*'], paths: [/**] }]
`,
}

/** What each door says of one request: the reason of its refusal, or `signed`. */
type Door = (
  agent: TestAgent,
  connection: Connection,
  ask: Readonly<Record<string, unknown>>,
) => Promise<string>

const unary: Door = async (_agent, connection, { kind, ...members }) => {
  const request = { requests: [{ id: 1, [String(kind)]: members }] }
  const answer = await connection.unary(
    'holdfast.v1.ProofService/SignProof' as 'holdfast.v1.ProofService/ListKeys',
    request,
    {
      timeout: 5_000,
    },
  )
  return outcome((answer['results'] as Message[])[0])
}

const stream: Door = (_agent, connection, { kind, ...members }) =>
  new Promise((resolve, reject) => {
    const open = connection.open('holdfast.v1.ProofService/SignProofs', {
      onReady: () => open.send({ requests: [{ id: 1, [String(kind)]: members }] }),
      onMessage: (message) => {
        resolve(outcome((message['results'] as Message[])[0]))
        open.cancel()
      },
      onEnd: ({ fault }) => reject(fault),
    })
    open.send({ requests: [{ id: 1, [String(kind)]: members }] })
  })

const single: Door = async (agent, _connection, { kind, ...members }) =>
  reasonOf((await call(agent.socket, 'POST', `/v1/${kind}`, { body: members })).body)

const batch: Door = async (agent, _connection, ask) =>
  reasonOf((await call(agent.socket, 'POST', '/v1/proofs', { body: { requests: [ask] } })).body.results[0])

function outcome(result: Message | undefined): string {
  const refusal = result?.['refusal'] as Message | undefined
  return refusal ? String(refusal['reason']) : 'signed'
}

function reasonOf(answer: { error?: { reason: string }; proof?: string }): string {
  return answer.error?.reason ?? (answer.proof ? 'signed' : 'nothing')
}

/** The doors for those who send requests themselves; they take no token, and answer with headers or the token. */
const requestHeaders: Door = (_agent, connection, members) =>
  connection
    .unary(
      'holdfast.v1.ProofService/RequestHeaders' as 'holdfast.v1.ProofService/ListKeys',
      { method: 'GET', ...members },
      { timeout: 5_000 },
    )
    .then(
      () => 'released',
      (ending: Ending) => ending.fault.reason,
    )

const headers: Door = async (agent, _connection, members) =>
  releaseOf(await call(agent.socket, 'POST', '/v1/headers', { body: { method: 'GET', ...members } }))

const tokenAt: Door = async (agent, _connection, { method: _method, ...members }) =>
  releaseOf(await call(agent.socket, 'POST', '/v1/token', { body: members }))

function releaseOf({ body }: { readonly body: { error?: { reason: string } } }): string {
  return body.error?.reason ?? 'released'
}

/** Envoy's doors: who adds headers holds them. `released` is what the others call it. */
const envoy =
  (ask: (client: RawClient, members: Readonly<Record<string, unknown>>) => Promise<Message>): Door =>
  async (agent, _connection, members) => {
    using client = new RawClient(agent.socket)
    const outcome = outcomeOf(await ask(client, members))
    return outcome === 'signed' ? 'released' : outcome
  }

const lines = ({ method = 'GET', url }: Readonly<Record<string, unknown>>): Lines => [
  [':method', String(method)],
  ...linesOf(String(url)).slice(1),
]

const extProc = envoy((client, { spiffe_id: id, ...members }) =>
  processOnce(client, lines(members), id === undefined ? [] : [['holdfast-spiffe-id', String(id)]]),
)

const check = envoy((client, { spiffe_id: id, ...members }) =>
  checkOnce(client, lines(members), id === undefined ? {} : { spiffe_id: id }),
)

const RELEASING: readonly (readonly [string, Door])[] = [
  ['ext_proc Process', extProc],
  ['ext_authz Check', check],
  ['RequestHeaders', requestHeaders],
  ['POST /v1/headers', headers],
  ['POST /v1/token', tokenAt],
]

const DOORS: readonly (readonly [string, Door])[] = [
  ['SignProof', unary],
  ['SignProofs', stream],
  ['POST /v1/dpop and /v1/wpt', single],
  ['POST /v1/proofs', batch],
]
const ATH = 'x'.repeat(43)
const dpop = (url: string, more = {}) => ({ kind: 'dpop', method: 'GET', url, ...more })
const REFUSED: readonly (readonly [string, Readonly<Record<string, unknown>>, string])[] = [
  ['custody nothing', dpop(URL_OF.held), 'custody_denied'],
  ['custody nothing, with a hash', dpop(URL_OF.held, { ath: ATH }), 'custody_denied'],
  ['custody nothing, as WPT', { kind: 'wpt', url: URL_OF.held }, 'custody_denied'],
  ['a binding that identity does not list', { kind: 'wpt', url: URL_OF.headers }, 'policy_denied'],
  ['a hash where the token is wanted', dpop(URL_OF.headers, { ath: ATH }), 'token_required'],
  ['nothing where the token is wanted', dpop(URL_OF.headers), 'token_required'],
  ['a token of somebody else', dpop(URL_OF.headers, { access_token: token({ jkt: ATH }) }), 'token_foreign'],
  ['a token without a key', dpop(URL_OF.headers, { access_token: token({}) }), 'token_foreign'],
  ['an opaque token', dpop(URL_OF.headers, { access_token: 'opaque' }), 'token_malformed'],
  [
    'a key of somebody else',
    dpop(URL_OF.headers, { access_token: token({ jkt: ATH }), jkt: ATH }),
    'token_foreign',
  ],
  ['an unknown origin', dpop('https://elsewhere.example.test/'), 'target_unknown'],
  ['the authorization server itself', dpop(`${AS}/token`), 'target_unknown'],
  ['TRACE', dpop(URL_OF.headers, { method: 'TRACE' }), 'policy_denied'],
  ['a URL with userinfo', dpop('https://a@headers.example.test/x'), 'url_refused'],
  ['a dot segment', dpop('https://headers.example.test/a/../x'), 'url_refused'],
  [
    'an identity of somebody else',
    dpop(URL_OF.headers, { spiffe_id: 'spiffe://dev.holdfast.test/other' }),
    'no_identity',
  ],
]

const UNRELEASED: readonly (readonly [string, Readonly<Record<string, unknown>>, string])[] = [
  ['custody nothing', { url: URL_OF.held }, 'custody_denied'],
  ['an unknown origin', { url: 'https://elsewhere.example.test/' }, 'target_unknown'],
  ['the authorization server itself', { url: `${AS}/token` }, 'target_unknown'],
  ['a URL with userinfo', { url: 'https://a@headers.example.test/x' }, 'url_refused'],
  ['a dot segment', { url: 'https://headers.example.test/a/../x' }, 'url_refused'],
  [
    'an identity of somebody else',
    { url: URL_OF.headers, spiffe_id: 'spiffe://dev.holdfast.test/other' },
    'no_identity',
  ],
]

function token(cnf: object): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const exp = Math.floor(performance.timeOrigin / 1000) + 120
  return `${encode({ alg: 'ES256' })}.${encode({ exp, cnf })}.c2ln`
}

describe('custody on every door', () => {
  let agent: TestAgent
  let connection: Connection
  beforeAll(async () => {
    agent = await startAgent({ policy })
    connection = loadServices()(agent.socket)
  })
  afterAll(async () => {
    connection.close()
    await agent[Symbol.asyncDispose]()
  })

  describe.each(DOORS)('%s', (_name, door) => {
    it.each(REFUSED)('refuses %s', async (_what, ask, reason) => {
      expect(await door(agent, connection, ask)).toBe(reason)
    })
  })

  describe.each(RELEASING)('%s', (_name, door) => {
    it.each(UNRELEASED)('releases nothing for %s', async (_what, ask, reason) => {
      expect(await door(agent, connection, ask)).toBe(reason)
    })
  })

  it.each([
    ['RequestHeaders', requestHeaders, 'token_required'],
    ['POST /v1/headers', headers, 'token_required'],
    ['ext_proc Process', extProc, 'token_required'],
    ['ext_authz Check', check, 'token_required'],
    ['POST /v1/token', tokenAt, 'custody_denied'],
  ] as const)(
    '%s releases nothing at custody headers without a client of its server',
    async (_name, door, reason) => {
      expect(await door(agent, connection, { url: URL_OF.headers })).toBe(reason)
    },
  )

  it.each([requestHeaders, headers, extProc, check])('releases no headers for TRACE', async (door) => {
    expect(await door(agent, connection, { url: URL_OF.headers, method: 'TRACE' })).toBe('policy_denied')
  })

  it.each(['SpiffeWorkloadAPI/FetchX509SVID', 'SpiffeWorkloadAPI/FetchWITSVID'] as const)(
    '%s gives no key to an entry that does not deliver it',
    async (method) => {
      const { fault, code } = await endOf(connection, method)
      expect([fault.reason, code]).toEqual(['delivery_denied', 7])
    },
  )

  it.each(['SpiffeWorkloadAPI/FetchX509Bundles', 'SpiffeWorkloadAPI/FetchJWTBundles'] as const)(
    '%s is never withheld',
    async (method) => {
      await expect(endOf(connection, method)).rejects.toThrow('answered')
    },
  )

  it.each([['default'], [ID], ['default', ID]])('SDS gives no key under the name %s', async (...names) => {
    using client = new RawClient(agent.socket)
    const refused = expect.objectContaining({
      code: 'PERMISSION_DENIED',
      info: expect.objectContaining({ reason: 'delivery_denied' }),
    })
    expect(await fetchSecrets(client, names)).toEqual(refused)
    expect(await openSds(client, names).end()).toEqual(refused)
    const delta = client.open(`${SDS}/DeltaSecrets`, undefined, [])
    delta.send({ resource_names_subscribe: names })
    expect(await delta.end()).toEqual(refused)
  })

  it('SDS gives bundles and no key to who asks for everything', async () => {
    using client = new RawClient(agent.socket)
    for (const names of [[], ['*'], ['default', 'ROOTCA', ID, 'ALL']]) {
      const found = secretsIn(await openSds(client, names).message(1))
      expect(found.length).toBeGreaterThan(0)
      expect(found.filter(({ key, trustDomains }) => key !== undefined || !trustDomains)).toEqual([])
    }
  })

  it.each([[AS], [`${AS}/`], [`${AS}/token`], [`${AS}/anything`], ['other', AS]])(
    'FetchJWTSVID for %s and %s would be a bearer credential at the authorization server, and is refused',
    async (...audience) => {
      const ending = await connection
        .unary('SpiffeWorkloadAPI/FetchJWTSVID', { audience }, { timeout: 5_000 })
        .then(
          () => undefined,
          (ending: Ending) => ending,
        )
      expect([ending?.fault.reason, ending?.code]).toEqual(['audience_reserved', 7])
    },
  )

  it('FetchJWTSVID for any other audience is given', async () => {
    const { svids } = await connection.unary(
      'SpiffeWorkloadAPI/FetchJWTSVID',
      { audience: ['other'] },
      { timeout: 5_000 },
    )
    expect(svids).toMatchObject([{ spiffe_id: ID }])
  })

  it('made no key for what it refused', () => {
    expect(agent.daemon.status().keys).toBe(0)
  })
})

function endOf(connection: Connection, method: StreamMethod): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const open = connection.open(
      method,
      {
        onMessage: () => {
          open.cancel()
          reject(new Error('answered'))
        },
        onEnd: resolve,
      },
      {},
    )
  })
}

describe('mode: observe', () => {
  const observe = `layer: security
observe: { approver: sec@example.test, until: 2999-01-01 }
deny:
  - { target: denied, reason: under investigation }
`
  const targets = ['denied', 'open']
    .map((name) => `  - { name: ${name}, server: none, custody: headers, max_ttl: 5m, binding: [dpop] }\n`)
    .join('')
  const observed = {
    'identity.yaml': `${policy['identity.yaml'].split('targets:')[0]}targets:\n${targets}  - { name: held, server: none, custody: nothing, max_ttl: 5m, binding: [dpop] }\n`,
    'platform.yaml': `layer: platform\ntargets:\n${['denied', 'open', 'held'].map((name) => `  - { name: ${name}, origins: ['https://${name}.example.test'] }\n`).join('')}`,
    'application.yaml': `layer: application\ntargets:\n${['denied', 'open', 'held'].map((name) => `  - { name: ${name}, grants: [{ callers: [${ID}], methods: [GET], paths: [/v1/**] }] }\n`).join('')}`,
    'security.yaml': observe,
  }
  const ask = (agent: TestAgent, members: object) => call(agent.socket, 'POST', '/v1/dpop', { body: members })

  it('signs what rules would refuse, and records the refusal', async () => {
    await using agent = await startAgent({ policy: observed })
    const { status } = await ask(agent, { method: 'POST', url: 'https://open.example.test/v2/x' })
    expect(status).toBe(200)
    expect(agent.records.at(-1)).toMatchObject({
      event: 'sign.dpop',
      allowed: true,
      observed: 'policy_denied',
      target: 'open',
    })
  })

  it.each([
    ['what security denies', { method: 'GET', url: 'https://denied.example.test/v1/x' }],
    ['what custody keeps, where no grant is', { method: 'GET', url: 'https://held.example.test/v2/x' }],
    ['what custody keeps', { method: 'GET', url: 'https://held.example.test/v1/x', ath: ATH }],
    ['TRACE', { method: 'TRACE', url: 'https://open.example.test/v1/x' }],
    ['an unknown origin', { method: 'GET', url: 'https://elsewhere.example.test/' }],
  ])('still refuses %s', async (_what, members) => {
    await using agent = await startAgent({ policy: observed })
    expect((await ask(agent, members)).status).toBe(403)
  })
})
