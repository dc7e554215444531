/** Targets that the certificate of the connection binds requests to (RFC 8705): a real server of tokens, a real resource. */
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, request as requestHttp, type ServerResponse } from 'node:http'
import { type RequestOptions, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SecureContext } from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import type { TrustBase } from '../../src/egress/trust.ts'
import { publicJwkOf, thumbprint } from '../../src/spiffe/jwk.ts'
import { parseJws } from '../../src/spiffe/jws.ts'
import { call } from '../support/call.ts'
import { ManualClock } from '../support/clock.ts'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { openTokenRig, type TokenRig } from '../support/token-rig.ts'
import { until } from '../support/until.ts'

const ca = makeTestCa()
const RESOURCE = 'https://orders.example.org'
const idOf = (name: string) => `spiffe://example.org/${name}`
const uid = process.getuid?.() ?? 0

const closing: (() => unknown)[] = []
afterEach(async () => {
  waiting.clear()
  for (const close of closing.splice(0).reverse()) await close()
})

interface Estate {
  readonly rig: TokenRig
  readonly issuer: TestIssuer
  readonly orders: ResourceServer
  readonly egress: TestEgress
}

interface EstateOptions {
  readonly clock?: ManualClock
  readonly users?: Readonly<Record<string, number>>
  readonly auth?: string
  readonly entry?: string
  readonly identity?: string
}

/** Answers that a test ends by hand. */
const waiting = new Set<ServerResponse>()
const wait = (_request: IncomingMessage, response: ServerResponse) => {
  response.writeHead(200).flushHeaders()
  waiting.add(response)
}

/** An authorization server that binds tokens to certificates, a resource server that demands them, and the door. */
async function open(options: EstateOptions = {}): Promise<Estate> {
  const { clock = systemClock, users = { web: uid, batch: uid }, entry } = options
  // Without jitter: a token that is renewed a third of its life before its end is not renewed at half of it.
  const rig = openTokenRig({ ca, clock, trustDomain: 'example.org', random: () => 0 })
  closing.push(() => rig.close())
  const keyed = makeClientKey()
  const common = { scopes: ['read'], certificateBound: true }
  const issuer = await startIssuer({
    ca,
    clients: [
      ...Object.keys(users).map((name) => ({ clientId: idOf(name), sanUri: idOf(name), ...common })),
      { clientId: 'shop', jwks: [keyed.jwk], ...common },
    ],
    resources: { [RESOURCE]: { scopes: ['read'], ttlSeconds: 120 } },
    clientRoots: [rig.clientRoot],
  })
  closing.push(() => issuer.stop())
  const orders = await startResourceServer({ ca, clientRoots: rig.clientRoot, handlers: { '/wait': wait } })
  closing.push(() => orders[Symbol.asyncDispose]())
  const auth = (options.auth ?? '{ auth: tls_client_auth }').replace('KEY', keyed.file)
  const identity =
    options.identity ?? `server: login, binding: [mtls], resource: "${RESOURCE}", scopes: [read]`
  const egress = await startEgress({
    ca,
    clock,
    users,
    ...(entry === undefined ? {} : { entry }),
    targets: { orders: { origin: `https://localhost:${orders.port}`, identity } },
    server: `issuer: "${issuer.issuer}", client: ${auth}`,
    tokens: rig.tokens,
    certificates: rig.certificates,
    settings: { idleTimeout: 3_600 },
  })
  closing.push(() => egress[Symbol.asyncDispose]())
  return { rig, issuer, orders, egress }
}

function makeClientKey() {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-mtls-'))
  closing.push(() => rmSync(dir, { recursive: true }))
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const file = join(dir, 'client.pem')
  writeFileSync(file, String(privateKey.export({ format: 'pem', type: 'pkcs8' })), { mode: 0o600 })
  const jwk = publicJwkOf(createPublicKey(privateKey))
  return { file, jwk: { ...jwk, kid: thumbprint(jwk) } }
}

const get = ({ egress }: Estate, name = 'web', path = '/echo') =>
  call(egress.socket, 'GET', path, { headers: { host: 'orders', 'holdfast-spiffe-id': idOf(name) } })

interface Held {
  readonly ending: Promise<'ended' | 'cut off'>
}

/** A request whose answer has begun, and how it ends. */
function held({ egress }: Estate): Promise<Held> {
  const headers = { host: 'orders', 'holdfast-spiffe-id': idOf('web') }
  return new Promise((resolve, reject) => {
    requestHttp({ socketPath: egress.socket, path: '/wait', headers, agent: false }, (response) => {
      response.on('error', () => {})
      response.resume()
      const ending = new Promise<'ended' | 'cut off'>((end) => {
        response.on('close', () => end(response.complete ? 'ended' : 'cut off'))
      })
      resolve({ ending })
    })
      .on('error', reject)
      .end()
  })
}

const tokenRequests = ({ issuer }: Estate) => issuer.requests.filter(({ path }) => path === '/token').length
const tokenIn = ({ headers }: IncomingMessage) => String(headers.authorization).replace('Bearer ', '')

/** Sends as a thief would, over a TLS connection of its own. */
function sendOver(
  options: RequestOptions & { secureContext?: SecureContext },
  { port }: ResourceServer,
  token: string,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}` }
    request(
      { host: 'localhost', port, path: '/echo', agent: false, ca: ca.pem, headers, ...options },
      (got) => {
        got.resume()
        resolve(got.statusCode ?? 0)
      },
    )
      .on('error', reject)
      .end()
  })
}

describe('a target bound by the certificate of the connection', () => {
  it.each([
    ['tls_client_auth', '{ auth: tls_client_auth }', idOf('web')],
    ['private_key_jwt', '{ id: shop, auth: private_key_jwt, key: { file: KEY } }', 'shop'],
  ])('gets a bearer token that is bound to it, with a client by %s', async (_method, auth, sub) => {
    const estate = await open({ auth })
    const { orders, egress } = estate
    const { status, body } = await get(estate)
    expect([status, body]).toEqual([200, { sub, jkt: '', x5t: expect.any(String) }])
    const [sent] = orders.requests
    expect(sent?.headers).not.toHaveProperty('dpop')
    expect(sent && parseJws(tokenIn(sent))?.payload['cnf']).toEqual({ 'x5t#S256': body.x5t })
    const [record] = egress.records().filter(({ event }) => event === 'egress')
    expect(record).toMatchObject({ allowed: true, x5t: body.x5t, jkt: expect.stringMatching(/^.{43}$/) })
    expect(JSON.stringify(egress.records())).not.toContain(sent && tokenIn(sent))
  })

  it('is asked again over the same connection with the same token', async () => {
    const estate = await open()
    for (let n = 0; n < 5; n += 1) expect((await get(estate)).status).toBe(200)
    expect([tokenRequests(estate), estate.orders.accepted]).toEqual([1, 1])
  })

  it('never sees the certificate, the token or the connection of another workload, in 1,000 interleaved requests', async () => {
    const estate = await open()
    const seen: string[] = []
    let next = 0
    const work = async () => {
      for (let round = next++; round < 1_000; round = next++) {
        const name = round % 3 === 0 ? 'web' : 'batch'
        const { status, body } = await get(estate, name)
        seen.push(`${status} ${name} ${body.sub} ${body.x5t}`)
      }
    }
    await Promise.all(Array.from({ length: 32 }, work))
    expect(seen).toHaveLength(1_000)
    const kinds = [...new Set(seen)].sort()
    expect(kinds).toEqual([
      expect.stringMatching(`^200 batch ${idOf('batch')} .{43}$`),
      expect.stringMatching(`^200 web ${idOf('web')} .{43}$`),
    ])
    expect(new Set(kinds.map((kind) => kind.split(' ').at(-1))).size).toBe(2)
    expect(tokenRequests(estate)).toBe(2)
  })

  it('takes a stolen token over no other connection', async () => {
    const estate = await open()
    await get(estate)
    const [sent] = estate.orders.requests
    const token = sent ? tokenIn(sent) : ''
    const { workload, entry } = estate.rig.workload('batch')
    const ask = { entry, instance: workload.instanceOf(entry), purpose: 'target:orders' }
    const base: TrustBase = { ca: ca.pem }
    const secureContext = estate.rig.certificates.current(ask).contextWith(base)
    expect(await sendOver({ secureContext }, estate.orders, token)).toBe(401)
    expect(estate.orders.refused).toEqual(['invalid_token'])
    await expect(sendOver({}, estate.orders, token)).rejects.toThrow()
  })

  it('gives a refused token up for a new one, once', async () => {
    const estate = await open()
    await get(estate)
    estate.orders.nonce = 'refuse'
    expect((await get(estate)).status).toBe(401)
    estate.orders.nonce = undefined
    expect((await get(estate)).status).toBe(200)
    expect(tokenRequests(estate)).toBe(2)
  })
})

describe('when the certificate is renewed', () => {
  it('new requests get the new one and a token for it; what is under way stays with the old one', async () => {
    const clock = new ManualClock(Date.now() - 40_000)
    const estate = await open({ clock, entry: '    x509_ttl: 1m\n' })
    const first = await get(estate)
    const old = await held(estate)
    clock.advance(31_000)
    const second = await get(estate)
    expect(second.status).toBe(200)
    expect(second.body.x5t).not.toBe(first.body.x5t)
    expect([tokenRequests(estate), estate.egress.door.connections()]).toEqual([2, 2])
    for (const response of waiting) response.end('"late"')
    expect(await old.ending).toBe('ended')
  })

  it('the connections of the old one end with it', async () => {
    const clock = new ManualClock(Date.now() - 40_000)
    const estate = await open({ clock, entry: '    x509_ttl: 1m\n' })
    const cut = await held(estate)
    clock.advance(46_000)
    expect(estate.egress.door.connections()).toBe(1)
    clock.advance(30_000)
    await until('no connection', () => estate.egress.door.connections() === 0)
    expect(await cut.ending).toBe('cut off')
  })

  it('a token never outlives the certificate that it is bound to', async () => {
    const clock = new ManualClock(Date.now() - 40_000)
    const estate = await open({ clock, entry: '    x509_ttl: 1m\n' })
    await get(estate)
    const { workload, entry } = estate.rig.workload('web')
    const short = { ...entry, spiffeId: idOf('web') as typeof entry.spiffeId, x509Ttl: 60 }
    const server = {
      issuer: estate.issuer.issuer,
      tokenEndpoint: undefined,
      client: { method: 'tls_client_auth', clientId: undefined },
    } as const
    const over = { binding: ['mtls'], resource: RESOURCE } as const
    const ask = estate.rig.ask(server, { workload, entry: short, end: () => {} }, over)
    const { expires } = await estate.rig.get(ask)
    expect(expires).toBe(ask.certificate?.expires)
    expect(expires).toBeLessThanOrEqual(clock.now() / 1000 + 60)
  })
})

describe('the end of the lease', () => {
  it('ends the connections that showed its certificate, and the certificate', async () => {
    const estate = await open()
    const cut = await held(estate)
    estate.egress.attestation.revoke({ spiffeId: idOf('web') as never })
    await until('no connection', () => estate.egress.door.connections() === 0)
    expect(await cut.ending).toBe('cut off')
    expect(estate.rig.tokens.count).toBe(0)
  })

  it('comes with the revocation of the key: connections go, and the next certificate has another', async () => {
    const estate = await open()
    const { body } = await get(estate)
    const jkt = String(estate.egress.records().find(({ event }) => event === 'egress')?.['jkt'])
    expect(estate.egress.door.close({ jkt })).toBe(1)
    expect([estate.rig.tokens.drop({ jkt }), estate.rig.certificates.drop(jkt)]).toEqual([1, 1])
    expect((await get(estate)).body.x5t).not.toBe(body.x5t)
  })
})

describe('a target without tokens', () => {
  it('gets the certificate and no more', async () => {
    const identity = 'server: none, tokenless: true, binding: [mtls]'
    const estate = await open({ identity })
    expect((await get(estate)).headers['www-authenticate']).toBe('Bearer error="invalid_token"')
    const [sent] = estate.orders.requests
    expect(sent?.headers).not.toHaveProperty('authorization')
    expect(estate.orders.accepted).toBe(1)
    expect(tokenRequests(estate)).toBe(0)
  })
})
