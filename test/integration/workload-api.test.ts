/**
 * The Workload API over its real socket: every row of the SPIFFE Workload Endpoint (WE) and Workload API (WA) checklist
 * that asks something of a server.
 */

import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { calculateJwkThumbprint, createLocalJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose'
import { FileDescriptorProto } from 'protobufjs/ext/descriptor/index.js'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { Fault } from '../../src/base/fault.ts'
import { refusedCaller } from '../../src/serve/caller.ts'
import { openGrpc } from '../../src/serve/grpc.ts'
import { OwnerLimits } from '../../src/serve/limits.ts'
import { Turns } from '../../src/serve/turns.ts'
import { type AgentOptions, startAgent, type TestAgent } from '../support/agent.ts'
import { ManualClock } from '../support/clock.ts'
import { type Identity, identityPolicy, idOf, TRUST_DOMAIN } from '../support/identities.ts'
import { opensslVerify } from '../support/openssl.ts'
import { type Ending, first, type Headers, type Message, RawClient, SECURITY } from '../support/raw-client.ts'

const API = 'SpiffeWorkloadAPI'
const STREAMS = ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles', 'FetchWITSVID', 'FetchWITBundles']
const JWT = `${API}/FetchJWTSVID`
const VALIDATE = `${API}/ValidateJWTSVID`
/** Every RPC that answers only attested callers, with a request that would be answered. */
const ENTITLED: readonly (readonly [string, object])[] = [
  ...STREAMS.map((name) => [`${API}/${name}`, {}] as const),
  [JWT, { audience: ['orders'] }],
]
const GUARDED: readonly (readonly [string, object])[] = [
  ...ENTITLED,
  [VALIDATE, { audience: 'orders', svid: 'x' }],
  ['holdfast.v1.ProofService/SignProof', { requests: [] }],
  ['holdfast.v1.ProofService/SignProofs', { requests: [] }],
  ['holdfast.v1.ProofService/WatchKeys', {}],
  ['holdfast.v1.ProofService/ListKeys', {}],
  ['holdfast.v1.ProofService/RequestHeaders', {}],
  ['holdfast.v1.ProofService/ReportResponse', {}],
]
interface Descriptor {
  readonly service: readonly {
    readonly name: string
    readonly method: readonly { readonly name: string }[]
  }[]
}
const MINUTE = 60_000
const WEB: Identity = { path: 'web', hint: 'internal' }
const SHOP: Identity = { path: 'shop', hint: 'external' }
const NOBODY: Identity = { path: 'else', uid: 4_000_000 }

const withIdentities = (identities: readonly Identity[], options: AgentOptions = {}) =>
  startAgent({ ...options, policy: identityPolicy(identities) })

const refused = (code: string, reason: string) =>
  expect.objectContaining({ code, info: expect.objectContaining({ reason, domain: 'holdfast.dev' }) })

async function fetchJwt(agent: TestAgent, request: object): Promise<Message & Ending> {
  using client = new RawClient(agent.socket)
  return await client.unary(JWT, request)
}

/** Certificates of concatenated DER. */
function certificatesOf(der: Buffer): readonly X509Certificate[] {
  const found: X509Certificate[] = []
  for (let at = 0; at < der.length; ) {
    const certificate = new X509Certificate(der.subarray(at))
    found.push(certificate)
    at += certificate.raw.length
  }
  return found
}

describe('the endpoint', () => {
  it('WE-1, WE-3, WA-2: answers the first message at once, in plaintext, to a caller that shows nothing', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    for (const [method, request] of ENTITLED) {
      expect(await first(client, method, request), method).not.toHaveProperty('code')
    }
  })

  const WRONG: readonly (readonly [string, Headers])[] = [
    ['without the security header', []],
    ['with a false security header', [['workload.spiffe.io', 'false']]],
    ['with a security header in another case', [['workload.spiffe.io', 'True']]],
    ['with an empty security header', [['workload.spiffe.io', '']]],
    ['with the security header twice', [...SECURITY, ...SECURITY]],
    ['with a true and a false security header', [...SECURITY, ['workload.spiffe.io', 'false']]],
  ]
  it.each(WRONG)('WE-2: refuses every RPC %s, whoever calls', async (_what, headers) => {
    for (const identity of [WEB, NOBODY]) {
      await using agent = await withIdentities([identity])
      using client = new RawClient(agent.socket)
      for (const [method, request] of GUARDED) {
        const answer = await first(client, method, request, headers)
        expect(answer, method).toEqual(refused('INVALID_ARGUMENT', 'header_missing'))
        expect(answer.details).toBe('security header missing from request')
      }
    }
  })

  it.each(['not_ready', 'draining'] as const)('WE-5: answers UNAVAILABLE while %s', async (reason) => {
    await using agent = await withIdentities([WEB])
    const admit = () => {
      throw new Fault(reason)
    }
    const handlers = { FetchX509SVID: { stream: () => {} }, FetchJWTSVID: { unary: () => ({}) } }
    const grpc = openGrpc(
      { [API]: handlers },
      {
        clock: systemClock,
        admit,
        onCall: () => {},
        streamsPerConnection: 10,
        calls: new OwnerLimits('calls', 'too_many_calls', 100, 100),
        turns: new Turns(),
      },
    )
    const path = join(agent.dir, 'closed.sock')
    const server = createServer((socket) =>
      grpc.inject(socket, refusedCaller(1, 1, new Fault('no_identity'))),
    )
    await new Promise<void>((resolve) => server.listen(path, resolve))
    using client = new RawClient(path)
    expect(await first(client, `${API}/FetchX509SVID`)).toEqual(refused('UNAVAILABLE', reason))
    expect(await first(client, JWT, { audience: ['a'] })).toEqual(refused('UNAVAILABLE', reason))
    grpc.stop()
    server.close()
  })

  it('WE-5: answers UNAVAILABLE when the peer cannot be attested', async () => {
    await using agent = await withIdentities([WEB])
    const grpc = openGrpc(
      { [API]: { FetchJWTSVID: { unary: (caller) => ({ svids: [caller.workload()] }) } } },
      {
        clock: systemClock,
        admit: () => {},
        onCall: () => {},
        streamsPerConnection: 10,
        calls: new OwnerLimits('calls', 'too_many_calls', 100, 100),
        turns: new Turns(),
      },
    )
    const path = join(agent.dir, 'unknown.sock')
    const server = createServer((socket) =>
      grpc.inject(socket, refusedCaller(1, 1, new Fault('attestation_failed'))),
    )
    await new Promise<void>((resolve) => server.listen(path, resolve))
    using client = new RawClient(path)
    expect(await first(client, JWT, { audience: ['a'] })).toEqual(
      refused('UNAVAILABLE', 'attestation_failed'),
    )
    grpc.stop()
    server.close()
  })

  it('WE-5: answers UNIMPLEMENTED to RPCs and services that do not exist', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    for (const method of [`${API}/FetchNothing`, 'spiffe.broker.API/FetchJWTSVID', `${API}/fetchx509svid`]) {
      expect(await client.unary(method, {}), method).toMatchObject({ code: 'UNIMPLEMENTED' })
    }
  })

  it('WE-7: adds nothing to the Workload API service: signing is a service of its own', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const method = 'grpc.reflection.v1.ServerReflection/ServerReflectionInfo'
    const { file_descriptor_response: answer } = await first(
      client,
      method,
      { file_containing_symbol: API },
      [],
    )
    const [file] = answer.file_descriptor_proto as Buffer[]
    const { service } = FileDescriptorProto.decode(file ?? Buffer.alloc(0)) as unknown as Descriptor
    const rpcs = service.map(({ name, method }) => [name, method.map((one) => one.name).sort()])
    const unary = ['FetchJWTSVID', 'ValidateJWTSVID']
    expect(rpcs).toEqual([[API, [...STREAMS, ...unary].sort()]])
  })

  it.each(['v1', 'v1alpha'])('WE-8: offers reflection %s without the header', async (version) => {
    await using agent = await withIdentities([NOBODY])
    using client = new RawClient(agent.socket)
    const method = `grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`
    const { list_services_response: answer } = await first(client, method, { list_services: '*' }, [])
    const names = answer.service.map((service: { name: string }) => service.name)
    expect(names).toEqual(expect.arrayContaining([API, 'holdfast.v1.ProofService']))
  })

  it('answers health checks without the header', async () => {
    await using agent = await withIdentities([NOBODY])
    using client = new RawClient(agent.socket)
    for (const service of ['', API, 'holdfast.v1.ProofService'])
      expect(await client.unary('grpc.health.v1.Health/Check', { service }, [])).toEqual({
        status: 'SERVING',
      })
    const service = 'ä\r\ngrpc-status: 0%'
    expect(await client.unary('grpc.health.v1.Health/Check', { service }, [])).toMatchObject({
      code: 'NOT_FOUND',
      details: expect.stringContaining(service),
    })
  })

  it('refuses requests over 4 MiB as RESOURCE_EXHAUSTED and goes on serving the connection', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const svid = 'x'.repeat(4 * 1024 * 1024 + 1)
    expect(await client.unary(VALIDATE, { audience: 'a', svid })).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    })
    expect(await client.unary(JWT, { audience: ['a'] })).toHaveProperty('svids')
  })
})

describe('entitlement', () => {
  it.each(ENTITLED)('WA-7: tells a caller without an identity so on %s', async (method, request) => {
    await using agent = await withIdentities([NOBODY])
    using client = new RawClient(agent.socket)
    const answer = await first(client, method, request)
    expect(answer).toEqual(refused('PERMISSION_DENIED', 'no_identity'))
    expect(answer.details).toContain('no identity issued')
  })

  it('WA-7: refuses a SPIFFE ID that is not the caller’s own', async () => {
    await using agent = await withIdentities([WEB, NOBODY])
    using client = new RawClient(agent.socket)
    for (const spiffe_id of [idOf('else'), 'spiffe://elsewhere.test/web', `${idOf('web')}/x`]) {
      const jwt = await client.unary(JWT, { audience: ['a'], spiffe_id })
      expect(jwt).toEqual(refused('PERMISSION_DENIED', 'no_identity'))
      const wit = await first(client, `${API}/FetchWITSVID`, { spiffe_id })
      expect(wit).toEqual(refused('PERMISSION_DENIED', 'no_identity'))
    }
  })

  it.each(STREAMS)('WA-7: ends %s with PERMISSION_DENIED when the entitlement ends', async (name) => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const stream = client.open(`${API}/${name}`, {})
    await stream.message(1)
    await agent.setPolicy(identityPolicy([NOBODY]))
    expect(await stream.end()).toEqual(refused('PERMISSION_DENIED', 'no_identity'))
    expect(stream.messages).toHaveLength(1)
  })

  it.each([
    ['x509', `${API}/FetchX509SVID`, {}],
    ['jwt', JWT, { audience: ['a'] }],
    ['wit', `${API}/FetchWITSVID`, {}],
  ])('withholds what the entry does not deliver (%s), but never bundles', async (kind, method, request) => {
    await using agent = await withIdentities([{ ...WEB, deliver: { [kind]: false } }])
    using client = new RawClient(agent.socket)
    expect(await first(client, method, request)).toEqual(refused('PERMISSION_DENIED', 'delivery_denied'))
    for (const name of STREAMS.filter((each) => each.endsWith('Bundles')))
      expect(await first(client, `${API}/${name}`)).toHaveProperty('bundles')
  })
})

describe('streams', () => {
  const STATES: readonly string[] = ['FetchX509SVID', 'FetchWITSVID']

  it.each(STATES)('WA-2: %s pushes the full set when policy adds an identity', async (name) => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const stream = client.open(`${API}/${name}`, {})
    const before = await stream.message(1)
    await agent.setPolicy(identityPolicy([SHOP, WEB]))
    const after = await stream.message(2)
    expect(after.svids.map((svid: Message) => svid.spiffe_id)).toEqual([idOf('shop'), idOf('web')])
    expect(after.svids[1]).toEqual(before.svids[0])
  })

  it.each(STATES)('WA-2: %s pushes the full set when one identity is renewed', async (name) => {
    const clock = new ManualClock()
    await using agent = await withIdentities([WEB, SHOP], { clock })
    using client = new RawClient(agent.socket)
    const stream = client.open(`${API}/${name}`, {})
    const before = await stream.message(1)
    // Jittered: the two are renewed at different moments, and each time both are sent.
    clock.advance(33 * MINUTE + 2_000)
    const both = (message: Message) =>
      [0, 1].every((index) => !isDeepStrictEqual(message.svids[index], before.svids[index]))
    while (!both(await stream.message(stream.messages.length)))
      await stream.message(stream.messages.length + 1)
    for (const { svids } of stream.messages)
      expect(svids.map((svid: Message) => svid.spiffe_id)).toEqual([idOf('web'), idOf('shop')])
  })

  it.each([
    [
      'FetchX509Bundles',
      (message: Message) => certificatesOf(message.bundles[`spiffe://${TRUST_DOMAIN}`]).length,
    ],
    ['FetchJWTBundles', (message: Message) => keysOf(message).length],
    ['FetchWITBundles', (message: Message) => keysOf(message).length],
  ])('WA-2: %s pushes the new key before anything is signed with it', async (name, count) => {
    const clock = new ManualClock()
    const hours = 4 * 3600
    await using agent = await withIdentities([WEB], {
      clock,
      config: (config) => ({ ...config, authority: { ...config.authority, caTtl: hours, keyTtl: hours } }),
    })
    using client = new RawClient(agent.socket)
    const stream = client.open(`${API}/${name}`, {})
    expect(count(await stream.message(1))).toBe(1)
    clock.advance(180 * MINUTE)
    expect(count(await stream.message(2))).toBe(2)
  })

  it('WA-2: nothing is pushed while nothing changes, not even by a reload', async () => {
    const clock = new ManualClock()
    await using agent = await withIdentities([WEB], { clock })
    using client = new RawClient(agent.socket)
    const streams = STREAMS.map((name) => client.open(`${API}/${name}`, {}))
    for (const stream of streams) await stream.message(1)
    const { 'identity.yaml': text } = identityPolicy([WEB])
    await agent.setPolicy({ 'identity.yaml': `# the same\n${text}` })
    clock.advance(10 * MINUTE)
    // An answer on the same connection comes after whatever was pushed before it.
    await client.unary(JWT, { audience: ['a'] })
    expect(streams.map((stream) => stream.messages.length)).toEqual([1, 1, 1, 1, 1])
  })

  it('WA-2: a reader that comes back gets whole keys and the newest state, not a queue', async () => {
    const clock = new ManualClock()
    const named = (round: number) => {
      const dnsNames = Array.from(
        { length: 30 },
        (_, index) => `${'x'.repeat(60)}.r${round}.n${index}.example.test`,
      )
      return identityPolicy([{ ...WEB, dnsNames }])
    }
    await using agent = await startAgent({ clock, policy: named(0) })
    using client = new RawClient(agent.socket)
    const stream = client.open(`${API}/FetchX509SVID`, {})
    await stream.message(1)
    stream.pause()
    const rounds = 60
    for (let round = 1; round <= rounds; round++) {
      await agent.setPolicy(named(round))
      await client.unary(JWT, { audience: ['a'] })
    }
    clock.advance(2 * MINUTE)
    stream.resume()
    const newest = `.r${rounds}.`
    const isNewest = (message: Message) => message.svids[0].x509_svid.includes(newest)
    while (!isNewest(await stream.message(stream.messages.length)))
      await stream.message(stream.messages.length + 1)
    expect(stream.messages.length).toBeLessThan(rounds)
    for (const { svids } of stream.messages) {
      const key = createPrivateKey({ key: svids[0].x509_svid_key, format: 'der', type: 'pkcs8' })
      expect(new X509Certificate(svids[0].x509_svid).checkPrivateKey(key)).toBe(true)
    }
  })

  it('WA-6: keeps the order of policy, over calls and reloads', async () => {
    const many = ['c', 'a', 'b', 'd'].map((path) => ({ path }))
    await using agent = await withIdentities(many)
    using client = new RawClient(agent.socket)
    const order = async () => ({
      x509: (await first(client, `${API}/FetchX509SVID`)).svids.map((svid: Message) => svid.spiffe_id),
      wit: (await first(client, `${API}/FetchWITSVID`)).svids.map((svid: Message) => svid.spiffe_id),
      jwt: (await client.unary(JWT, { audience: ['x'] })).svids.map((svid: Message) => svid.spiffe_id),
    })
    const ids = many.map(({ path }) => idOf(path))
    const expected = { x509: ids, wit: ids, jwt: ids }
    expect(await order()).toEqual(expected)
    await agent.setPolicy(identityPolicy([...many, { path: 'e', uid: 4_000_000 }]))
    expect(await order()).toEqual(expected)
  })

  it('WA-5: gives a hint once in a response, to the first identity that has it', async () => {
    const same = [
      { path: 'a', hint: 'one' },
      { path: 'b', hint: 'one' },
      { path: 'c', hint: 'two' },
    ]
    await using agent = await withIdentities(same)
    using client = new RawClient(agent.socket)
    const hints = (message: Message) => message.svids.map((svid: Message) => svid.hint ?? '')
    expect(hints(await first(client, `${API}/FetchX509SVID`))).toEqual(['one', '', 'two'])
    expect(hints(await first(client, `${API}/FetchWITSVID`))).toEqual(['one', '', 'two'])
    expect(hints(await client.unary(JWT, { audience: ['x'] }))).toEqual(['one', '', 'two'])
  })
})

describe('X.509-SVIDs', () => {
  it.each([false, true])(
    'WA-4: are DER, leaf first, with their key and roots (intermediate: %s)',
    async (below) => {
      await using agent = await withIdentities([WEB], {
        config: (config) => ({ ...config, authority: { ...config.authority, intermediate: below } }),
      })
      using client = new RawClient(agent.socket)
      const { svids } = await first(client, `${API}/FetchX509SVID`)
      const { spiffe_id, x509_svid, x509_svid_key, bundle } = svids[0]
      const chain = certificatesOf(x509_svid)
      const roots = certificatesOf(bundle)
      expect(spiffe_id).toBe(idOf('web'))
      expect(chain.map((certificate) => certificate.ca)).toEqual(below ? [false, true] : [false])
      expect(chain[0]?.subjectAltName).toBe(`URI:${idOf('web')}`)
      const key = createPrivateKey({ key: x509_svid_key, format: 'der', type: 'pkcs8' })
      expect(chain[0]?.checkPrivateKey(key)).toBe(true)
      expect(createPublicKey(key).asymmetricKeyType).toBe('ec')
      const raw = (certificates: readonly X509Certificate[]) =>
        certificates.map((certificate) => certificate.raw)
      const now = Math.floor(Date.now() / 1000)
      for (const purpose of ['sslserver', 'sslclient'])
        expect(opensslVerify(raw(chain), raw(roots), now, purpose)).toBe('OK')
      const [, other] = [0, await otherRoots()]
      expect(opensslVerify(raw(chain), other, now)).not.toBe('OK')
    },
  )

  it('WA-8: stand in bundles keyed by the SPIFFE ID of the trust domain, the same roots on every RPC', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const { svids, federated_bundles } = await first(client, `${API}/FetchX509SVID`)
    const { bundles } = await first(client, `${API}/FetchX509Bundles`)
    expect(bundles).toEqual({ [`spiffe://${TRUST_DOMAIN}`]: svids[0].bundle })
    expect(Object.keys(federated_bundles ?? {})).not.toContain(`spiffe://${TRUST_DOMAIN}`)
  })
})

async function otherRoots(): Promise<readonly Buffer[]> {
  await using other = await withIdentities([WEB])
  using client = new RawClient(other.socket)
  const { bundles } = await first(client, `${API}/FetchX509Bundles`)
  return certificatesOf(bundles[`spiffe://${TRUST_DOMAIN}`]).map((certificate) => certificate.raw)
}

function keysOf(message: Message): readonly Message[] {
  return JSON.parse(message.bundles[`spiffe://${TRUST_DOMAIN}`].toString()).keys
}

describe('JWT-SVIDs', () => {
  it.each([
    ['no audience', { audience: [] }, 'invalid_request'],
    ['an empty audience', { audience: [''] }, 'invalid_request'],
    ['an empty audience among others', { audience: ['a', ''] }, 'invalid_request'],
    ['too many audiences', { audience: Array.from({ length: 33 }, (_, n) => `a${n}`) }, 'invalid_request'],
    ['a malformed SPIFFE ID', { audience: ['a'], spiffe_id: 'spiffe://UPPER/x' }, 'spiffe_id_invalid'],
    ['a SPIFFE ID of another scheme', { audience: ['a'], spiffe_id: 'https://a/b' }, 'spiffe_id_invalid'],
  ])('WA-3: refuses %s as INVALID_ARGUMENT', async (_what, request, reason) => {
    await using agent = await withIdentities([WEB])
    expect(await fetchJwt(agent, request)).toEqual(refused('INVALID_ARGUMENT', reason))
  })

  it('WA-9: carry the audiences as an array, one token an identity, or only the one asked for', async () => {
    await using agent = await withIdentities([WEB, SHOP])
    const all = await fetchJwt(agent, { audience: ['orders', 'stock'] })
    expect(all.svids.map((svid: Message) => svid.spiffe_id)).toEqual([idOf('web'), idOf('shop')])
    for (const { svid, spiffe_id } of all.svids) {
      expect(decodeJwt(svid)).toMatchObject({ sub: spiffe_id, aud: ['orders', 'stock'] })
      expect(Object.keys(decodeProtectedHeader(svid)).sort()).toEqual(['alg', 'kid', 'typ'])
    }
    const one = await fetchJwt(agent, { audience: ['orders'], spiffe_id: idOf('shop') })
    expect(one.svids).toHaveLength(1)
    expect(decodeJwt(one.svids[0].svid)).toMatchObject({ sub: idOf('shop'), aud: ['orders'] })
  })

  it('WA-10: verify under a standard JWK Set that holds nothing but their keys', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const message = await first(client, `${API}/FetchJWTBundles`)
    expect(Object.keys(message.bundles)).toEqual([`spiffe://${TRUST_DOMAIN}`])
    const keys = keysOf(message)
    const { svids } = await client.unary(JWT, { audience: ['orders'] })
    const { payload } = await jwtVerify(svids[0].svid, createLocalJWKSet({ keys: forJose(keys) }), {
      audience: 'orders',
    })
    expect(payload.sub).toBe(idOf('web'))
    for (const key of keys) {
      expect(key).not.toHaveProperty('x5c')
      expect(key).not.toHaveProperty('d')
      expect([undefined, 'jwt-svid']).toContain(key.use)
      expect(key.kid).toEqual(expect.any(String))
    }
  })

  it('are the same ones for a second call, until half their life has passed', async () => {
    const clock = new ManualClock()
    await using agent = await withIdentities([WEB], { clock })
    const token = async () => (await fetchJwt(agent, { audience: ['a'] })).svids[0].svid
    const one = await token()
    expect(await token()).toBe(one)
    clock.advance(3 * MINUTE)
    expect(await token()).not.toBe(one)
  })

  const SERVER = `targets:
  - name: orders
    server: { issuer: https://as.example.test, token_endpoint: https://as.example.test/token }
    custody: headers
`
  it.each([
    ['the issuer', ['https://as.example.test']],
    ['the token endpoint', ['https://as.example.test/token']],
    ['something on its origin', ['https://as.example.test/other?x']],
    ['one in a list', ['orders', 'https://as.example.test']],
  ])('are refused for a reserved audience: %s', async (_what, audience) => {
    await using agent = await startAgent({ policy: identityPolicy([WEB], SERVER) })
    expect(await fetchJwt(agent, { audience })).toEqual(refused('PERMISSION_DENIED', 'audience_reserved'))
    const exempt = await fetchJwt(agent, { audience: ['orders'] })
    expect(exempt.svids).toHaveLength(1)
  })

  it('reach a reserved audience only for the entries that list it', async () => {
    const issuer = 'https://as.example.test'
    const listed = { ...SHOP, audiences: [issuer] }
    await using agent = await startAgent({ policy: identityPolicy([WEB, listed], SERVER) })
    const { svids } = await fetchJwt(agent, { audience: [issuer] })
    expect(svids.map((svid: Message) => svid.spiffe_id)).toEqual([idOf('shop')])
    const web = await fetchJwt(agent, { audience: [issuer], spiffe_id: idOf('web') })
    expect(web).toEqual(refused('PERMISSION_DENIED', 'audience_reserved'))
  })

  it('are refused for an audience that a reload made reserved, though one was cached', async () => {
    await using agent = await withIdentities([WEB])
    expect(await fetchJwt(agent, { audience: ['https://as.example.test'] })).toHaveProperty('svids')
    await agent.setPolicy(identityPolicy([WEB], SERVER))
    const answer = await fetchJwt(agent, { audience: ['https://as.example.test'] })
    expect(answer).toEqual(refused('PERMISSION_DENIED', 'audience_reserved'))
  })
})

describe('ValidateJWTSVID', () => {
  it.each([
    ['no audience', { audience: '', svid: 'x' }],
    ['no SVID', { audience: 'a', svid: '' }],
  ])('WA-3: refuses %s as INVALID_ARGUMENT', async (_what, request) => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    expect(await client.unary(VALIDATE, request)).toEqual(refused('INVALID_ARGUMENT', 'invalid_request'))
  })

  it('WA-11: shows the SPIFFE ID and the claims, to callers without an identity too', async () => {
    await using agent = await withIdentities([WEB])
    const { svid } = (await fetchJwt(agent, { audience: ['orders', 'stock'] })).svids[0]
    await agent.setPolicy(identityPolicy([NOBODY]))
    using client = new RawClient(agent.socket)
    const { spiffe_id, claims } = await client.unary(VALIDATE, { audience: 'stock', svid })
    expect(spiffe_id).toBe(idOf('web'))
    const { sub, aud, exp } = decodeJwt(svid)
    expect(claims.fields.sub).toEqual({ stringValue: sub })
    expect(claims.fields.exp).toEqual({ numberValue: exp })
    const shown = claims.fields.aud.listValue.values.map((value: Message) => value.stringValue)
    expect(shown).toEqual(aud)
  })

  it.each([
    ['of another audience', (token: string) => token, 'third', 'svid_audience'],
    ['in another case of the audience', (token: string) => token, 'Orders', 'svid_audience'],
    ['with a changed signature', (token: string) => `${token.slice(0, -6)}AAAAAA`, 'orders', 'svid_invalid'],
    ['with a changed payload', swapSubject, 'orders', 'svid_invalid'],
    ['that is no JWT', () => 'a.b.c', 'orders', 'svid_invalid'],
  ])('WA-11: refuses a token %s', async (_what, change, audience, reason) => {
    await using agent = await withIdentities([WEB])
    const { svid } = (await fetchJwt(agent, { audience: ['orders'] })).svids[0]
    using client = new RawClient(agent.socket)
    const answer = await client.unary(VALIDATE, { audience, svid: change(svid) })
    expect(answer).toEqual(refused('INVALID_ARGUMENT', reason))
    expect(answer.details).not.toContain(svid.slice(0, 20))
  })

  it('WA-11: refuses a token that has expired', async () => {
    const clock = new ManualClock()
    await using agent = await withIdentities([WEB], { clock })
    const { svid } = (await fetchJwt(agent, { audience: ['orders'] })).svids[0]
    clock.advance(10 * MINUTE)
    using client = new RawClient(agent.socket)
    const answer = await client.unary(VALIDATE, { audience: 'orders', svid })
    expect(answer).toEqual(refused('INVALID_ARGUMENT', 'svid_expired'))
  })

  it('WA-11, WA-12: refuses a WIT-SVID and a token of another authority', async () => {
    await using agent = await withIdentities([WEB])
    await using other = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const { svids } = await first(client, `${API}/FetchWITSVID`)
    const wit = await client.unary(VALIDATE, { audience: 'orders', svid: svids[0].wit_svid })
    expect(wit).toEqual(refused('INVALID_ARGUMENT', 'svid_invalid'))
    const { svid } = (await fetchJwt(other, { audience: ['orders'] })).svids[0]
    expect(await client.unary(VALIDATE, { audience: 'orders', svid })).toMatchObject({
      code: 'INVALID_ARGUMENT',
    })
  })
})

/** The token with another subject under the old signature. */
function swapSubject(token: string): string {
  const [header, payload = '', signature] = token.split('.')
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString())
  const changed = Buffer.from(JSON.stringify({ ...claims, sub: idOf('admin') })).toString('base64url')
  return [header, changed, signature].join('.')
}

/** jose takes no `use` but `sig`. */
const forJose = (keys: readonly Message[]) => keys.map(({ use, ...key }) => key)

describe('WIT-SVIDs', () => {
  it('WA-1, WA-13: are UNIMPLEMENTED, bundles too, while the profile is off', async () => {
    await using agent = await withIdentities([WEB], { config: (config) => ({ ...config, wit: 'off' }) })
    using client = new RawClient(agent.socket)
    for (const name of ['FetchWITSVID', 'FetchWITBundles'])
      expect(await first(client, `${API}/${name}`)).toEqual(refused('UNIMPLEMENTED', 'unimplemented'))
    expect(await first(client, `${API}/FetchX509SVID`)).toHaveProperty('svids')
  })

  it('WA-13: come with the private JWK of their cnf key and verify under unique keys', async () => {
    await using agent = await withIdentities([WEB, SHOP])
    using client = new RawClient(agent.socket)
    const { svids } = await first(client, `${API}/FetchWITSVID`)
    const keys = keysOf(await first(client, `${API}/FetchWITBundles`))
    expect(new Set(keys.map((key) => key.kid)).size).toBe(keys.length)
    for (const key of keys) expect(key).toMatchObject({ use: 'wit-svid', kid: expect.any(String) })
    expect(svids.map((svid: Message) => svid.spiffe_id)).toEqual([idOf('web'), idOf('shop')])
    for (const { wit_svid, wit_svid_key } of svids) {
      const { payload, protectedHeader } = await jwtVerify(
        wit_svid,
        createLocalJWKSet({ keys: forJose(keys) }),
      )
      expect(protectedHeader).toMatchObject({ typ: 'wit+jwt', kid: expect.any(String) })
      const { jwk } = payload['cnf'] as { jwk: object }
      const key = JSON.parse(wit_svid_key)
      expect(key.d).toEqual(expect.any(String))
      expect(await calculateJwkThumbprint(jwk as never)).toBe(await calculateJwkThumbprint(key))
      expect(payload).not.toHaveProperty('aud')
    }
    const one = await first(client, `${API}/FetchWITSVID`, { spiffe_id: idOf('shop') })
    expect(one.svids.map((svid: Message) => svid.spiffe_id)).toEqual([idOf('shop')])
  })

  it('have a key in JWT and WIT bundles that is unique over both', async () => {
    await using agent = await withIdentities([WEB])
    using client = new RawClient(agent.socket)
    const jwt = keysOf(await first(client, `${API}/FetchJWTBundles`)).map((key) => key.kid)
    const wit = keysOf(await first(client, `${API}/FetchWITBundles`)).map((key) => key.kid)
    expect(new Set([...jwt, ...wit]).size).toBe(jwt.length + wit.length)
  })
})
