/** How the middleware gets the keys of servers: by verified TLS, in bounds, and only where the server may keep them. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { Fault } from '../../src/base/fault.ts'
import type { NamedServer } from '../../src/policy/statements.ts'
import { keyFetch } from '../../src/verify/key-fetch.ts'
import { ManualClock } from '../support/clock.ts'
import { type DocumentServer, openDocuments } from '../support/middleware.ts'
import { ca } from '../support/middleware-servers.ts'
import { until } from '../support/until.ts'

const OAUTH = '/.well-known/oauth-authorization-server'
const JWKS = '{"keys":[]}'
const clock = new ManualClock()
let server: DocumentServer

beforeAll(async () => {
  server = await openDocuments()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})
beforeEach(() => {
  server.documents.clear()
  server.asked.length = 0
  server.documents.set('/jwks', { body: JWKS })
})

function statedAt(over: { readonly path?: string; readonly jwksUri?: string }): NamedServer {
  return {
    name: 'login',
    issuer: server.origin + (over.path ?? ''),
    jwksUri: over.jwksUri,
    tokenEndpoint: undefined,
    client: undefined,
    place: { file: 'test', line: 0 },
  }
}

/** The keys as text, or the message of the Fault. */
async function keysOf(
  over: { path?: string; jwksUri?: string; roots?: string | undefined } = {},
): Promise<string> {
  const stated = statedAt(over)
  const roots = 'roots' in over ? over.roots : ca.pem
  try {
    return await keyFetch([{ server: stated, ca: roots }], clock)(stated)
  } catch (error) {
    if (error instanceof Fault && error.reason === 'issuer_unavailable') return error.message
    throw error
  }
}

const metadata = (over: object = {}, path = '') =>
  JSON.stringify({ issuer: server.origin + path, jwks_uri: `${server.origin}/jwks`, ...over })

describe('keys', () => {
  it('are where they are stated to be, and nothing else is asked', async () => {
    expect(await keysOf({ jwksUri: `${server.origin}/jwks` })).toBe(JWKS)
    expect(server.asked).toEqual(['/jwks'])
  })

  it.each([
    ['', OAUTH],
    ['', '/.well-known/openid-configuration'],
    ['/realms/a', `${OAUTH}/realms/a`],
    ['/realms/a', '/realms/a/.well-known/openid-configuration'],
  ])('of an issuer with the path %j are found by %s', async (path, place) => {
    server.documents.set(place, { body: metadata({}, path) })
    expect(await keysOf({ path })).toBe(JWKS)
  })

  it.each<[string, () => { status?: number; headers?: Record<string, string>; body?: string }, RegExp]>([
    [
      'of another issuer',
      () => ({ body: metadata({ issuer: 'https://evil.example.org' }) }),
      /names another issuer/,
    ],
    [
      'that names keys elsewhere',
      () => ({ body: metadata({ jwks_uri: 'https://evil.example.org/jwks' }) }),
      /no JWK Set at its own origin/,
    ],
    [
      'that names keys over plain HTTP',
      () => ({ body: metadata({ jwks_uri: `${server.origin.replace('https', 'http')}/jwks` }) }),
      /no JWK Set at its own origin/,
    ],
    [
      'that names no keys',
      () => ({ body: metadata({ jwks_uri: undefined }) }),
      /no JWK Set at its own origin/,
    ],
    ['that is no JSON', () => ({ body: '<html>' }), /not one JSON object/],
    [
      'with its issuer twice',
      () => ({ body: `{"issuer":"x",${metadata().slice(1)}` }),
      /not one JSON object/,
    ],
    [
      'that moved',
      () => ({ status: 302, headers: { location: `${server.origin}/elsewhere` }, body: '' }),
      /with status 302/,
    ],
    ['that fails', () => ({ status: 500, body: '' }), /with status 500/],
    ['without an end', () => ({ body: 'x'.repeat(300_000) }), /with over 262144 bytes/],
  ])('are not taken by metadata %s', async (_what, document, message) => {
    server.documents.set(OAUTH, document())
    server.documents.set('/elsewhere', { body: metadata() })
    expect(await keysOf()).toMatch(message)
    expect(server.asked).toEqual([OAUTH])
  })

  it('are not taken from where they are redirected to, nor in any size', async () => {
    const jwksUri = `${server.origin}/jwks`
    server.documents.set('/jwks', { status: 307, headers: { location: `${server.origin}/other` }, body: '' })
    expect(await keysOf({ jwksUri })).toMatch(/with status 307/)
    server.documents.set('/jwks', { body: 'x'.repeat(300_000) })
    expect(await keysOf({ jwksUri })).toMatch(/with over 262144 bytes/)
    expect(server.asked).toEqual(['/jwks', '/jwks'])
  })

  it('are not taken from a server that the roots do not vouch for', async () => {
    expect(await keysOf({ jwksUri: `${server.origin}/jwks`, roots: undefined })).toMatch(/cannot be reached/)
    expect(server.asked).toEqual([])
  })

  it('are waited for five seconds and no longer', async () => {
    server.documents.set('/jwks', {})
    const keys = keysOf({ jwksUri: `${server.origin}/jwks` })
    await until('the server to be asked', () => server.asked.length === 1)
    clock.advance(5_000)
    expect(await keys).toMatch(/does not answer in time/)
  })
})
