/** The signing services of Envoy, spoken to by what is no Envoy: who asks, what is refused, what is bounded. */
import { join } from 'node:path'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Config } from '../../src/config.ts'
import { methodsOf } from '../../src/serve/messages.ts'
import { startAgent, type TestAgent } from '../support/agent.ts'
import { call } from '../support/call.ts'
import { ManualClock } from '../support/clock.ts'
import {
  answerOf,
  CHECK,
  checkOnce,
  headOf,
  type Lines,
  linesOf,
  openTry,
  outcomeOf,
  PROCESS,
  processOnce,
  removedBy,
  setBy,
} from '../support/envoy-stream.ts'
import { first, RawClient } from '../support/raw-client.ts'
import { SDS } from '../support/sds.ts'
import { until } from '../support/until.ts'

const uid = process.getuid?.() ?? 0
const ID = 'spiffe://dev.holdfast.test/envoy'
const SECOND = 'spiffe://dev.holdfast.test/second'
const URL = 'https://orders.example.test/v1/items'

const target = (name: string, more = '') =>
  `  - { name: ${name}, server: none, custody: headers, max_ttl: 5m, tokenless: true, binding: [dpop]${more} }\n`
const grant = (name: string, methods = '[GET]') =>
  `  - { name: ${name}, grants: [{ callers: [${ID}], methods: ${methods}, paths: [/v1/**] }] }\n`
const policy = {
  'identity.yaml': `layer: identity
entries:
  - { name: envoy, spiffe_id: ${ID}, selectors: ['unix:uid:${uid}'], deliver: { x509: true, jwt: false, wit: false } }
  - { name: second, spiffe_id: ${SECOND}, selectors: ['unix:uid:${uid}'], deliver: { x509: false, jwt: false, wit: false } }
  - { name: foreign, spiffe_id: 'spiffe://dev.holdfast.test/foreign', selectors: ['unix:uid:${uid + 1}'], deliver: { x509: false, jwt: false, wit: false } }
targets:
${target('orders')}${target('plain')}${target('both')}${target('traded', ', txn_token: true')}`,
  'platform.yaml': `layer: platform
targets:
  - { name: orders, origins: ['https://orders.example.test', 'https://orders.example.test:8443'] }
  - { name: plain, origins: ['http://plain.example.test'], insecure_http: true }
  - { name: both, origins: ['http://both.example.test', 'https://both.example.test'], insecure_http: true }
  - { name: traded, origins: ['https://traded.example.test'] }
`,
  'application.yaml': `layer: application\ntargets:\n${grant('orders')}${grant('plain')}${grant('both')}${grant('traded')}`,
}

type Ask = (client: RawClient, lines: Lines, choice?: Readonly<Record<string, string>>) => Promise<unknown>
const WAYS: readonly (readonly [string, Ask])[] = [
  [
    'ext_proc',
    (client, lines, choice = {}) =>
      processOnce(
        client,
        lines,
        Object.entries(choice).map(([name, value]) => [`holdfast-${name.replace('_', '-')}`, value] as const),
      ),
  ],
  ['ext_authz', (client, lines, choice) => checkOnce(client, lines, choice)],
]

let agent: TestAgent
let client: RawClient
beforeAll(async () => {
  agent = await startAgent({ policy })
  client = new RawClient(agent.socket)
})
afterAll(async () => {
  client?.[Symbol.dispose]()
  await agent?.[Symbol.asyncDispose]()
})

const proofOf = (answer: unknown) => decodeJwt(setBy(answer)['dpop'] ?? '')

describe.each(WAYS)('a request signed by %s', (_name, ask) => {
  it.each([
    ['as it is', URL, URL],
    ['without its query', `${URL}?secret=1`, URL],
    ['by TLS, where the caller of Envoy said http', 'http://orders.example.test/v1/items', URL],
    ['by TLS, where it said port 80', 'http://orders.example.test:80/v1/items', URL],
    [
      'with the host in lower case and without the default port',
      'https://ORDERS.example.test:443/v1/items',
      URL,
    ],
    [
      'with its own port',
      'http://orders.example.test:8443/v1/items',
      'https://orders.example.test:8443/v1/items',
    ],
    [
      'without TLS, where the target has none',
      'http://plain.example.test/v1/x',
      'http://plain.example.test/v1/x',
    ],
    ['by TLS, where the target has both', 'http://both.example.test/v1/x', 'https://both.example.test/v1/x'],
  ])('is proved for its URL %s', async (_what, url, htu) => {
    const answer = await ask(client, linesOf(url))
    expect([outcomeOf(answer), proofOf(answer)['htu']]).toEqual(['signed', htu])
  })

  it('is proved for the origin of the target that Envoy names, whatever its authority', async () => {
    const lines = linesOf('http://127.0.0.1:15001/v1/items')
    expect(proofOf(await ask(client, lines, { target: 'orders' }))['htu']).toBe(URL)
    // An IP literal that no target lists.
    expect(outcomeOf(await ask(client, lines))).toBe('url_refused')
  })

  it('is of the identity of the caller, whatever the message claims', async () => {
    const claimed: Lines = [
      ['x-forwarded-client-cert', `URI=${SECOND}`],
      ['holdfast-spiffe-id', SECOND],
      ['x-holdfast-caller', SECOND],
    ]
    const before = agent.records.length
    expect(outcomeOf(await ask(client, linesOf(URL, claimed)))).toBe('signed')
    const [record] = agent.records.slice(before)
    expect(record).toMatchObject({ spiffe_id: ID, pid: process.pid, uid })
  })

  it.each([
    ['an identity of somebody else', { spiffe_id: 'spiffe://dev.holdfast.test/foreign' }, 'no_identity'],
    ['an identity that is none', { spiffe_id: 'https://example.org' }, 'spiffe_id_invalid'],
    ['an own identity without a grant', { spiffe_id: SECOND }, 'policy_denied'],
    ['a target that is not there', { target: 'nowhere' }, 'target_unknown'],
    ['a target that is no name', { target: 'a/b' }, 'invalid_request'],
  ])('is refused for %s', async (_what, choice, reason) => {
    expect(outcomeOf(await ask(client, linesOf(URL), choice))).toBe(reason)
    expect(agent.records).toContainEqual(expect.objectContaining({ allowed: false, reason, uid }))
  })

  it.each([
    ['userinfo', 'https://a@orders.example.test/v1/x', 'url_refused'],
    ['a dot segment', 'https://orders.example.test/v1/../x', 'url_refused'],
    ['an escaped slash', 'https://orders.example.test/v1/a%2Fb', 'url_refused'],
    ['a backslash', 'https://orders.example.test/v1/a\\b', 'url_refused'],
    ['no authority', 'https:///v1/items', 'url_refused'],
    ['no path', 'https://orders.example.test', 'url_refused'],
    ['another origin', 'https://elsewhere.example.test/v1/x', 'target_unknown'],
  ])('is refused for a URL with %s, on record', async (_what, url, reason) => {
    expect(outcomeOf(await ask(client, linesOf(url)))).toBe(reason)
    // One that was repeated shares a record.
    const said = { event: 'sign.headers', allowed: false, reason, pid: process.pid, uid }
    expect(agent.records).toContainEqual(expect.objectContaining(said))
  })

  it('is refused for a method that is none, or that nobody may have granted', async () => {
    const by = (method: string): Lines => [[':method', method], ...linesOf(URL).slice(1)]
    expect(outcomeOf(await ask(client, by('GET /')))).toBe('invalid_request')
    expect(outcomeOf(await ask(client, by('TRACE')))).toBe('policy_denied')
  })

  it('loses credentials under all of their spellings', async () => {
    const forged: Lines = [
      ['authorization', 'x'],
      ['Workload_Identity-Token', 'x'],
      ['signature-input', 'x'],
      ['txn-token', 'x'],
      ['cookie', 'x'],
    ]
    const answer = await ask(client, linesOf(URL, forged))
    expect(removedBy(answer)).toEqual(
      expect.arrayContaining(['authorization', 'Workload_Identity-Token', 'signature-input', 'txn-token']),
    )
    expect(removedBy(answer)).not.toContain('cookie')
    expect(removedBy(answer)).not.toContain('dpop')
  })

  it('keeps its one Txn-Token where the target takes them, and no look-alike', async () => {
    const url = 'https://traded.example.test/v1/items'
    const one: Lines = [['txn-token', 'a.b.c']]
    const answer = await ask(client, linesOf(url, [...one, ['Txn_Token', 'd.e.f']]))
    expect(removedBy(answer)).toContain('Txn_Token')
    expect(removedBy(answer)).not.toContain('txn-token')
    const twice: Lines = [['Txn-Token', 'd.e.f'], ...one]
    expect(outcomeOf(await ask(client, linesOf(url, twice)))).toBe('header_refused')
    expect(outcomeOf(await ask(client, linesOf(url, [['txn-token', 'a.b.c,d.e.f']])))).toBe('header_refused')
  })

  it.each(['proxy-authorization', 'oauth-client-attestation', 'oauth-client-attestation-pop'])(
    'loses %s, which Envoy may not have shown',
    async (name) => {
      expect(removedBy(await ask(client, linesOf(URL)))).toContain(name)
    },
  )

  it('is refused with more headers than any request has', async () => {
    const many = Array.from({ length: 300 }, (_, at) => [`x-${at}`, 'v'] as const)
    expect(outcomeOf(await ask(client, linesOf(URL, many)))).toBe('header_refused')
  })
})

describe('a stream of ext_proc', () => {
  const head = { request_headers: headOf(linesOf(URL)) }

  it('has a proof of its own for each try', async () => {
    const tries = [await processOnce(client, linesOf(URL)), await processOnce(client, linesOf(URL))]
    expect(new Set(tries.map((each) => proofOf(each).jti)).size).toBe(2)
  })

  it('learns the nonce of an answer, keeps it from the application, and ends in good order', async () => {
    const stream = openTry(client)
    stream.send(head)
    await stream.message(1)
    const nonce: Lines = [
      [':status', '401'],
      ['www-authenticate', 'DPoP error="use_dpop_nonce"'],
      ['dpop-nonce', 'n-1'],
      ['holdfast-anything', 'x'],
    ]
    stream.send({ response_headers: headOf(nonce) })
    const { response_headers: answer } = await stream.message(2)
    expect(answer.response.header_mutation).toEqual({ remove_headers: ['dpop-nonce', 'holdfast-anything'] })
    expect((await stream.end()).code).toBe('OK')
    expect(proofOf(await processOnce(client, linesOf(URL)))['nonce']).toBe('n-1')
  })

  it('whose filter does not show answers ends with its first word', async () => {
    const stream = openTry(client, [['holdfast-answers', 'unheard']])
    stream.send(head)
    expect(outcomeOf(await stream.message(1))).toBe('signed')
    expect((await stream.end()).code).toBe('OK')
  })

  it('is refused where answers are to be anything else', async () => {
    const answer = await processOnce(client, linesOf(URL), [['holdfast-answers', 'heard']])
    expect(outcomeOf(answer)).toBe('invalid_request')
  })

  const twice: Lines = [
    ['dpop-nonce', 'n-2'],
    ['dpop-nonce', 'n-3'],
  ]
  const useless: readonly (readonly [string, Lines])[] = [
    ['two nonces', twice],
    ['a nonce that is none', [['dpop-nonce', 'n 4']]],
    ['a nonce that is long', [['dpop-nonce', 'n'.repeat(10_000)]]],
  ]
  it.each(useless)('learns nothing from %s', async (_what, lines) => {
    const before = proofOf(await processOnce(client, linesOf(URL)))['nonce']
    const stream = openTry(client)
    stream.send(head)
    await stream.message(1)
    stream.send({ response_headers: headOf([[':status', '200'], ...lines]) })
    await stream.message(2)
    expect(proofOf(await processOnce(client, linesOf(URL)))['nonce']).toBe(before)
  })

  it('that begins with an answer changes nothing and ends', async () => {
    const stream = openTry(client)
    stream.send({ response_headers: headOf([[':status', '200']]) })
    expect((await stream.message(1)).response_headers.response.header_mutation).toEqual({
      remove_headers: ['dpop-nonce'],
    })
    expect((await stream.end()).code).toBe('OK')
  })

  it.each([
    ['a body first', [{ request_body: {} }], 'unimplemented'],
    ['trailers first', [{ request_trailers: {} }], 'unimplemented'],
    ['no phase at all', [{}], 'invalid_request'],
    ['a head without a line', [{ request_headers: {} }], 'invalid_request'],
    ['body modes', [{ ...head, protocol_config: { request_body_mode: 2 } }], 'unimplemented'],
    ['a body mode of answers', [{ ...head, protocol_config: { response_body_mode: 1 } }], 'unimplemented'],
  ])('with %s is answered and ended', async (_what, messages, reason) => {
    const stream = openTry(client)
    for (const message of messages) stream.send(message)
    expect(outcomeOf(await answerOf(stream))).toBe(reason)
    expect((await stream.end()).code).toBe('OK')
  })

  it.each([
    ['a second head', head, 'invalid_request'],
    ['a body', { request_body: {} }, 'unimplemented'],
    ['a body of the answer', { response_body: {} }, 'unimplemented'],
  ])('with %s after its head is answered and ended', async (_what, message, reason) => {
    const stream = openTry(client)
    stream.send(head)
    await stream.message(1)
    stream.send(message)
    expect(outcomeOf(await stream.message(2))).toBe(reason)
    expect((await stream.end()).code).toBe('OK')
  })

  it('in observability_mode is an error: nothing would be signed', async () => {
    const stream = openTry(client)
    stream.send({ ...head, observability_mode: true })
    expect((await stream.end()).code).toBe('INVALID_ARGUMENT')
  })

  it('with a message over 1 MiB ends, and the agent goes on', async () => {
    const stream = openTry(client)
    stream.send({ request_headers: headOf([['x', 'x'.repeat(1_100_000)]]) })
    expect((await stream.end()).code).toBe('RESOURCE_EXHAUSTED')
    expect(outcomeOf(await processOnce(client, linesOf(URL)))).toBe('signed')
  })

  it('ends with the lease that it hangs on', async () => {
    await using own = await startAgent({ policy })
    using caller = new RawClient(own.socket)
    const stream = openTry(caller)
    stream.send(head)
    await stream.message(1)
    await call(own.adminSocket, 'POST', '/v1/revoke', { body: { pid: process.pid } })
    expect(await stream.end()).toMatchObject({ code: 'PERMISSION_DENIED' })
  })

  it('that waits for an answer ends in good order when the agent does', async () => {
    await using own = await startAgent({ policy })
    using caller = new RawClient(own.socket)
    const stream = openTry(caller)
    stream.send(head)
    await stream.message(1)
    await own.daemon.stop(1_000)
    expect((await stream.end()).code).toBe('OK')
  })

  it('is bounded in number by uid', async () => {
    const config = (given: Config): Config => ({ ...given, limits: { ...given.limits, callsPerUid: 3 } })
    await using own = await startAgent({ policy, config })
    using caller = new RawClient(own.socket)
    const silent = [openTry(caller), openTry(caller), openTry(caller)]
    for (const stream of silent) stream.send(head)
    for (const stream of silent) await stream.message(1)
    const one = openTry(caller)
    one.send(head)
    expect((await one.end()).code).toBe('UNAVAILABLE')
    silent[0]?.cancel()
    await until('a place', async () => outcomeOf(await processOnce(caller, linesOf(URL))) === 'signed')
  })

  it('that says nothing is ended, and one that waits too long for an answer goes on unheard', async () => {
    const clock = new ManualClock()
    await using own = await startAgent({ policy, clock })
    using caller = new RawClient(own.socket)
    const [silent, signed] = [openTry(caller), openTry(caller)]
    signed.send(head)
    await signed.message(1)
    // The other stream has begun too: its call is on the same connection, before this one.
    clock.advance(5_000)
    expect((await silent.end()).code).toBe('DEADLINE_EXCEEDED')
    expect(signed.ending).toBeUndefined()
    clock.advance(60_000)
    expect((await signed.end()).code).toBe('OK')
  })
})

describe('signing methods', () => {
  const METHODS = [
    ...Object.keys(methodsOf('holdfast.v1.ProofService')).map((name) => `holdfast.v1.ProofService/${name}`),
    ...Object.keys(methodsOf('SpiffeWorkloadAPI')).map((name) => `SpiffeWorkloadAPI/${name}`),
    ...Object.keys(methodsOf(SDS)).map((name) => `${SDS}/${name}`),
    PROCESS,
    CHECK,
  ]
  let every: TestAgent
  beforeAll(async () => {
    every = await startAgent({
      policy,
      config: (config) => ({
        ...config,
        verifier: { ...config.verifier, socket: 'on' },
        egress: { ...config.egress, socket: 'on' },
      }),
    })
  })
  afterAll(async () => every?.[Symbol.asyncDispose]())

  const doors = ['egress', 'verifier', 'admin'] as const
  const elsewhere = doors.flatMap((door) => METHODS.map((method) => [door, method] as const))
  // There it verifies, and never signs.
  const cases = elsewhere.filter(([door, method]) => door !== 'verifier' || method !== CHECK)

  it.each(cases)('are not served on %s.sock: %s', async (door, method) => {
    const socket = door === 'admin' ? every.adminSocket : join(every.dir, 'public', `${door}.sock`)
    using caller = new RawClient(socket)
    expect((await first(caller, method)).code).toBe('UNIMPLEMENTED')
  })

  it('sign nothing by the Check of verifier.sock', async () => {
    using caller = new RawClient(join(every.dir, 'public', 'verifier.sock'))
    const answer = await checkOnce(caller, linesOf(URL), { target: 'orders' })
    expect([setBy(answer), answer.denied_response !== undefined]).toEqual([{}, true])
  })

  it.each(
    doors.flatMap((door) =>
      ['dpop', 'wpt', 'proofs', 'headers', 'token'].map((name) => [door, name] as const),
    ),
  )('are not served on %s.sock as POST /v1/%s', async (door, name) => {
    const socket = door === 'admin' ? every.adminSocket : join(every.dir, 'public', `${door}.sock`)
    const { status, body } = await call(socket, 'POST', `/v1/${name}`, { body: { method: 'GET', url: URL } })
    expect([status, body.error.reason]).toEqual(
      door === 'egress' ? [403, 'target_unknown'] : [404, 'not_found'],
    )
  })
})
