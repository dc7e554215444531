/** What requests of one target carry when its binding lists several kinds: each, over all that goes along. */
import { createHash } from 'node:crypto'
import { importJWK, type JWK, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { nowSeconds, systemClock } from '../../src/base/clock.ts'
import { verifyWitSvid } from '../../src/spiffe/witsvid.ts'
import { call } from '../support/call.ts'
import { startEgress, type TestEgress } from '../support/egress.ts'
import { type ResourceServer, startResourceServer } from '../support/resource-server.ts'
import { makeTestCa } from '../support/tls.ts'
import { makeWitAuthority } from '../support/wit-authority.ts'

const ca = makeTestCa()
const { authority, wit } = makeWitAuthority()

let server: ResourceServer
let egress: TestEgress
let without: TestEgress

beforeAll(async () => {
  const page = { '/open': (_request: unknown, response: { end(text: string): void }) => response.end('{}') }
  server = await startResourceServer({ ca, handlers: page, open: ['/open'] })
  const origin = `https://localhost:${server.port}`
  const targets = {
    both: { origin, identity: 'server: login, binding: [dpop, wpt]' },
    txn: { origin, identity: 'server: login, binding: [wpt, dpop], txn_token: true' },
    free: { origin, identity: 'server: none, tokenless: true, binding: [dpop, wpt]' },
    alone: { origin, identity: 'server: none, tokenless: true, binding: [wpt]' },
  }
  egress = await startEgress({ ca, targets, wit })
  without = await startEgress({ ca, targets, wit: 'off' })
})

afterAll(async () => {
  await egress?.[Symbol.asyncDispose]()
  await without?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  authority.stop()
})

const hashOf = (text: unknown) => createHash('sha256').update(String(text)).digest('base64url')

async function sent(host: string, path = '/echo', headers: Readonly<Record<string, string>> = {}) {
  const { status } = await call(egress.socket, 'GET', path, { headers: { host, ...headers } })
  expect(status).toBe(200)
  const got = server.requests.at(-1)?.headers
  if (!got) throw new Error('nothing came')
  return got
}

/** The claims of the WPT, verified with the key of a WIT that the trust domain vouches for. */
async function wptOf(headers: NodeJS.Dict<string | string[]>) {
  const wit = String(headers['workload-identity-token'])
  const { spiffeId, jwk } = verifyWitSvid(wit, () => authority.bundle.get(), nowSeconds(systemClock))
  const key = await importJWK(jwk as unknown as JWK, 'ES256')
  const { payload } = await jwtVerify(String(headers['workload-proof-token']), key, { typ: 'wpt+jwt' })
  expect(payload['wth']).toBe(hashOf(wit))
  return { ...payload, spiffeId }
}

describe('a target bound by dpop and wpt', () => {
  it('gets the token, its DPoP proof, and a WPT over the same token', async () => {
    const headers = await sent('both')
    const [scheme, token] = String(headers.authorization).split(' ')
    expect(scheme).toBe('DPoP')
    expect(await wptOf(headers)).toMatchObject({
      spiffeId: 'spiffe://example.org/web',
      aud: `https://localhost:${server.port}/echo`,
      ath: hashOf(token),
    })
    expect(await wptOf(headers)).not.toHaveProperty('tth')
  })

  it('gets a WPT over the Txn-Token of the caller where policy lets it pass, and else neither', async () => {
    const headers = await sent('txn', '/echo', { 'Txn-Token': 'a.b.c' })
    expect(headers['txn-token']).toBe('a.b.c')
    expect(await wptOf(headers)).toMatchObject({ tth: hashOf('a.b.c') })
    const kept = await sent('both', '/echo', { 'Txn-Token': 'a.b.c' })
    expect(kept).not.toHaveProperty('txn-token')
    expect(await wptOf(kept)).not.toHaveProperty('tth')
  })

  it('gets fresh proofs of both kinds after a nonce challenge', async () => {
    server.nonce = 'n-1'
    const headers = await sent('both')
    const [before, after] = server.requests.slice(-2).map((request) => request.headers)
    server.nonce = undefined
    expect(before?.['workload-proof-token']).not.toBe(after?.['workload-proof-token'])
    expect(await wptOf(headers)).toHaveProperty('ath')
  })

  it('never gets a token with less than its binding: without WITs the request is refused', async () => {
    const count = server.requests.length
    const { status, headers } = await call(without.socket, 'GET', '/echo', { headers: { host: 'both' } })
    expect([status, headers['holdfast-reason']]).toEqual([501, 'unimplemented'])
    expect(server.requests.length).toBe(count)
  })
})

describe('a target without tokens', () => {
  it('gets the WPT, beside DPoP or alone', async () => {
    expect(Object.keys(await sent('free', '/open'))).toEqual(
      expect.arrayContaining(['dpop', 'workload-proof-token', 'workload-identity-token']),
    )
    const headers = await sent('alone', '/open')
    expect(headers).not.toHaveProperty('dpop')
    expect(headers).not.toHaveProperty('authorization')
    expect(await wptOf(headers)).not.toHaveProperty('ath')
  })

  it('gets DPoP without a WPT where WITs are off, and nothing where a WPT is all it takes', async () => {
    const ask = (host: string) => call(without.socket, 'GET', '/open', { headers: { host } })
    expect((await ask('free')).status).toBe(200)
    expect(server.requests.at(-1)?.headers).not.toHaveProperty('workload-proof-token')
    expect(server.requests.at(-1)?.headers).toHaveProperty('dpop')
    expect((await ask('alone')).headers['holdfast-reason']).toBe('unimplemented')
  })
})
